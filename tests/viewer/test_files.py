"""Journal, sessions, exports and imports of a session in a viewer."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from annotating import (
    add_nuclei,
    import_labels,
    import_outlines,
    import_points,
    import_table,
)
from filelock import FileLock
from napari.components import ViewerModel
from napari.layers import Image
from napari.layers._source import layer_source
from napari_builtins.io import napari_get_reader

from napari_sac.core.errors import (
    ImageFormatError,
    LabelFormatError,
    NapariSacError,
    OutputError,
    SessionError,
)
from napari_sac.core.geojson import Outlines, read_geojson, write_geojson
from napari_sac.core.inference.instances import overlap
from napari_sac.core.io import normalise_image, read_labels, read_prompts
from napari_sac.core.ome_zarr import write_ome_zarr
from napari_sac.core.progress import ignore_progress
from napari_sac.core.session import folder as session_folder
from napari_sac.core.session import journal as journals
from napari_sac.core.session.journal import Journal
from napari_sac.core.session.recovery import find_unclosed
from napari_sac.core.session.replay import replay
from napari_sac.core.training.session_data import read_reviewed_session
from napari_sac.core.types import ObjectClass, Prompts
from napari_sac.viewer import exchange, journaling, reopening
from napari_sac.viewer.inference import ModelChoice
from napari_sac.viewer.live import decode_live
from napari_sac.viewer.planes import AS_READ, current_plane, pixel_size
from napari_sac.viewer.readers import get_session_reader, open_dropped_session
from napari_sac.viewer.reopening import OTHER_PIXELS
from napari_sac.viewer.session import AnnotationSession
from napari_sac.viewer.writers import write_outlines

if TYPE_CHECKING:
    from conftest import Bench
    from synthetic import Nuclei

    from napari_sac.core.types import IntArray
    from napari_sac.viewer.annotation import Annotation


def edit(bench: Bench) -> Annotation:
    annotation = bench.find()
    bench.segment(annotation)
    bench.session.reject(annotation, np.array([1, 2]))
    annotation.points.add([80.0, 100.0])
    bench.decode()
    return annotation


def check_same(first: Annotation, second: Annotation) -> None:
    for column in ("object_id", "yx", "sign", "score", "state"):
        np.testing.assert_array_equal(
            getattr(first.prompts, column), getattr(second.prompts, column)
        )
    np.testing.assert_array_equal(first.state.labels, second.state.labels)
    assert first.painted == second.painted
    assert first.state.settings == second.state.settings
    assert first.state.classes == second.state.classes


def drawn_ids(annotation: Annotation) -> set[int]:
    return set(np.unique(annotation.state.labels).tolist()) - {0}


def noted(folder: Path) -> dict[str, Any]:
    """Return what a session notes of the work on its first image."""
    journal = Journal.open(folder)
    info = journal.restore().info
    journal.close(clean=False)
    return info["work-1"]


def reopened(folder: Path) -> AnnotationSession:
    session = AnnotationSession.of(ViewerModel())
    session.open(folder)
    return session


def reopened_elsewhere(bench: Bench) -> tuple[AnnotationSession, list[str]]:
    """Close the session, open it in another viewer; return what that one says, too."""
    folder = bench.session.journal.folder
    bench.session.close(clean=False)
    session = AnnotationSession.of(ViewerModel())
    told: list[str] = []
    session.told.connect(told.append)
    session.open(folder)
    return session, told


def test_a_journal_begins_with_the_first_change(bench: Bench) -> None:
    assert bench.session.journal.folder is None
    bench.find()
    assert bench.session.journal.folder.is_dir()


def test_what_was_not_closed_is_all_there(bench: Bench) -> None:
    annotation = edit(bench)
    folder = bench.session.journal.folder
    # nothing was flushed: all of it is in the log
    bench.session.close(clean=False)
    session = reopened(folder)
    (again,) = session.annotations
    check_same(annotation, again)
    assert session.undo_title == "add 1 nucleus"
    np.testing.assert_array_equal(again.labels.data, annotation.labels.data)
    np.testing.assert_array_equal(again.points.data, annotation.points.data)
    np.testing.assert_allclose(again.points.scale, annotation.points.scale)
    before = annotation.state.labels.copy()
    for _ in range(3):
        session.undo()
        bench.session.undo()
    check_same(annotation, again)
    assert not np.array_equal(before, again.state.labels)
    session.close()


def test_a_session_of_an_image_with_an_endless_name_opens(bench: Bench) -> None:
    bench.layer.name = "tissue " * 1000
    annotation = edit(bench)
    opened, _ = reopened_elsewhere(bench)
    check_same(opened.annotations[0], annotation)


def test_a_saved_session_goes_on_elsewhere(bench: Bench, tmp_path: Path) -> None:
    annotation = edit(bench)
    bench.session.save_as(tmp_path / "mine")
    assert bench.session.journal.folder == tmp_path / "mine.sac"
    bench.session.accept(annotation, np.array([4]))
    bench.session.close()
    session = reopened(tmp_path / "mine.sac")
    check_same(annotation, session.annotations[0])
    session.close()


def test_an_opened_session_goes_on_with_its_own_model(bench: Bench) -> None:
    bench.loaded = replace(bench.loaded, choice=ModelChoice("sac_tiny", Path("he")))
    edit(bench)
    session, told = reopened_elsewhere(bench)
    assert session.chosen_model == ("sac_tiny", "he")
    assert told == []
    session.close()


def test_a_model_that_is_gone_is_told(bench: Bench, tmp_path: Path) -> None:
    gone = ModelChoice("sac_tiny", tmp_path / "my stain")
    bench.loaded = replace(bench.loaded, choice=gone)
    edit(bench)
    session, told = reopened_elsewhere(bench)
    (sentence,) = told
    assert "my stain" in sentence
    assert "Segment draws all of them anew" in sentence
    assert session.chosen_model == ("sac_tiny", None)
    assert len(session.annotations) == 1
    session.close()


def test_a_second_viewer_is_told_and_only_looks(bench: Bench) -> None:
    edit(bench)
    viewer = ViewerModel()
    session = AnnotationSession.of(viewer)
    told: list[str] = []
    session.told.connect(told.append)
    session.open(bench.session.journal.folder)
    assert session.read_only
    # the model of these tests is none of the registry, which is told too
    assert "read-only" in told[-1]
    session.accept(session.annotations[0], np.array([0]))
    assert session.undo_title == "accept 1 nucleus"
    session.close()


def test_nothing_is_opened_over_another_session(bench: Bench) -> None:
    edit(bench)
    with pytest.raises(SessionError, match="another session"):
        bench.session.open(bench.session.journal.folder)


def test_an_image_that_is_gone_is_saved_all_the_same(
    bench: Bench, tmp_path: Path
) -> None:
    annotation = edit(bench)
    folder = bench.session.journal.folder
    reader = reopened(folder)
    (again,) = reader.annotations
    assert reader.read_only
    reader.accept(again, np.array([0]))
    reader.undo()
    reader.viewer.layers.remove(again.plane.layer)
    # the first viewer goes on meanwhile
    bench.session.accept(annotation, np.array([6]))
    reader.save_as(tmp_path / "copy")
    assert not reader.read_only
    assert reader.redo() == "accept 1 nucleus"
    reader.close()
    bench.session.close()
    session = reopened(tmp_path / "copy.sac")
    check_same(again, session.annotations[0])
    assert session.annotations[0].plane is not None
    while session.undo():
        reader.undo()
    check_same(again, session.annotations[0])
    session.close()


def test_saving_that_fails_leaves_nothing(
    bench: Bench, home: Path, tmp_path: Path
) -> None:
    home.write_text("a file where the folder should be", encoding="utf-8")
    annotation = edit(bench)
    place = tmp_path / "there"
    place.mkdir()
    (place / "mine.sac").write_text("something else", encoding="utf-8")
    with pytest.raises(OutputError, match="choose another name"):
        bench.session.save_as(place / "mine.sac")
    assert [path.name for path in place.iterdir()] == ["mine.sac"]
    bench.session.save_as(place / "other.sac")
    bench.session.close()
    session = reopened(place / "other.sac")
    check_same(annotation, session.annotations[0])
    session.close()
    names = {path.name for path in place.iterdir()}
    assert names == {"mine.sac", "other.sac"}


def test_a_step_too_large_is_told_and_the_work_goes_on(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[str] = []
    bench.session.journal_failed.connect(failures.append)
    annotation = bench.find()
    folder = bench.session.journal.folder
    with monkeypatch.context() as patch:
        patch.setattr("napari_sac.core.session.encoding.MAX_BYTES", 500)
        bench.segment(annotation)
        bench.session.undo()
        bench.session.redo()
    bench.session.accept(annotation, np.array([1]))
    assert len(failures) == 1
    assert "cannot be written" in failures[0]
    # what was written before can still be opened, up to the step
    left = reopened(folder)
    assert left.undo_title == "find 12 nuclei"
    left.close(clean=False)
    bench.session.save_as(tmp_path / "all.sac")
    bench.session.accept(annotation, np.array([2]))
    bench.session.close()
    session = reopened(tmp_path / "all.sac")
    check_same(annotation, session.annotations[0])
    assert [session.undo() for _ in range(3)][-1] == "segment 12 nuclei"
    session.close()


def test_flushing_by_pieces_ends(bench: Bench) -> None:
    edit(bench)
    assert bench.session.flush(chunks=0) > 0
    while bench.session.flush(chunks=1):
        pass
    assert bench.session.flush() == 0
    bench.session.close()


def test_what_a_closed_window_did_not_wait_for_is_in_the_log(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotation = edit(bench)
    bench.session.save_as(tmp_path / "x.sac")
    bench.session.merge(annotation, annotation.prompts.object_id[3:6].tolist())
    bench.decode()
    monkeypatch.setattr(journaling, "_BRIEF_SECONDS", 0)
    monkeypatch.setattr(journaling, "_PIECES", 0)
    assert bench.session.flush(chunks=0) > 0
    asked: list[int | None] = []
    flush = Journal.flush

    def count(self: Journal, labels: Any, *, chunks: int | None = None) -> int:
        asked.append(chunks)
        return flush(self, labels, chunks=chunks)

    monkeypatch.setattr(Journal, "flush", count)
    bench.session.close(clean=True)
    assert asked == [0]
    assert find_unclosed() == []
    session = reopened(tmp_path / "x.sac")
    (restored,) = session.annotations
    check_same(annotation, restored)
    assert restored.steps == annotation.steps
    np.testing.assert_array_equal(restored.labels.data, annotation.state.labels)
    # it is still to be written
    assert session.flush(chunks=0) > 0
    assert session.undo_title == bench.session.undo_title
    session.close()


def test_a_long_log_is_made_shorter_when_its_session_is_opened(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotation = edit(bench)
    bench.session.save_as(tmp_path / "x.sac")
    bench.session.accept(annotation, np.array([4]))
    before = annotation.state
    bench.session.accept(annotation, np.array([5]))
    many = len(bench.session.history.done)
    assert many > 2
    monkeypatch.setattr(journaling, "_PIECES", 0)
    bench.session.close()
    monkeypatch.setattr(journals, "COMPACT_BYTES", 1)
    monkeypatch.setattr(journals, "KEPT_STEPS", 2)
    session = reopened(tmp_path / "x.sac")
    (restored,) = session.annotations
    check_same(annotation, restored)
    assert session.undo() == "accept 1 nucleus"
    np.testing.assert_array_equal(restored.prompts.state, before.prompts.state)
    assert session.undo() is not None
    assert session.undo() is None
    assert session.redo() == session.redo() == "accept 1 nucleus"
    # and it goes on in the log as it is now
    session.reject(restored, np.array([0]))
    session.close(clean=False)
    third = reopened(tmp_path / "x.sac")
    check_same(restored, third.annotations[0])
    assert [third.undo() for _ in range(4)][-2:] == ["accept 1 nucleus", None]
    third.close()


def test_a_closed_window_writes_for_a_moment_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(bench)
    clock = iter(np.arange(0, 10, 0.03).tolist())
    asked: list[int | None] = []

    def flush(self: Journal, labels: Any, *, chunks: int | None = None) -> int:
        asked.append(chunks)
        return 400

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "flush", flush)
        patch.setattr(journaling.time, "monotonic", lambda: next(clock))
        bench.session.flush_briefly()
    assert asked == [2] * 4
    bench.session.close()


def test_old_sessions_that_nobody_saved_go(bench: Bench, home: Path) -> None:
    for i in range(22):
        journal = Journal.create(home / "sessions" / f"{i}.sac")
        journal.close(clean=True)
    bench.find()
    assert len(list((home / "sessions").glob("*.sac"))) == 21
    bench.session.close()


@pytest.mark.parametrize("winner_goes", [True, False])
def test_live_masks_of_an_opened_session_are_those_of_a_replay(
    bench: Bench, tmp_path: Path, *, winner_goes: bool
) -> None:
    annotation = bench.find()
    # what a person sets covers what was proposed beside it
    add_nuclei(annotation, annotation.prompts.yx[:1] + 3)
    bench.segment(annotation, overlap=0.1)
    ids = set(annotation.prompts.object_id.tolist())
    dropped = sorted(ids - set(np.unique(annotation.state.labels).tolist()))
    assert dropped
    twin = annotation.masks[dropped[0]]
    rivals = [m for k, m in annotation.masks.items() if k not in dropped]
    winner = max(rivals, key=lambda m: overlap(m, twin)).object_id
    place = annotation.prompts.yx[annotation.prompts.object_id == dropped[0]][0]
    bench.session.save_as(tmp_path / "a.sac")
    bench.session.close()
    session = reopened(tmp_path / "a.sac")
    session.loaded = bench.loaded
    bench.session = session
    (again,) = session.annotations
    assert not again.masks
    before = again.state.labels.copy()
    if winner_goes:
        session.reject(again, np.flatnonzero(again.prompts.object_id == winner))
    else:
        again.points.add(place - 3)
    assert bench.decode() == 1
    assert not again.unsure
    assert again.masks.keys() >= set(dropped) - {winner}
    assert not np.array_equal(before, again.state.labels)
    # a step of the opened session is undone, and brings no masks back
    session.undo()
    np.testing.assert_array_equal(before, again.state.labels)
    session.redo()
    session.undo()
    session.undo()
    session.redo()
    session.redo()
    again.points.add([20.0, 150.0])
    bench.decode()
    session.close()
    (result,) = replay(tmp_path / "a.sac", load=lambda *_, **__: bench.loaded.model)
    assert result.different_pixels == 0


def test_other_weights_of_the_same_name_redraw_nothing_unasked(
    bench: Bench, tmp_path: Path
) -> None:
    bench.segment(bench.find())
    bench.session.save_as(tmp_path / "a.sac")
    bench.session.close()
    session = reopened(tmp_path / "a.sac")
    other = replace(bench.loaded.model, key="learned on")
    bench.session, session.loaded = session, replace(bench.loaded, model=other)
    (again,) = session.annotations
    before = again.state.labels.copy()
    again.points.add([80.0, 100.0])
    request = session.live.next_request()
    with pytest.raises(NapariSacError, match=r"not those .* press Segment"):
        decode_live(request, ignore_progress)
    session.live.fail(request)
    np.testing.assert_array_equal(again.state.labels, before)
    # who asks for it gets it, and goes on from there
    bench.loaded, bench.layer = session.loaded, again.plane.layer
    bench.segment(again)
    assert again.state.settings.model_key == "learned on"
    again.points.add([20.0, 150.0])
    bench.decode()
    session.close()


def test_other_weights_redraw_no_imported_points(bench: Bench) -> None:
    bench.session.chosen_model, bench.session.loaded = ("tiny", None), bench.loaded
    import_points(bench.session, bench.plane, [[40.0, 40.0]], 20)
    bench.decode()
    session, _ = reopened_elsewhere(bench)
    other = replace(bench.loaded.model, key="learned on")
    session.loaded = replace(bench.loaded, model=other)
    session.annotations[0].points.add([80.0, 100.0])
    with pytest.raises(NapariSacError, match="not those"):
        decode_live(session.live.next_request(), ignore_progress)
    session.close()


def test_other_weights_are_loaded_once_to_be_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.segment(bench.find())
    session, _ = reopened_elsewhere(bench)
    other = replace(bench.loaded.model, key="learned on")
    loads = []

    def load(choice: ModelChoice, _: Any) -> Any:
        loads.append(choice)
        return other

    monkeypatch.setattr(ModelChoice, "load", load)
    (again,) = session.annotations
    for x in (60.0, 100.0):
        again.points.add([80.0, x])
        request = session.live.next_request()
        with pytest.raises(NapariSacError, match="not those") as refused:
            decode_live(request, ignore_progress)
        session.live.fail(request, refused.value)
    assert loads == [ModelChoice("tiny")]
    session.close()


def test_weights_that_were_put_back_are_used_in_the_same_window(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.segment(bench.find())
    session, _ = reopened_elsewhere(bench)
    model = bench.loaded.model
    others = replace(model, key="others", spec=replace(model.spec, sha256="others"))
    on_disk = [others]
    monkeypatch.setattr(ModelChoice, "load", lambda *_: on_disk[-1])
    (again,) = session.annotations
    again.points.add([80.0, 60.0])
    request = session.live.next_request()
    with pytest.raises(NapariSacError, match="put the other weights back") as refused:
        decode_live(request, ignore_progress)
    session.live.fail(request, refused.value)
    on_disk.append(model)
    again.points.add([80.0, 100.0])
    bench.session = session
    assert bench.decode()
    assert {13, 14} <= again.masks.keys()
    assert session.loaded.model is model
    session.close()


def test_a_step_killed_before_its_mask_is_made_up_for(
    bench: Bench, tmp_path: Path
) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    bench.session.reject(annotation, np.array([3]))
    annotation.points.add([80.0, 100.0])
    folder = bench.session.journal.folder
    bench.session.close(clean=False)
    session = reopened(folder)
    bench.session, session.loaded = session, bench.loaded
    session.reject(session.annotations[0], np.array([7]))
    bench.decode()
    session.save_as(tmp_path / "a.sac")
    session.close()
    (result,) = replay(tmp_path / "a.sac", load=lambda *_, **__: bench.loaded.model)
    assert result.different_pixels == 0
    assert 13 in result.labels


def test_a_failed_decoding_is_made_up_for_by_the_next(
    bench: Bench, tmp_path: Path
) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    bench.session.reject(annotation, np.array([3]))
    annotation.points.add([80.0, 100.0])
    for _ in range(2):
        bench.session.live.fail(bench.session.live.next_request())
    bench.session.reject(annotation, np.array([7]))
    bench.decode()
    bench.session.save_as(tmp_path / "a.sac")
    bench.session.close()
    (result,) = replay(tmp_path / "a.sac", load=lambda *_, **__: bench.loaded.model)
    assert result.different_pixels == 0


def test_a_journal_that_cannot_be_written_is_told_once(
    bench: Bench, home: Path, tmp_path: Path
) -> None:
    home.write_text("a file where the folder should be", encoding="utf-8")
    failures: list[str] = []
    bench.session.journal_failed.connect(failures.append)
    annotation = edit(bench)
    assert len(failures) == 1
    assert len(annotation.prompts) == 13
    bench.session.undo()
    home.unlink()
    # saving under a name writes all of it, from the beginning
    bench.session.save_as(tmp_path / "saved.sac")
    bench.session.accept(annotation, np.array([5]))
    bench.session.close()
    session = reopened(tmp_path / "saved.sac")
    check_same(annotation, session.annotations[0])
    while session.undo():
        bench.session.undo()
    check_same(annotation, session.annotations[0])
    session.close()


def test_what_is_written_anew_needs_a_drive_with_locks(
    bench: Bench, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.write_text("a file where the folder should be", encoding="utf-8")
    share, acquire = tmp_path / "share", FileLock.acquire

    def acquire_elsewhere(lock: FileLock, **options: Any) -> Any:
        if Path(lock.lock_file).is_relative_to(share):
            raise OSError(errno.ENOLCK, "No locks available")
        return acquire(lock, **options)

    monkeypatch.setattr(FileLock, "acquire", acquire_elsewhere)
    annotation = edit(bench)
    with pytest.raises(OutputError) as refused:
        bench.session.save_as(share / "a.sac")
    assert f": {share / 'a.sac'} is on a drive that cannot" in str(refused.value)
    assert str(refused.value).endswith("save it on another drive.")
    assert not list(share.iterdir())
    bench.session.save_as(tmp_path / "b.sac")
    bench.session.close()
    session = reopened(tmp_path / "b.sac")
    check_same(annotation, session.annotations[0])
    session.close()


def test_the_reader_knows_sessions(bench: Bench, tmp_path: Path) -> None:
    annotation = edit(bench)
    folder = bench.session.journal.folder
    bench.session.close()
    assert get_session_reader(str(tmp_path)) is None
    assert get_session_reader([str(folder)]) is None
    reader = get_session_reader(str(folder))
    assert reader is open_dropped_session
    # no window: something to look at
    labels, points = reader(str(folder))
    np.testing.assert_array_equal(labels[0], annotation.state.labels)
    np.testing.assert_array_equal(points[0], annotation.prompts.yx)


def test_exports(bench: Bench, tmp_path: Path) -> None:
    annotation = edit(bench)
    exchange.export_labels(annotation, tmp_path / "labels.tif")
    exchange.export_labels(annotation, tmp_path / "labels.ome.zarr")
    exchange.export_prompts(annotation, tmp_path / "prompts.csv")
    np.testing.assert_array_equal(
        read_labels(tmp_path / "labels.tif"), annotation.state.labels
    )
    assert (tmp_path / "labels.ome.zarr").is_dir()
    np.testing.assert_array_equal(
        read_prompts(tmp_path / "prompts.csv").yx, annotation.prompts.yx
    )


def test_exports_have_the_size_of_a_pixel(bench: Bench, tmp_path: Path) -> None:
    annotation = edit(bench)
    bench.layer.scale, bench.layer.units = (500, 250), ("nm", "nm")
    exchange.export_labels(annotation, tmp_path / "labels.tif")
    exchange.export_labels(annotation, tmp_path / "labels.ome.zarr")
    with tifffile.TiffFile(tmp_path / "labels.tif") as tiff:
        assert tiff.pages.first.get_resolution("MICROMETER") == (4, 2)
    about = (tmp_path / "labels.ome.zarr" / "zarr.json").read_text()
    assert '"micrometer"' in about
    (axes,) = json.loads(about)["attributes"]["ome"]["multiscales"]
    (placed,) = axes["datasets"][0]["coordinateTransformations"]
    assert placed == {"type": "scale", "scale": [0.5, 0.25]}
    # also without the image
    bench.viewer.layers.remove(bench.layer)
    exchange.export_labels(annotation, tmp_path / "alone.tif")
    with tifffile.TiffFile(tmp_path / "alone.tif") as tiff:
        assert tiff.pages.first.get_resolution("MICROMETER") == (4, 2)
    # as far away as a star
    annotation.labels.scale = (1e30, 1e30)
    exchange.export_labels(annotation, tmp_path / "star.tif")
    with tifffile.TiffFile(tmp_path / "star.tif") as tiff:
        assert tiff.pages.first.resolutionunit == tifffile.RESUNIT.NONE


def test_one_mask_of_all_nuclei_has_the_score_of_none(
    bench: Bench, tmp_path: Path
) -> None:
    annotation = bench.find()
    bench.segment(annotation, "semantic")
    labels = annotation.state.labels
    assert labels.max() == 1
    exchange.export_geojson(annotation, tmp_path / "dock.geojson")
    data = annotation.labels.as_layer_data_tuple()
    write_outlines(str(tmp_path / "menu.geojson"), *data[:2])
    write_geojson(tmp_path / "plain.geojson", labels)
    plain = (tmp_path / "plain.geojson").read_text()
    assert (tmp_path / "dock.geojson").read_text() == plain
    assert (tmp_path / "menu.geojson").read_text() == plain
    exchange.export_labels(annotation, tmp_path / "labels.ome.zarr")
    about = (tmp_path / "labels.ome.zarr").rglob("zarr.json")
    assert not any('"score"' in file.read_text() for file in about)


def open_file(
    bench: Bench, file: Path, *, turned: bool = False, **options: Any
) -> None:
    """Show the pixels of the bench's image as a reader of a file does."""
    pixels = bench.layer.data[::-1].copy() if turned else bench.layer.data
    with layer_source(path=str(file)):
        bench.layer = bench.viewer.add_image(pixels, rgb=True, **options)


def test_an_image_that_is_opened_again_has_its_nuclei(
    bench: Bench, tmp_path: Path
) -> None:
    bench.viewer.layers.clear()
    open_file(bench, tmp_path / "field.tif", name="field", scale=(0.5, 0.5))
    annotation = bench.find()
    bench.segment(annotation)
    bench.viewer.layers.remove(bench.layer)
    assert annotation.plane is None
    open_file(bench, tmp_path / "other.tif", turned=True, name="field")
    assert annotation.plane is None
    bench.viewer.layers.remove(bench.layer)
    told: list[str] = []
    bench.session.told.connect(told.append)
    # turned once more
    open_file(bench, tmp_path / "field.tif", turned=True, name="field", scale=(2, 3))
    assert bench.session.find(bench.plane) is annotation
    assert told == ["field is here again, with its nuclei."]
    assert tuple(annotation.points.scale) == tuple(annotation.labels.scale) == (2, 3)
    bench.viewer.layers.remove(bench.layer)
    # the very pixels, from another place
    open_file(bench, tmp_path / "moved.tif", name="copy")
    assert bench.session.find(bench.plane) is annotation
    bench.viewer.layers.remove(bench.layer)
    open_file(bench, tmp_path / "field.tif", turned=True, name="field")
    assert bench.session.find(bench.plane) is annotation
    assert told[1] == "copy is here again, with its nuclei."
    assert told[2:] == [f"field is here again, with its nuclei. {OTHER_PIXELS}"]
    annotation.points.add([80.0, 100.0])
    assert bench.decode()
    assert (annotation.state.labels == annotation.prompts.object_id[-1]).any()


def test_a_click_on_an_image_that_came_back_draws_its_nucleus_only(
    bench: Bench, undisturbed: Bench, tmp_path: Path
) -> None:
    clicks = [[80.0, 100.0], [20.0, 150.0], [140.0, 20.0]]
    undisturbed.session.loaded = bench.session.loaded = bench.loaded
    wanted = undisturbed.find()
    bench.viewer.layers.clear()
    open_file(bench, tmp_path / "field.tif", name="field")
    annotation = bench.find()
    for click in clicks:
        wanted.points.add(click)
        annotation.points.add(click)
        undisturbed.decode()
        bench.decode()
        check_same(annotation, wanted)
        # what was drawn has its masks again, which the next click goes by
        assert drawn_ids(annotation) <= annotation.masks.keys() <= wanted.masks.keys()
        if click == clicks[0]:
            bench.viewer.layers.remove(bench.layer)
            open_file(bench, tmp_path / "field.tif", name="field")
        elif click == clicks[1]:
            # as in a session that is opened
            bench.session, _ = reopened_elsewhere(bench)
            bench.session.loaded = bench.loaded
            (annotation,) = bench.session.annotations
    assert len(wanted.masks) < 12
    bench.session.close()


def test_a_click_after_one_that_failed_draws_no_proposals(
    bench: Bench, undisturbed: Bench, nuclei: Nuclei
) -> None:
    given = np.where(nuclei.labels <= 2, nuclei.labels, 0)
    both = []
    for each in (bench, undisturbed):
        each.session.loaded = bench.loaded
        annotation = import_labels(each.session, each.plane, given)
        each.find()
        for click in ([80.0, 100.0], [20.0, 150.0]):
            annotation.points.add(click)
            if each is bench and not annotation.unsure:
                each.session.live.fail(each.session.live.next_request())
            each.decode()
        both.append(annotation)
    failed, wanted = (drawn_ids(annotation) for annotation in both)
    assert {1, 2, 15, 16} <= failed <= wanted


def test_what_was_accepted_while_masks_waited_is_drawn_in_an_opened_session(
    bench: Bench, undisturbed: Bench
) -> None:
    undisturbed.session.loaded = bench.session.loaded = bench.loaded
    both = []
    for each in (bench, undisturbed):
        annotation = each.find()
        annotation.points.add([80.0, 100.0])
        each.decode()
        each.session.live.hold(each is bench)
        each.session.accept(annotation, np.array([0, 1]))
        assert each.decode() == (each is undisturbed)
        if each is bench:
            each.session, _ = reopened_elsewhere(bench)
            each.session.loaded = bench.loaded
            (annotation,) = each.session.annotations
        annotation.points.add([140.0, 20.0])
        each.decode()
        both.append(annotation)
    assert {1, 2, 13} <= drawn_ids(both[1])
    check_same(*both)
    bench.session.close()


def test_clicks_before_any_mask_was_drawn_are_drawn_in_an_opened_session(
    bench: Bench,
) -> None:
    annotation = bench.find()
    proposed = set(annotation.prompts.object_id.tolist())
    bench.session.live.hold(True)
    (waits,) = add_nuclei(annotation, np.array([[80.0, 100.0]]))
    assert not bench.decode()
    bench.session, _ = reopened_elsewhere(bench)
    bench.session.loaded = bench.loaded
    (annotation,) = bench.session.annotations
    assert not drawn_ids(annotation)
    add_nuclei(annotation, np.array([[140.0, 20.0]]))
    bench.decode()
    assert waits in drawn_ids(annotation)
    assert len(drawn_ids(annotation) & proposed) <= 1, "no proposals beside the click"
    bench.session.close()


def test_a_click_after_segment_was_undone_draws_its_nucleus_only(
    bench: Bench, tmp_path: Path
) -> None:
    bench.viewer.layers.clear()
    open_file(bench, tmp_path / "field.tif", name="field")
    annotation = bench.find()
    bench.segment(annotation)
    bench.session.undo()
    annotation.points.add([80.0, 100.0])
    bench.decode()
    bench.viewer.layers.remove(bench.layer)
    open_file(bench, tmp_path / "field.tif", name="field")
    annotation.points.add([20.0, 150.0])
    bench.decode()
    assert {13, 14} <= drawn_ids(annotation)
    assert len(drawn_ids(annotation)) < 12
    for _ in range(2):
        bench.session.undo()
    assert not annotation.segmented
    bench.session.redo()
    assert not annotation.segmented


def test_a_click_after_segment_was_undone_in_an_opened_session_draws_its_nucleus_only(
    bench: Bench,
) -> None:
    bench.segment(bench.find())
    for click in ([80.0, 100.0], [20.0, 150.0]):
        bench.session, _ = reopened_elsewhere(bench)
        bench.session.loaded = bench.loaded
        (annotation,) = bench.session.annotations
        if annotation.segmented:
            assert bench.session.undo() == "segment 12 nuclei"
        annotation.points.add(click)
        bench.decode()
    assert {13, 14} <= drawn_ids(annotation)
    assert len(drawn_ids(annotation)) < 12
    bench.session.close()


def test_a_click_beside_labels_imported_over_a_segmentation_draws_its_nucleus_only(
    bench: Bench, nuclei: Nuclei
) -> None:
    bench.session.loaded = bench.loaded
    bench.segment(bench.find())
    given = np.where(nuclei.labels <= 2, nuclei.labels, 0)
    annotation = import_labels(bench.session, bench.plane, given)
    for segmented in (False, True, False):
        assert annotation.segmented == segmented
        bench.session.redo() if segmented else bench.session.undo()
    bench.session.redo()
    bench.find()
    # the masks are unknown, as in a session that is opened
    annotation.unsure = True
    assert drawn_ids(annotation) == {1, 2}
    annotation.points.add([80.0, 100.0])
    bench.decode()
    # and what lies beside it
    assert {1, 2, 15} <= drawn_ids(annotation)
    assert len(drawn_ids(annotation)) < 6


@pytest.mark.parametrize(
    "noted",
    [7, [1], {"x": True}, {"3": 1}, {"3": None}, {"-3": True}, {"9" * 20: True}],
)
def test_of_a_session_is_read_what_makes_sense(noted: Any) -> None:
    read = exchange._read_work({"clicks": "many", "segmented_by": noted})
    assert read == {"segmented_by": {}}
    assert exchange._read_work(None) == {"segmented_by": {}}


def test_an_image_that_was_renamed_is_known_again_by_its_pixels(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "field.nd2"
    bench.viewer.layers.clear()
    open_file(bench, file, name="field DAPI")
    bench.layer.name = "blue"
    annotation = bench.find()
    bench.viewer.layers.remove(bench.layer)
    # another channel comes first
    open_file(bench, file, turned=True, name="field GFP")
    assert annotation.plane is None
    with monkeypatch.context() as patch:
        patch.setattr(reopening, "_MOST_COMPARED_PIXELS", 100)
        open_file(bench, file, turned=True, name="field DAPI")
    assert annotation.plane is None
    open_file(bench, file, name="field DAPI")
    assert annotation.plane.layer is bench.layer


def test_nuclei_go_to_no_other_image_of_their_file(
    bench: Bench, tmp_path: Path
) -> None:
    bench.viewer.layers.clear()
    open_file(bench, tmp_path / "field.zarr", name="C1")
    open_file(bench, tmp_path / "field.zarr", name="C0")
    annotation = bench.find()
    bench.viewer.layers.remove(bench.layer)
    open_file(bench, tmp_path / "field.zarr", turned=True, name="C2")
    assert annotation.plane is None
    open_file(bench, tmp_path / "field.zarr", turned=True, name="C0")
    assert annotation.plane.layer is bench.layer


def test_who_deletes_all_layers_starts_over(bench: Bench, tmp_path: Path) -> None:
    bench.viewer.layers.clear()
    open_file(bench, tmp_path / "field.tif", name="field")
    annotation = bench.find()
    bench.viewer.layers.clear()
    open_file(bench, tmp_path / "field.tif", name="field")
    assert bench.session.find(bench.plane) is None
    assert bench.find() is not annotation


def test_what_was_started_over_does_not_come_back(bench: Bench, tmp_path: Path) -> None:
    bench.viewer.layers.clear()
    open_file(bench, tmp_path / "field.tif", name="field")
    mess = bench.find()
    bench.segment(mess)
    bench.session.accept(mess, np.arange(12))
    open_file(bench, tmp_path / "other.tif", turned=True, name="other")
    finished = bench.find()
    bench.segment(finished)
    bench.viewer.layers.select_all()
    bench.viewer.layers.remove_selected()
    open_file(bench, tmp_path / "field.tif", turned=True, name="field")
    annotation = edit(bench)
    bench.session.save_as(tmp_path / "x.sac")
    bench.session.close()
    session = reopened(tmp_path / "x.sac")
    # of the other image nobody has begun anew
    first, second = session.annotations
    check_same(first, finished)
    check_same(second, annotation)
    assert session.find(second.plane) is second
    assert len(session.viewer.layers) == 6
    reviewed = read_reviewed_session(tmp_path / "x.sac")
    assert [one.count for one in reviewed] == [1]
    numbers = []
    for result in replay(tmp_path / "x.sac", load=lambda *_, **__: bench.loaded.model):
        assert result.different_pixels == 0
        numbers.append(result.number)
    assert numbers == [2, 3]
    # undo goes back through all of it
    assert list(iter(session.undo, None))[-1] == "find 12 nuclei"
    assert not session.history.done
    assert len(session.remembered[0].prompts) == 0
    session.close()


def test_what_was_deleted_together_comes_back_together(
    bench: Bench, tmp_path: Path
) -> None:
    file = tmp_path / "field.tif"
    bench.viewer.layers.clear()
    open_file(bench, file, name="field")
    first = bench.find()
    open_file(bench, file, name="field")
    second = edit(bench)
    bench.session.save_as(tmp_path / "x.sac")
    bench.viewer.layers.clear()
    open_file(bench, file, name="field")
    # what replaces both for now
    third = bench.find()
    bench.session.close()
    session = reopened(tmp_path / "x.sac")
    (again,) = session.annotations
    check_same(again, third)
    session.undo()
    session.save_as(tmp_path / "y.sac")
    session.close()
    session = reopened(tmp_path / "y.sac")
    both = session.annotations[:2]
    for known, again in zip((first, second), both, strict=True):
        check_same(again, known)
    session.close()


def test_a_start_that_was_undone_replaces_nothing(bench: Bench, tmp_path: Path) -> None:
    bench.viewer.layers.clear()
    open_file(bench, tmp_path / "field.tif", name="field")
    deleted = edit(bench)
    bench.viewer.layers.clear()
    open_file(bench, tmp_path / "field.tif", name="field")
    bench.find()
    bench.session.undo()
    bench.session.save_as(tmp_path / "x.sac")
    bench.session.close()
    session = reopened(tmp_path / "x.sac")
    (again,) = session.annotations
    check_same(again, deleted)
    assert [type(layer) for layer in session.viewer.layers].count(Image) == 1
    # the model is that of the work, not of the empty start
    states = {a.number: a.state for a in session.remembered}
    assert exchange._last_settings(states) is again.state.settings
    # what was undone can be done again, and is seen and meant then
    assert session.redo() == "find 12 nuclei"
    start = session.annotations[-1]
    assert len(start.points.data) == 12
    assert session.find(again.plane) is session.about(again.plane) is start
    session.undo()
    assert session.find(again.plane) is session.about(again.plane) is again
    session.close()


@pytest.mark.parametrize("is_open", [False, True])
def test_after_a_start_that_was_undone_the_work_goes_on(
    is_open: bool, bench: Bench, tmp_path: Path
) -> None:
    file = tmp_path / "field.tif"
    bench.viewer.layers.clear()
    open_file(bench, file, name="field")
    edit(bench)
    bench.viewer.layers.clear()
    open_file(bench, file, name="field")
    bench.find()
    bench.session.undo()
    bench.session.save_as(tmp_path / "x.sac")
    bench.session.close()
    bench.viewer = ViewerModel()
    if is_open:
        open_file(bench, file, name="field")
    bench.session = session = AnnotationSession.of(bench.viewer)
    session.open(tmp_path / "x.sac")
    again = session.annotations[0]
    again.points.add([20.0, 150.0])
    session.loaded = bench.loaded
    bench.decode()
    assert len(again.prompts) == 14
    assert session.find(again.plane) is again
    session.close()
    # so does the session that is opened once more
    session = reopened(tmp_path / "x.sac")
    assert len(session.find(session.annotations[0].plane).prompts) == 14
    session.close()


def test_nuclei_that_undo_shows_again_come_back_with_their_session(
    bench: Bench, tmp_path: Path
) -> None:
    annotation = edit(bench)
    for layer in annotation.layers:
        bench.viewer.layers.remove(layer)
    bench.session.save_as(tmp_path / "x.sac")
    bench.session.flush()
    journal = bench.session.journal
    assert noted(journal.folder)["deleted"] == 1
    bench.session.undo()
    bench.session.flush()
    assert "deleted" not in noted(journal.folder)
    bench.session.close()


def test_who_deletes_all_layers_opens_their_own_session_again(
    bench: Bench, tmp_path: Path
) -> None:
    annotation = edit(bench)
    prompts, labels = annotation.prompts, annotation.state.labels.copy()
    bench.session.save_as(tmp_path / "mine.sac")
    bench.session.live.hold(True)
    bench.session.reject(annotation, np.array([4]))
    bench.session.undo()
    bench.viewer.layers.clear()
    assert not bench.session.annotations
    (again,) = bench.session.open(tmp_path / "mine.sac")
    assert not bench.session.read_only
    assert again.prompts.equals(prompts)
    np.testing.assert_array_equal(again.state.labels, labels)
    assert bench.session.undo_title == "add 1 nucleus"
    assert not bench.session.live.waiting
    bench.session.accept(again, np.array([5]))
    bench.session.close()
    journal = Journal.open(tmp_path / "mine.sac")
    assert journal.restore().states[1].prompts.state[5] == "accepted"
    journal.close(clean=True)


def test_an_image_that_is_closed_while_its_session_is_read_is_read_too(
    bench: Bench, tmp_path: Path
) -> None:
    file = tmp_path / "field.tif"
    tifffile.imwrite(file, bench.layer.data, photometric="rgb")
    bench.viewer.layers.clear()
    open_file(bench, file, name="field")
    annotation = edit(bench)
    bench.session.save_as(tmp_path / "x.sac")
    bench.session.close()
    for is_there in (True, False):
        session, told = AnnotationSession.of(ViewerModel()), []
        session.told.connect(told.append)
        with layer_source(path=str(file)):
            layer = session.viewer.add_image(bench.layer.data, rgb=True)
        read = exchange.read_session(tmp_path / "x.sac", [layer])
        assert not read.pixels
        session.viewer.layers.clear()
        if not is_there:
            file.unlink()
        (again,) = exchange.show_session(session, read)
        check_same(again, annotation)
        assert (again.plane is not None) == is_there
        assert any("corrected all the same" in t for t in told) == (not is_there)
        session.close()


def test_pixels_that_are_not_those_of_the_file_are_kept(
    bench: Bench, tmp_path: Path
) -> None:
    bench.viewer.layers.clear()
    open_file(bench, tmp_path / "field.tif", name="field")
    bench.layer.data = bench.layer.data[::-1].copy()
    annotation = bench.find()
    folder = bench.session.journal.folder
    bench.session.close(clean=False)
    session = reopened(folder)
    (again,) = session.annotations
    # as the models read them
    np.testing.assert_array_equal(again.plane.layer.data, annotation.plane.read())
    check_same(annotation, again)


def test_an_open_image_is_used_only_with_the_pixels_of_the_session(
    bench: Bench, tmp_path: Path
) -> None:
    pixels, file = bench.layer.data, tmp_path / "field.tif"
    tifffile.imwrite(file, pixels, photometric="rgb")
    bench.viewer.layers.clear()
    open_file(bench, file, name="field")
    edit(bench)
    folder = bench.session.journal.folder
    bench.session.close(clean=False)

    def opened(shown: Any) -> tuple[Annotation, list[str]]:
        session, told = AnnotationSession.of(ViewerModel()), []
        with layer_source(path=str(file)):
            session.viewer.add_image(shown, rgb=True, name="field")
        session.told.connect(told.append)
        (again,) = session.open(folder)
        session.close(clean=False)
        return again, [sentence for sentence in told if "other pixels" in sentence]

    again, told = opened(pixels)
    assert again.plane.layer.source.path == str(file)
    assert told == []
    # what is shown was changed, and the file is as it was
    again, told = opened(pixels[::-1])
    assert again.plane.layer.source.path is None
    np.testing.assert_array_equal(again.plane.read(), normalise_image(pixels))
    assert told == []
    for other in (pixels[::-1], pixels[:100]):
        tifffile.imwrite(file, other, photometric="rgb")
        again, told = opened(other)
        assert again.plane is None
        (sentence,) = told
        assert str(file) in sentence


def test_the_model_that_was_chosen_for_an_import_is_chosen_again(
    bench: Bench, nuclei: Nuclei
) -> None:
    bench.session.choose_model("sac_tiny", "he")
    import_labels(bench.session, bench.plane, nuclei.labels)
    session, _ = reopened_elsewhere(bench)
    model, adapter = session.chosen_model
    assert (model, Path(adapter).name) == ("sac_tiny", "he")


def test_an_import_after_nothing_was_found_is_drawn_by_what_is_chosen_now(
    bench: Bench,
) -> None:
    annotation = import_points(bench.session, bench.plane, [[20.0, 30.0]], 31)
    assert annotation.diameter == 31
    bench.session.undo()
    bench.session.choose_model("sac_tiny", "he")
    import_points(bench.session, bench.plane, [[20.0, 30.0]])
    assert bench.session.scene(annotation).choice.adapter.name == "he"


def test_the_rows_of_new_outlines_are_not_looked_for_one_by_one() -> None:
    compared: list[int] = []

    class Counted(np.ndarray):
        __hash__ = None

        def __eq__(self, other: Any) -> Any:
            compared.append(1)
            return np.asarray(self) == other

    ids = np.arange(1, 101)
    after = Prompts.from_points(np.zeros((100, 2)), object_id=ids)
    after = replace(after, object_id=after.object_id.view(Counted))
    states = ("rejected", "auto") * 50
    outlines = Outlines(
        np.zeros((5, 5), np.uint32),
        ids[::-1],
        {},
        np.linspace(0, 1, 100, dtype=np.float32),
        states,
        Prompts.empty(),
    )
    decided = exchange._decided(Prompts.empty(), after, outlines)
    assert compared == []
    np.testing.assert_array_equal(decided.score, outlines.score[::-1])
    assert decided.state.tolist() == list(states[::-1])


@pytest.mark.parametrize("ending", [".tif", ".ome.zarr"])
def test_the_image_itself_is_not_overwritten(tmp_path: Path, ending: str) -> None:
    image = tmp_path / f"field{ending}"
    image.write_bytes(b"pixels")
    viewer = ViewerModel()
    with layer_source(path=str(image)):
        layer = viewer.add_image(np.zeros((40, 50)), name="field")
    session = AnnotationSession.of(viewer)
    labels = np.zeros((40, 50), np.uint32)
    labels[5:20, 5:20] = 1
    annotation = import_labels(session, current_plane(layer, viewer.dims.point), labels)
    (tmp_path / "other").mkdir()
    same = tmp_path / "other" / ".." / image.name
    linked = tmp_path / "other" / image.name
    os.link(image, linked)
    data = annotation.labels.as_layer_data_tuple()
    for write in (
        partial(exchange.export_labels, annotation),
        partial(exchange.export_prompts, annotation),
        partial(exchange.export_geojson, annotation),
        lambda path: write_outlines(str(path), *data[:2]),
    ):
        for place in (same, linked):
            with pytest.raises(OutputError, match=f"such as field_labels{ending}"):
                write(place)
    assert image.read_bytes() == b"pixels"
    exchange.export_labels(annotation, tmp_path / "field_labels.tif")
    np.testing.assert_array_equal(read_labels(tmp_path / "field_labels.tif"), labels)


def test_points_are_no_outlines(bench: Bench, tmp_path: Path) -> None:
    annotation = edit(bench)
    before = annotation.state
    file = tmp_path / "points.geojson"
    point = {"type": "Point", "coordinates": [20.5, 30.5]}
    feature = {"type": "Feature", "geometry": point, "properties": {}}
    file.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    with pytest.raises(LabelFormatError, match="import it as points"):
        import_outlines(bench.session, bench.plane, file)
    assert annotation.state is before


def test_a_file_without_any_outline_deletes_nothing(
    bench: Bench, tmp_path: Path
) -> None:
    annotation = edit(bench)
    before = annotation.state
    file = tmp_path / "empty.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    with pytest.raises(LabelFormatError, match=r"no outlines\. Nothing was changed"):
        import_outlines(bench.session, bench.plane, file)
    assert annotation.state is before


def test_outlines_go_out_and_come_back_with_their_ids(
    bench: Bench, tmp_path: Path
) -> None:
    annotation = edit(bench)
    file = tmp_path / "nuclei.geojson"
    exchange.export_geojson(annotation, file)
    steps = len(bench.session.history.done)
    import_outlines(bench.session, bench.plane, file)
    assert len(bench.session.history.done) == steps
    # one is corrected elsewhere
    ids = [k for k in np.unique(annotation.state.labels) if k]
    corrected = annotation.state.labels.copy()
    corrected[:20, :20] = ids[0]
    data = annotation.labels.as_layer_data_tuple()
    other = tmp_path / "other.geojson"
    assert write_outlines(str(other), corrected, data[1]) == [str(other)]
    import_outlines(bench.session, bench.plane, other)
    np.testing.assert_array_equal(annotation.state.labels, corrected)
    assert ids[0] in annotation.painted
    assert bench.session.undo() == "import outlines"


def test_outlines_take_the_place_of_one_mask_of_all_nuclei(
    bench: Bench, tmp_path: Path
) -> None:
    annotation = bench.find()
    bench.segment(annotation, "semantic")
    before = annotation.state
    labels = np.zeros((160, 200), np.uint32)
    labels[10:30, 10:30], labels[100:120, 100:120] = 1, 7
    prompts = Prompts.from_points(
        [[20.0, 20.0], [110.0, 110.0]],
        object_id=[1, 7],
        score=[0.25, 0.75],
        state=["accepted", "auto"],
    )
    write_geojson(tmp_path / "nuclei.geojson", labels, prompts)
    import_outlines(bench.session, bench.plane, tmp_path / "nuclei.geojson")
    np.testing.assert_array_equal(annotation.state.labels, labels)
    assert annotation.has_instances
    assert annotation.prompts.object_id.tolist() == [1, 7]
    assert annotation.prompts.score.tolist() == [0.25, 0.75]
    assert annotation.prompts.state.tolist() == ["accepted", "auto"]
    assert annotation.painted == {1, 7}
    assert bench.session.undo() == "import outlines"
    assert not annotation.has_instances
    np.testing.assert_array_equal(annotation.labels.data, before.labels)


def test_outlines_of_labels_that_napari_drew_with_another_label_are_right(
    bench: Bench, tmp_path: Path, nuclei: Nuclei
) -> None:
    annotation = import_labels(bench.session, bench.plane, nuclei.labels)
    layer, (first, second) = annotation.labels, annotation.prompts.object_id[:2]
    layer.selected_label = first
    # with the bucket into another nucleus
    layer.fill(annotation.prompts.yx[1], first)
    assert annotation.state.labels.max() > nuclei.labels.max()
    assert second not in annotation.state.labels
    file = tmp_path / "nuclei.geojson"
    write_outlines(str(file), *layer.as_layer_data_tuple()[:2])
    labels = read_geojson(file, nuclei.labels.shape).labels
    np.testing.assert_array_equal(labels, annotation.state.labels)


def test_outlines_of_a_layer_with_several_levels_are_those_of_the_first(
    tmp_path: Path,
) -> None:
    pixels = np.zeros((64, 96), np.uint32)
    pixels[10:31, 41:60] = 5
    levels = [pixels, pixels[::2, ::2], pixels[::4, ::4]]
    layer = ViewerModel().add_labels(levels, multiscale=True)
    file = tmp_path / "nuclei.geojson"
    # as napari gives it
    write_outlines(str(file), *layer.as_layer_data_tuple()[:2])
    np.testing.assert_array_equal(read_geojson(file, pixels.shape).labels, pixels)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros((2, 40, 50), int), r"has 3 axes.*each plane"),
        (np.full((40, 50), -3), "from -3 to 0.*other numbers"),
        (np.full((40, 50), 2**32), "other numbers"),
    ],
)
def test_labels_that_are_no_outlines_are_told(
    tmp_path: Path, pixels: IntArray, words: str
) -> None:
    layer = ViewerModel().add_labels(pixels, name="theirs")
    with pytest.raises(OutputError, match=f"The layer theirs .*{words}"):
        write_outlines(str(tmp_path / "a.geojson"), *layer.as_layer_data_tuple()[:2])
    assert not list(tmp_path.iterdir())


def test_outlines_bring_their_score_and_state(bench: Bench, tmp_path: Path) -> None:
    prompts = Prompts.from_points(
        [[20.0, 20.0], [60.0, 60.0], [100.0, 100.0]],
        object_id=[4, 5, 9],
        score=[0.25, 0.5, 0.75],
        state=["auto", "rejected", "accepted"],
    )
    labels = np.zeros((160, 200), np.uint32)
    for object_id, (y, x) in zip([4, 5, 9], prompts.yx.astype(int), strict=True):
        labels[y - 5 : y + 6, x - 5 : x + 6] = object_id
    file = tmp_path / "outlines.geojson"
    write_geojson(file, labels, prompts)
    annotation = import_outlines(bench.session, bench.plane, file)
    assert annotation.prompts.object_id.tolist() == [4, 9]
    assert annotation.prompts.score.tolist() == [0.25, 0.75]
    assert annotation.prompts.state.tolist() == ["auto", "accepted"]
    assert 5 not in annotation.state.labels
    # accepted elsewhere, and one more drawn there
    labels[labels == 5] = 12
    more = Prompts.from_points(
        [[20.0, 20.0], [60.0, 60.0], [100.0, 100.0]],
        object_id=[4, 12, 9],
        score=[0.25, 0.5, 0.75],
        state=["accepted", "auto", "accepted"],
    )
    write_geojson(file, labels, more)
    import_outlines(bench.session, bench.plane, file)
    rows = dict(
        zip(
            annotation.prompts.object_id.tolist(),
            zip(annotation.prompts.score, annotation.prompts.state, strict=True),
            strict=True,
        )
    )
    assert rows == {4: (0.25, "accepted"), 9: (0.75, "accepted"), 12: (0.5, "auto")}
    np.testing.assert_array_equal(annotation.state.labels, labels)


TUMOR = ObjectClass("Tumor", (200, 0, 0))
STROMA = ObjectClass("Stroma")


def classified_file(folder: Path, bench: Bench) -> Path:
    """Return outlines of discs 1 (Tumor), 2 (Stroma), and 3 without a class."""
    labels = np.zeros(bench.plane.shape, np.uint32)
    for object_id, (y, x) in {1: (20, 20), 2: (60, 60), 3: (100, 100)}.items():
        labels[y - 5 : y + 6, x - 5 : x + 6] = object_id
    write_geojson(folder / "in.geojson", labels, classes={1: TUMOR, 2: STROMA})
    return folder / "in.geojson"


def exported_classes(session: AnnotationSession, folder: Path) -> dict:
    (annotation,) = session.annotations
    exchange.export_geojson(annotation, folder / "out.geojson")
    return read_geojson(folder / "out.geojson", annotation.state.labels.shape).classes


def test_classes_of_outlines_outlive_editing_undo_and_a_session(
    bench: Bench, tmp_path: Path
) -> None:
    nucleus = ObjectClass("Nucleus")
    session = bench.session
    annotation = import_outlines(session, bench.plane, classified_file(tmp_path, bench))
    assert exported_classes(session, tmp_path) == {1: TUMOR, 2: STROMA, 3: nucleus}
    session.merge(annotation, [1, 3])
    assert exported_classes(session, tmp_path) == {1: TUMOR, 2: STROMA}
    session.split(annotation, [1])
    assert annotation.state.classes == {1: TUMOR, 2: STROMA, 3: TUMOR}
    session.undo()
    session.undo()
    assert annotation.state.classes == {1: TUMOR, 2: STROMA}
    # an id that is given again has not the class of the nucleus that had it
    while len(annotation.points.data):
        annotation.points.selected_data = {0}
        annotation.points.remove_selected()
    assert add_nuclei(annotation, np.array([[80.0, 80.0]])) == [1]
    assert annotation.state.classes == {}
    for _ in range(4):
        session.undo()
    assert annotation.state.classes == {1: TUMOR, 2: STROMA}
    session.save_as(tmp_path / "mine")
    session.close()
    again = reopened(tmp_path / "mine.sac")
    check_same(annotation, again.annotations[0])
    assert exported_classes(again, tmp_path) == {1: TUMOR, 2: STROMA, 3: nucleus}
    while again.redo():
        pass
    assert again.annotations[0].state.classes == {}
    again.close()


def test_outlines_that_come_back_bring_the_class_they_have_now(
    bench: Bench, tmp_path: Path
) -> None:
    session = bench.session
    annotation = import_outlines(session, bench.plane, classified_file(tmp_path, bench))
    labels = annotation.state.labels.copy()
    session.set_threshold(annotation, 0.5)
    # one was classed anew, one lost its class, and one that was drawn has one
    labels[130:140, 150:160] = 9
    changed = tmp_path / "changed.geojson"
    write_geojson(changed, labels, classes={1: STROMA, 9: TUMOR})
    import_outlines(session, bench.plane, changed)
    assert annotation.state.classes == {1: STROMA, 9: TUMOR}
    data = annotation.labels.as_layer_data_tuple()
    write_outlines(str(tmp_path / "saved.geojson"), *data[:2])
    saved = read_geojson(tmp_path / "saved.geojson", labels.shape)
    assert saved.classes[9] == TUMOR
    session.undo()
    assert annotation.state.classes == {1: TUMOR, 2: STROMA}


def test_a_drawn_outline_with_the_id_of_a_hidden_proposal_is_itself(
    bench: Bench, tmp_path: Path
) -> None:
    annotation = bench.find(score_threshold=0.6)
    bench.segment(annotation)
    hidden = int(annotation.hidden.object_id[0])
    labels = annotation.state.labels.copy()
    labels[labels == labels.max()] = 0
    labels[:6, :6] = hidden
    prompts = Prompts.from_points(
        [[3.0, 3.0]], object_id=hidden, score=0.25, state="auto"
    )
    file = tmp_path / "outlines.geojson"
    write_geojson(file, labels, prompts, classes={hidden: TUMOR})
    import_outlines(bench.session, bench.plane, file)
    fresh = int(annotation.state.labels[3, 3])
    assert fresh != hidden
    assert annotation.state.classes == {fresh: TUMOR}
    row = annotation.prompts.object_id == fresh
    assert annotation.prompts.score[row].tolist() == [0.25]


def test_a_table_in_micrometres_needs_the_size_of_a_pixel(
    bench: Bench, tmp_path: Path
) -> None:
    file = tmp_path / "points.csv"
    file.write_text("Centroid X µm,Centroid Y µm\n10,20\n", encoding="utf-8")
    # 0.5 and 0.25 um a pixel; QuPath counts from the corner of the first
    annotation = import_table(bench.session, bench.plane, file)
    np.testing.assert_allclose(annotation.prompts.yx, [[39.5, 39.5]])
    bench.layer.units = ("pixel", "pixel")
    with pytest.raises(LabelFormatError, match="size of a pixel"):
        import_table(bench.session, bench.plane, file)
    assert len(annotation.prompts) == 1


def test_after_the_largest_label_a_session_opens_again(
    bench: Bench, nuclei: Nuclei
) -> None:
    labels = nuclei.labels.astype(np.uint32)
    labels[labels == 5] = 2**32 - 1
    annotation = import_labels(bench.session, bench.plane, labels)
    annotation.points.add([80.0, 100.0])
    annotation.labels.paint((4, 4), 2**32 - 1)
    assert len(np.unique(annotation.prompts.object_id)) == len(annotation.prompts)
    session, _ = reopened_elsewhere(bench)
    check_same(annotation, session.annotations[0])
    session.close()


def test_labels_that_do_not_fit_are_refused(bench: Bench) -> None:
    annotation = bench.find()
    for labels in (
        np.zeros((3, 4), int),
        np.zeros((160, 200)),
        np.full((160, 200), -1),
    ):
        with pytest.raises(LabelFormatError, match="Nothing was changed"):
            import_labels(bench.session, bench.plane, labels)
    assert len(annotation.prompts) == 12


def test_what_is_no_session_is_refused(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(NapariSacError):
        bench.session.open(tmp_path)
    assert bench.session.annotations == []


def test_a_session_dropped_in_is_left_to_who_can_read_it_beside_the_window(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(bench)
    folder = bench.session.journal.folder
    bench.session.close(clean=True)
    viewer = ViewerModel()
    monkeypatch.setattr("napari.current_viewer", lambda: viewer)
    session, asked = AnnotationSession.of(viewer), []
    session.open_requested.connect(asked.append)
    open_dropped_session(str(folder))
    assert asked == [folder]
    assert session.annotations == []
    session.open_requested.disconnect()
    open_dropped_session(str(folder))
    assert len(session.annotations) == 1
    session.close(clean=True)


def test_an_image_found_beside_its_session_is_found_after_save_as(
    bench: Bench, tmp_path: Path
) -> None:
    old, new, mine = (tmp_path / name for name in ("old", "new", "mine"))
    old.mkdir()
    tifffile.imwrite(old / "a.tif", bench.layer.data, photometric="rgb")
    bench.layer._source = bench.layer.source.model_copy(
        update={"path": str(old / "a.tif")}
    )
    edit(bench)
    bench.session.save_as(old / "S.sac")
    bench.session.close()
    old.rename(new)
    session = reopened(new / "S.sac")
    (annotation,) = session.annotations
    assert session.journal.reference(annotation).path == str(new / "a.tif")
    with pytest.raises(OutputError, match="the image itself"):
        exchange.export_labels(annotation, new / "a.tif")
    session.save_as(mine / "S.sac")
    session.close()
    again = reopened(mine / "S.sac")
    assert again.annotations[0].plane is not None
    again.close()


def test_a_large_image_of_a_session_keeps_its_file(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journaling, "MAX_KEPT_PIXELS", 100)
    file = tmp_path / "field.tif"
    tifffile.imwrite(file, bench.layer.data, photometric="rgb")
    bench.layer._source = bench.layer.source.model_copy(update={"path": str(file)})
    edit(bench)
    session, _ = reopened_elsewhere(bench)
    (annotation,) = session.annotations
    plane = annotation.plane
    assert plane.layer.source.path is None, "read by us"
    known = session.journal.reference(annotation)
    assert known.path == str(file)
    assert not known.kept
    # written anew, without a file that napari knew
    session.journal._broken = True
    session.save_as(tmp_path / "mine.sac")
    assert session.journal.reference(annotation) == known
    session.see(annotation, replace(plane, stain="haematoxylin"))
    session.reject(annotation, np.array([5]))
    session.close()
    again = reopened(tmp_path / "mine.sac")
    reference = again.journal.reference(again.annotations[0])
    assert (reference.path, reference.stain) == (str(file), "haematoxylin")
    assert reference.kept
    assert again.annotations[0].plane is not None
    again.close()


def test_the_unit_of_a_session_comes_back(bench: Bench) -> None:
    edit(bench)
    session, _ = reopened_elsewhere(bench)
    (annotation,) = session.annotations
    assert [str(u) for u in annotation.plane.layer.units] == ["micrometer"] * 2
    assert pixel_size(annotation.plane.layer) == (0.5, 0.25)
    session.close()


@pytest.mark.parametrize(
    "units", [["second", "second"], ["pixel"], "um", [1, 2], ["no unit", "pixel"]]
)
def test_units_that_are_none_are_left_alone(units: Any) -> None:
    assert "units" not in exchange._placed({"scale": [1, 1], "units": units})


@pytest.mark.parametrize("error", [OSError("gone"), ImageFormatError("too large")])
def test_an_image_that_cannot_be_read_keeps_no_other_from_being_saved(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    annotation = edit(bench)
    read = type(bench.plane).read
    second = bench.viewer.add_image(np.zeros((40, 50), np.uint8), name="far away")

    def fail(plane: Any) -> Any:
        if plane.layer is second:
            raise error
        return read(plane)

    monkeypatch.setattr(type(bench.plane), "read", fail)
    labels = np.zeros((40, 50), np.uint32)
    labels[5:20, 5:20] = 1
    other = import_labels(bench.session, current_plane(second, (0, 0)), labels)
    bench.session.save_as(tmp_path / "mine.sac")
    assert "lacks the nuclei of far away" in bench.session.journal.failure
    bench.session.accept(other, np.array([0]))
    bench.session.accept(annotation, np.array([5]))
    bench.session.close()
    journal = Journal.open(tmp_path / "mine.sac")
    restored = journal.restore()
    assert [image.name for image in restored.images.values()] == ["field"]
    assert restored.states[1].prompts.state[5] == "accepted"
    journal.close(clean=True)


def test_a_session_goes_into_no_other(bench: Bench, tmp_path: Path) -> None:
    edit(bench)
    bench.session.save_as(tmp_path / "mine.sac")
    with pytest.raises(OutputError, match="inside the session"):
        bench.session.save_as(tmp_path / "mine.sac" / "mine.sac")
    assert bench.session.journal.folder == tmp_path / "mine.sac"
    assert not (tmp_path / "mine.sac" / "mine.sac").exists()


def test_what_did_not_change_is_not_written_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotation = edit(bench)
    written: list[str] = []
    set_info = Journal.set_info

    def note(journal: Journal, name: str, value: Any) -> None:
        written.append(name)
        set_info(journal, name, value)

    monkeypatch.setattr(Journal, "set_info", note)
    bench.session.flush()
    assert written == ["work-1"]
    bench.session.flush()
    assert written == ["work-1"]
    annotation.steps += 1
    bench.session.flush()
    assert written == ["work-1", "work-1"]


def test_another_stain_of_the_image_is_noted(bench: Bench) -> None:
    annotation = edit(bench)
    assert annotation.embedding is not None
    blue = replace(bench.plane, stain="haematoxylin")
    assert bench.session.about(blue) is annotation
    assert annotation.embedding is None
    bench.session.accept(annotation, np.array([5]))
    folder = bench.session.journal.folder
    bench.session.close(clean=False)
    journal = session_folder.open_session(folder)
    (reference,) = journal.restore().images.values()
    assert reference.stain == "haematoxylin"
    np.testing.assert_array_equal(
        journal.find_image(annotation.number, reference)[0], blue.read()
    )
    journal.close(clean=True)


def test_of_a_file_with_several_layers_it_is_the_one_of_that_name(
    bench: Bench, tmp_path: Path
) -> None:
    file = str(tmp_path / "channels.nd2")
    pixels = bench.layer.data[..., 0]
    bench.viewer.layers.clear()
    with layer_source(path=file):
        for name in ("DAPI", "GFP"):
            bench.layer = bench.viewer.add_image(pixels, name=name)
    edit(bench)
    folder = bench.session.journal.folder
    bench.session.close(clean=False)
    viewer = ViewerModel()
    with layer_source(path=file):
        for name in ("DAPI", "GFP"):
            viewer.add_image(pixels, name=name)
    session = AnnotationSession.of(viewer)
    session.open(folder)
    (again,) = session.annotations
    assert again.plane.layer is viewer.layers["GFP"]
    session.close()


def test_labels_go_out_as_zarr_whatever_comes_before(
    bench: Bench, tmp_path: Path
) -> None:
    annotation = edit(bench)
    exchange.export_labels(annotation, tmp_path / "nuclei.zarr")
    assert (tmp_path / "nuclei.zarr").is_dir()


def test_what_waits_for_a_full_disk_is_saved_to_another(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotation = edit(bench)
    journal = bench.session.journal
    full = journal.folder
    write = Journal._write_pending

    def write_elsewhere(self: Journal) -> None:
        if self.folder == full and self.unsaved:
            raise OutputError("The disk is full.")
        write(self)

    monkeypatch.setattr(Journal, "_write_pending", write_elsewhere)
    bench.session.accept(annotation, np.array([4]))
    assert "full" in journal.failure
    bench.session.save_as(tmp_path / "usb.sac")
    assert journal.failure == ""
    assert journal.folder == tmp_path / "usb.sac"
    bench.session.accept(annotation, np.array([5]))
    bench.session.close()
    session = reopened(tmp_path / "usb.sac")
    check_same(annotation, session.annotations[0])
    session.close()


def test_a_failure_is_over_when_all_is_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotation = edit(bench)
    journal = bench.session.journal

    def fail(self: Journal) -> None:
        raise OutputError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_write_pending", fail)
        bench.session.accept(annotation, np.array([4]))
        bench.session.flush()
        assert "full" in journal.failure
    bench.session.accept(annotation, np.array([5]))
    assert journal.failure == ""
    bench.session.close()


def test_points_of_a_larger_image_are_refused(bench: Bench, tmp_path: Path) -> None:
    table = tmp_path / "points.csv"
    table.write_text("y,x\n20,30\n9000,30\n")
    with pytest.raises(LabelFormatError, match="1 of 2 points lie outside"):
        import_table(bench.session, bench.plane, table)
    assert bench.session.find(bench.plane) is None


def test_pixels_of_an_image_of_several_files_are_kept(
    bench: Bench, tmp_path: Path
) -> None:
    plane = np.asarray(bench.layer.data)[..., 0]
    for i in range(2):
        tifffile.imwrite(tmp_path / f"z{i}.tif", plane)
    bench.viewer.layers.clear()
    # napari names the first file only
    with layer_source(path=str(tmp_path / "z0.tif")):
        bench.layer = bench.viewer.add_image(np.stack([plane, plane]), name="stack")
    labels = np.zeros(plane.shape, np.uint32)
    labels[5:20, 5:20] = 1
    import_labels(bench.session, bench.plane, labels)
    bench.session.save_as(tmp_path / "cells.sac")
    bench.session.close()
    session = reopened(tmp_path / "cells.sac")
    assert session.annotations[0].plane is not None
    session.close()


def test_pixels_that_come_back_are_not_stretched_again(
    bench: Bench, nuclei: Nuclei
) -> None:
    rng = np.random.default_rng(0)
    channels = rng.integers(0, 200, (2, *nuclei.labels.shape), dtype=np.uint8)
    layer = bench.viewer.add_image(channels, name="channels")
    plane = current_plane(layer, bench.viewer.dims.point, channels=(0, 1))
    pixels = plane.read()
    assert not np.array_equal(normalise_image(pixels), pixels), (
        "else this shows nothing"
    )
    import_labels(bench.session, plane, nuclei.labels)
    session, _ = reopened_elsewhere(bench)
    (again,) = session.annotations
    np.testing.assert_array_equal(again.plane.read(), pixels)
    shown = current_plane(again.plane.layer, session.viewer.dims.point)
    np.testing.assert_array_equal(shown.read(), pixels)
    again.plane.layer.data = pixels // 2
    assert AS_READ not in again.plane.layer.metadata
    shown = current_plane(again.plane.layer, session.viewer.dims.point)
    np.testing.assert_array_equal(shown.read(), normalise_image(pixels // 2))
    session.close()


def test_without_a_dock_napari_says_what_is_wrong_with_a_session(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(bench)
    folder = bench.session.journal.folder
    viewer, said = ViewerModel(), []
    monkeypatch.setattr("napari.current_viewer", lambda: viewer)
    monkeypatch.setattr("napari.utils.notifications.show_warning", said.append)
    # it is open in the other viewer
    open_dropped_session(str(folder))
    session = AnnotationSession.of(viewer)
    assert session.read_only
    assert any("another name" in sentence for sentence in said)
    session.told.emit("later")
    assert "later" not in said
    session.close()
    bench.session.close()


def test_labels_alone_as_ome_zarr_are_opened_by_napari_itself(tmp_path: Path) -> None:
    labels = np.zeros((600, 700), np.uint32)
    labels[5:40, 7:50] = 70_000
    folder = tmp_path / "field_labels.ome.zarr"
    write_ome_zarr(folder, labels)
    reader = napari_get_reader(str(folder))
    assert reader is not None
    ((levels, *_),) = reader(str(folder))
    np.testing.assert_array_equal(levels[0], labels)
