"""New labels of a whole plane are made ready beside the window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from annotating import import_labels

from napari_sac.core.progress import ignore_progress
from napari_sac.core.session.journal import Journal
from napari_sac.core.session.pixels import PixelChange
from napari_sac.viewer import exchange
from napari_sac.viewer.inference import segment
from napari_sac.viewer.relabelling import FreshLabels, KnownLabels
from napari_sac.viewer.results import _keep

if TYPE_CHECKING:
    from conftest import Bench
    from synthetic import Nuclei

    from napari_sac.viewer.annotation import Annotation


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of labels that are compared from now on."""
    shapes: list[tuple[int, ...]] = []
    between = PixelChange.between

    def note(before: np.ndarray, *rest: object) -> PixelChange:
        shapes.append(before.shape)
        return between(before, *rest)

    monkeypatch.setattr(PixelChange, "between", note)
    return shapes


def restored(bench: Bench, annotation: Annotation) -> np.ndarray:
    """The labels as the journal has them, which is closed."""
    folder = bench.session.journal.folder
    assert folder is not None
    bench.session.close(clean=False)
    journal = Journal.open(folder)
    try:
        return journal.restore().states[annotation.number].labels
    finally:
        journal.close(clean=False)


def test_what_segment_changes_is_found_beside_the_window(
    bench: Bench, compared: list[tuple[int, ...]]
) -> None:
    annotation, session = bench.find(), bench.session
    segmented = segment(bench.ask_for_labels(annotation), ignore_progress)
    expected = segmented.fresh.labels.copy()
    assert compared
    compared.clear()
    session.show_labels(annotation, bench.plane, segmented)
    assert not compared
    layer = annotation.labels
    assert layer is segmented.fresh.layer
    assert layer in bench.viewer.layers
    for _ in range(2):
        session.undo()
        assert not annotation.state.labels.any()
        assert not layer.data.any()
        session.redo()
        assert (annotation.state.labels == expected).all()
        assert (layer.data == expected).all()
    assert (restored(bench, annotation) == expected).all()


def test_what_an_import_changes_is_found_beside_the_window(
    bench: Bench, nuclei: Nuclei, compared: list[tuple[int, ...]]
) -> None:
    session, plane = bench.session, bench.plane
    for labels in (nuclei.labels, np.asfortranarray(nuclei.labels[::-1])):
        known = session.known_labels(plane)
        read = exchange.prepare_labels(labels, plane, known)
        compared.clear()
        annotation = exchange.show_imported(session, plane, read)
        assert not compared
        assert (annotation.state.labels == labels).all()
        assert (annotation.labels.data == labels).all()
    session.undo()
    assert (annotation.state.labels == nuclei.labels).all()
    assert (annotation.labels.data == nuclei.labels).all()
    session.redo()
    assert (restored(bench, annotation) == nuclei.labels[::-1]).all()


@pytest.mark.parametrize("then", ["paint", "undo", "undo and redo"])
def test_labels_that_were_written_to_meanwhile_are_compared_again(
    bench: Bench, nuclei: Nuclei, compared: list[tuple[int, ...]], then: str
) -> None:
    annotation, session = bench.find(), bench.session
    bench.segment(annotation)
    known = session.known_labels(bench.plane)
    read = exchange.prepare_labels(nuclei.labels[::-1], bench.plane, known)
    if then == "paint":
        number = session.steps.record(
            annotation,
            "paint",
            annotation.state,
            pixels=PixelChange.of_pixels(
                bench.plane.shape, (np.array([3]), np.array([4])), 0, 77
            ),
        )
        assert number
    else:
        session.undo()
        if then == "undo and redo":
            session.redo()
    before = annotation.state.labels.copy()
    compared.clear()
    exchange.show_imported(session, bench.plane, read)
    assert compared == [bench.plane.shape]
    assert (annotation.state.labels == nuclei.labels[::-1]).all()
    assert (annotation.labels.data == nuclei.labels[::-1]).all()
    session.undo()
    assert (annotation.state.labels == before).all()
    session.redo()
    assert (restored(bench, annotation) == nuclei.labels[::-1]).all()


def test_labels_of_a_plane_that_had_none_are_not_those_of_an_opened_session(
    bench: Bench, nuclei: Nuclei
) -> None:
    session, known = bench.session, KnownLabels()
    assert session.known_labels(bench.plane).labels is None
    annotation = session.about(bench.plane)
    assert known.are_those_of(annotation)
    session.restore(annotation)
    assert not known.are_those_of(annotation)


def test_what_a_layer_shows_are_not_the_labels_themselves(
    bench: Bench, nuclei: Nuclei
) -> None:
    given = nuclei.labels.astype(np.uint32)
    annotation = import_labels(bench.session, bench.plane, given)
    annotation.labels.data[...] = 0
    assert (annotation.state.labels == nuclei.labels).all()
    annotation.state.labels[...] = 0
    assert (given == nuclei.labels).all()


def test_labels_lie_on_an_image_that_moved_while_they_were_made(
    bench: Bench, nuclei: Nuclei
) -> None:
    plane = bench.plane
    read = exchange.prepare_labels(nuclei.labels, plane, KnownLabels())
    bench.layer.scale, bench.layer.translate = (2, 3), (7, 8)
    layer = exchange.show_imported(bench.session, plane, read).labels
    assert layer is read.fresh.layer
    np.testing.assert_array_equal(layer.scale, (2, 3))
    np.testing.assert_array_equal(layer.translate, (7, 8))


def test_no_layer_is_made_where_one_shows_the_labels(
    bench: Bench, nuclei: Nuclei
) -> None:
    annotation = import_labels(bench.session, bench.plane, nuclei.labels)
    known = KnownLabels.of(annotation)
    fresh = FreshLabels.after(known, nuclei.labels[::-1], bench.plane)
    assert fresh.layer is None


def test_nuclei_that_keep_their_pixels_keep_them_in_a_change() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        before, after = rng.integers(0, 6, (2, 30, 40)).astype(np.uint32)
        pixels, ids = PixelChange.between(before, after), {2, 5}
        expected = np.where(np.isin(after, [2, 5]), 0, after)
        expected = np.where(np.isin(before, [2, 5]), before, expected)
        labels = before.copy()
        kept = _keep(ids, pixels)
        kept.write(labels)
        assert (labels == expected).all()
        kept.write(labels, back=True)
        assert (labels == before).all()
        assert (kept.before != kept.after).all()
        assert _keep({9}, pixels) is pixels
