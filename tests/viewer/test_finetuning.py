"""What of the annotations, of sessions and folders can be learned from, and results."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from annotating import add_to_nucleus, import_labels
from napari.components import ViewerModel
from napari.layers._source import Source

from napari_sac.core.errors import Cancelled, OutputError, TrainingDataError
from napari_sac.core.progress import ignore_progress
from napari_sac.core.training.reviewed_image import review_image
from napari_sac.core.types import NEGATIVE, POSITIVE, Prompts
from napari_sac.viewer.finetuning import (
    Counts,
    PairFolders,
    Problem,
    SavedSession,
    check_drawn,
    copy_annotation,
    count_reviewed,
    count_saved,
    gather,
    mark_seen,
    new_results,
    pair_folders,
    read_verdict,
)
from napari_sac.viewer.session import AnnotationSession

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Bench
    from synthetic import Nuclei

    from napari_sac.viewer.annotation import Annotation

REPORT = {
    "promoted": False,
    "reason": "PQ is not higher.",
    "model": "sac_tiny",
    "base": {"f1": 0.7, "pq": 0.6, "aji": 0.5, "dice": 0.8},
    "tuned": {"f1": 0.6, "pq": 0.5, "aji": 0.4, "dice": 0.7},
    "intervals": {
        "base": {"f1": [0.6, 0.8], "pq": [0.5, 0.7]},
        "tuned": {"f1": [0.5, 0.7]},
        "gain": None,
    },
    "gained": 1,
    "lost": 3,
    "nuclei": 20,
}


@pytest.fixture
def imported(bench: Bench, nuclei: Nuclei) -> Annotation:
    """Twelve nuclei whose pixels are given, and were accepted."""
    annotation = import_labels(bench.session, bench.plane, nuclei.labels)
    bench.session.accept(annotation, np.arange(12))
    return annotation


def write_report(folder: Path, **changes: object) -> Path:
    (folder / "run").mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(REPORT | changes))
    (folder / "napari_sac.json").write_text("{}")
    return folder


def test_masks_that_lag_behind_their_points_are_not_learned(bench: Bench) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    check_drawn(bench.session, annotation)
    bench.session.live.hold(True)
    bench.session.reject(annotation, np.array([0]))
    check_drawn(bench.session, annotation)
    add_to_nucleus(bench.session, annotation, annotation.prompts.yx[3] + 2, NEGATIVE)
    with pytest.raises(TrainingDataError, match="masks of 1 nucleus lag behind in"):
        check_drawn(bench.session, annotation)
    bench.session.live.hold(False)
    bench.decode()
    check_drawn(bench.session, annotation)


def test_only_what_a_person_decided_counts(bench: Bench, nuclei: Nuclei) -> None:
    annotation = bench.find()
    assert count_reviewed(annotation).problem is Problem.NOT_SEGMENTED
    # masks of a random model lie anywhere: the drawn ones in their place
    rows = np.rint(annotation.prompts.yx).astype(int)
    for number, (y, x) in zip(annotation.prompts.object_id, rows, strict=True):
        annotation.state.labels[nuclei.labels == nuclei.labels[y, x]] = number
    assert count_reviewed(annotation).problem is Problem.NOT_REVIEWED
    bench.session.accept(annotation, np.array([0, 1, 2]))
    assert count_reviewed(annotation) == Counts(nuclei=3)
    bench.session.reject(annotation, np.array([3]))
    assert count_reviewed(annotation) == Counts(nuclei=3, rejected=1)
    add_to_nucleus(
        bench.session, annotation, annotation.prompts.yx[0] + (0, 12), NEGATIVE
    )
    assert count_reviewed(annotation) == Counts(nuclei=3, rejected=1, negatives=1)


def test_a_region_makes_all_in_it_reviewed(bench: Bench, nuclei: Nuclei) -> None:
    annotation = bench.find()
    rows = np.rint(annotation.prompts.yx).astype(int)
    for number, (y, x) in zip(annotation.prompts.object_id, rows, strict=True):
        annotation.state.labels[nuclei.labels == nuclei.labels[y, x]] = number
    whole = np.array([[-1, -1], [-1, 200], [160, 200], [160, -1]], float)
    bench.session.set_reviewed(annotation, (whole,))
    assert count_reviewed(annotation) == Counts(nuclei=12, regions=1)


def test_a_region_without_masks_teaches_nothing(bench: Bench) -> None:
    annotation = bench.find()
    whole = np.array([[-1, -1], [-1, 200], [160, 200], [160, -1]], float)
    bench.session.set_reviewed(annotation, (whole,))
    bench.session.accept(annotation, np.array([0]))
    assert count_reviewed(annotation).problem is Problem.NOT_SEGMENTED
    (one,) = gather((copy_annotation(annotation),), ignore_progress)
    assert not one.known.any()


def test_one_mask_of_all_nuclei_teaches_no_nucleus(imported: Annotation) -> None:
    settings = imported.state.settings
    decode = replace(settings.decode, mode="semantic")
    imported.state = replace(imported.state, settings=replace(settings, decode=decode))
    assert count_reviewed(imported) == Counts(problem=Problem.SEMANTIC)


def test_an_annotation_without_its_image_cannot_be_used(
    bench: Bench, imported: Annotation
) -> None:
    bench.viewer.layers.remove(bench.layer)
    assert count_reviewed(imported).problem is Problem.NO_IMAGE
    with pytest.raises(TrainingDataError, match="deleted"):
        copy_annotation(imported)


def test_imported_labels_teach_nothing_until_they_are_looked_at(
    bench: Bench, nuclei: Nuclei
) -> None:
    annotation = import_labels(bench.session, bench.plane, nuclei.labels)
    assert count_reviewed(annotation).problem is Problem.NOT_REVIEWED
    bench.session.accept(annotation, np.arange(3))
    (one,) = gather((copy_annotation(annotation),), ignore_progress)
    assert count_reviewed(annotation).nuclei == one.count == 3


def test_what_is_counted_is_what_is_learned(imported: Annotation) -> None:
    prompts = imported.prompts
    ids, places = prompts.object_id[:3].tolist(), prompts.yx[:3]
    rejected, kept, negative = (
        Prompts.from_points(yx, object_id=k, sign=sign, state=state)
        for yx, k, sign, state in (
            # on background, on a nucleus that stays, on one that goes, and outside
            (
                [(1, 1), places[1], places[0], (-3, 5)],
                [91, 92, 93, 94],
                POSITIVE,
                "rejected",
            ),
            (places[1:2] + 1, ids[1], POSITIVE, "added"),
            ([(1, 3), (1, 5)], [ids[1], ids[0]], NEGATIVE, "added"),
        )
    )
    first = prompts.select(np.arange(len(prompts)) == 0)
    gone = replace(first, state=np.array(["rejected"]))
    rest = prompts.select(np.arange(len(prompts)) > 0)
    everything = Prompts.concatenate([gone, rest, rejected, kept, negative])
    imported.state = replace(imported.state, prompts=everything)
    (one,) = gather((copy_annotation(imported),), ignore_progress)
    counts = count_reviewed(imported)
    assert counts.nuclei == one.count == 11
    assert counts.rejected == len(one.rejected) == 3
    assert counts.negatives == len(one.negatives) == 1


def test_gathering_is_what_review_says(bench: Bench, imported: Annotation) -> None:
    bench.session.reject(imported, np.array([0]))
    copied = copy_annotation(imported)
    expected = review_image(
        "field",
        bench.plane.read(),
        imported.state.labels.astype(int),
        prompts=imported.prompts,
    )
    # what is done meanwhile is not in it
    bench.session.reject(imported, np.array([1, 2, 3]))
    one, again = gather((copied, copied), ignore_progress)
    assert (one.name, again.name) == ("field", "field (2)")
    np.testing.assert_array_equal(one.image, expected.image)
    np.testing.assert_array_equal(one.labels, expected.labels)
    np.testing.assert_array_equal(one.known, expected.known)
    assert one.count == 11


def test_gathering_can_be_cancelled(imported: Annotation) -> None:
    def cancel(*_: object) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        gather((copy_annotation(imported),), cancel)


def test_folders_of_pairs_are_counted_and_read(tmp_path: Path, nuclei: Nuclei) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for i in range(2):
        tifffile.imwrite(tmp_path / "images" / f"{i}.tif", nuclei.image)
        tifffile.imwrite(tmp_path / "labels" / f"{i}.tif", nuclei.labels)
    folders = pair_folders(tmp_path)
    assert folders == PairFolders(tmp_path / "images", tmp_path / "labels")
    assert count_saved(folders, ignore_progress) == Counts(nuclei=24, images=2)
    assert len(gather((folders,), ignore_progress)) == 2
    assert pair_folders(tmp_path / "images") is None


def test_a_saved_session_is_counted_and_read(
    bench: Bench, imported: Annotation, tmp_path: Path
) -> None:
    bench.session.reject(imported, np.array([0]))
    bench.session.save_as(tmp_path / "mine.sac")
    bench.session.close()
    source = SavedSession(tmp_path / "mine.sac")
    counts = count_saved(source, ignore_progress)
    assert (counts.nuclei, counts.images, counts.problem) == (11, 1, None)
    (one,) = gather((source,), ignore_progress)
    assert one.count == 11


def test_a_verdict_is_read(tmp_path: Path) -> None:
    verdict = read_verdict(write_report(tmp_path / "mine"))
    assert not verdict.promoted
    assert [score.name for score in verdict.scores] == ["F1", "PQ", "AJI", "Dice"]
    f1, pq, *_ = verdict.scores
    assert (f1.before, f1.after) == (0.7, 0.6)
    assert f1.before_range == (0.6, 0.8)
    assert f1.after_range == (0.5, 0.7)
    assert pq.after_range is None
    assert (verdict.gained, verdict.lost, verdict.nuclei) == (1, 3, 20)


def test_a_verdict_without_a_held_out_part_has_no_scores(tmp_path: Path) -> None:
    verdict = read_verdict(write_report(tmp_path / "mine", base=None, tuned=None))
    assert verdict.scores == ()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"promoted": 1', "[" * 100_000])
def test_a_damaged_report_is_refused_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(OutputError, match="cannot be read"):
        read_verdict(tmp_path)


def test_results_are_new_until_they_were_seen(tmp_path: Path) -> None:
    first = write_report(tmp_path / "a")
    second = write_report(tmp_path / "b")
    (tmp_path / "adapter_of_somebody").mkdir()
    assert new_results(tmp_path) == (first, second)
    mark_seen(first)
    assert new_results(tmp_path) == (second,)
    assert new_results(tmp_path / "nothing") == ()
    # the disk was full: a report, and no adapter
    (second / "napari_sac.json").unlink()
    assert new_results(tmp_path) == ()


@pytest.mark.parametrize("from_file", [False, True])
def test_planes_of_one_image_are_never_learned_from_and_proved_on(
    bench: Bench, nuclei: Nuclei, tmp_path: Path, from_file: bool
) -> None:
    grey = nuclei.image.mean(axis=-1).astype(np.uint8)
    stack = np.stack([grey, grey[::-1]])
    bench.layer = bench.viewer.add_image(stack, name="stack")
    if from_file:
        tifffile.imwrite(tmp_path / "a.tif", stack)
        # as a reader of napari's tells it
        bench.layer._source = Source(path=str(tmp_path / "a.tif"))
    for place in (0, 1):
        bench.viewer.dims.set_point(0, place)
        labels = nuclei.labels[::-1] if place else nuclei.labels
        annotation = import_labels(bench.session, bench.plane, labels)
        bench.session.accept(annotation, np.arange(3))
    bench.layer = bench.viewer.add_image(nuclei.image, rgb=True, name="other")
    annotation = import_labels(bench.session, bench.plane, nuclei.labels)
    bench.session.accept(annotation, np.arange(3))
    bench.session.save_as(tmp_path / "mine.sac")
    bench.session.close()

    session = AnnotationSession.of(ViewerModel())
    session.open(tmp_path / "mine.sac")
    first, second, other = (
        gather((copy_annotation(annotation),), ignore_progress)[0].group
        for annotation in session.annotations
    )
    session.close()
    assert first == second
    assert other != first
