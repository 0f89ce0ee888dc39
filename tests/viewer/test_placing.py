"""A click has its masks before napari has its point; a drag is foreseen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.utils._proxies import ReadOnlyWrapper
from napari.utils.interactions import (
    mouse_move_callbacks,
    mouse_press_callbacks,
    mouse_release_callbacks,
)

if TYPE_CHECKING:
    from conftest import Bench

    from napari_sac.viewer.annotation import Annotation

FREE = np.array([40.5, 52.25])
"""Pixel (y, x) with no nucleus near."""


def events_of_click(annotation: Annotation, end: float = 0) -> None:
    """Press and release the mouse as napari does, ``end`` canvas pixels apart."""
    layer = annotation.points
    position = layer.data_to_world(FREE)
    event = SimpleNamespace(modifiers=(), position=position, pos=np.zeros(2))
    for callback in layer.mouse_move_callbacks:
        if callback.__name__ == "_on_hover":
            callback(layer, event)
    event.type = "mouse_press"
    mouse_press_callbacks(layer, ReadOnlyWrapper(event))
    event.type, event.pos = "mouse_release", np.array([0, end])
    mouse_release_callbacks(layer, ReadOnlyWrapper(event))


@pytest.fixture
def annotation(bench: Bench) -> Annotation:
    annotation = bench.find()
    bench.segment(annotation)
    annotation.points.mode = "add"
    return annotation


def test_masks_that_were_foreseen_come_before_the_point(
    bench: Bench, annotation: Annotation
) -> None:
    events_of_click(annotation, end=50)
    assert bench.decode() == 1
    rows, seen = len(annotation.prompts), []
    steps = len(bench.session.history.done)

    def look() -> None:
        layer = annotation.points
        seen.append((len(layer.data), len(annotation.prompts)))
        # whoever looks at the layer now must not think that a point was deleted
        bench.session.sync(annotation)
        seen.append(annotation.labels.data.max())

    bench.session.masks_placed.connect(look)
    events_of_click(annotation)
    new_id = annotation.prompts.object_id[-1]
    assert seen == [(rows, rows + 1), new_id]
    assert len(annotation.points.data) == rows + 1
    assert len(bench.session.history.done) == steps + 1
    np.testing.assert_array_equal(annotation.points.data, annotation.prompts.yx)
    np.testing.assert_allclose(annotation.prompts.yx[-1], FREE)
    added = annotation.points.features.iloc[-1]
    assert (added["object_id"], added["state"]) == (new_id, "added")
    bench.session.undo()
    assert len(annotation.points.data) == len(annotation.prompts) == rows
    assert new_id not in annotation.labels.data


def test_nothing_is_shown_before_masks_that_are_not_known_yet(
    bench: Bench, annotation: Annotation
) -> None:
    seen = []
    bench.session.masks_placed.connect(lambda: seen.append(1))
    events_of_click(annotation)
    assert seen == []
    assert bench.decode() == 1
    assert annotation.prompts.object_id[-1] in annotation.labels.data


def test_a_drag_with_the_tool_adds_nothing(
    bench: Bench, annotation: Annotation
) -> None:
    before = annotation.prompts
    events_of_click(annotation, end=50)
    assert annotation.prompts is before
    # a point of a script's is where the script says, not where the mouse was
    annotation.points.add(FREE + 3)
    np.testing.assert_array_equal(annotation.prompts.yx[-1], FREE + 3)
    np.testing.assert_array_equal(annotation.points.data, annotation.prompts.yx)


def test_undo_shows_labels_before_napari_has_taken_points_away(
    bench: Bench, annotation: Annotation
) -> None:
    events_of_click(annotation)
    bench.decode()
    new_id, rows = annotation.prompts.object_id[-1], len(annotation.prompts)
    seen = []

    def look() -> None:
        seen.append((new_id in annotation.labels.data, len(annotation.points.data)))

    bench.session.masks_placed.connect(look)
    bench.session.undo()
    assert seen == [(False, rows)]
    assert len(annotation.points.data) == rows - 1


def test_a_point_that_never_came_is_forgotten_at_the_next_click(
    bench: Bench, annotation: Annotation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(data: object) -> None:
        raise OSError

    rows = len(annotation.prompts)
    with monkeypatch.context() as patch:
        patch.setattr(annotation.points, "_set_data", fail)
        with pytest.raises(OSError):  # noqa: PT011
            events_of_click(annotation)
    assert len(annotation.prompts) == rows + 1
    events_of_click(annotation)
    bench.session.sync(annotation)
    assert len(annotation.prompts) == len(annotation.points.data) == rows + 1


def test_a_point_that_is_let_go_where_it_rested_is_drawn_as_it_was_foreseen(
    bench: Bench, annotation: Annotation
) -> None:
    layer = annotation.points
    layer.mode = "select"
    drawn = np.isin(annotation.prompts.object_id, annotation.state.labels)
    row = int(np.flatnonzero(drawn)[0])
    start = annotation.prompts.yx[row].copy()
    event = SimpleNamespace(
        type="mouse_press",
        modifiers=(),
        position=layer.data_to_world(start + 0.3),
        view_direction=None,
        dims_displayed=[0, 1],
        is_dragging=True,
    )
    mouse_press_callbacks(layer, ReadOnlyWrapper(event))
    event.type = "mouse_move"
    for away in (1.1, 13.7):
        event.position = layer.data_to_world(start + 0.3 + away)
        mouse_move_callbacks(layer, ReadOnlyWrapper(event))
    before, masks = annotation.state.labels.copy(), dict(annotation.masks)
    assert bench.decode() > 0
    assert bench.session.preview.layer.opacity > 0
    np.testing.assert_array_equal(annotation.state.labels, before)
    event.type = "mouse_release"
    mouse_release_callbacks(layer, ReadOnlyWrapper(event))
    np.testing.assert_allclose(annotation.prompts.yx[row], start + 13.7)
    assert annotation.prompts.state[row] == "moved"
    assert annotation.masks != masks
    after = annotation.state.labels.copy()
    assert not bench.session.live.step_waits
    assert bench.decode() == 0
    assert bench.session.preview.layer.opacity == 0
    # the same as without foresight
    bench.session.undo()
    bench.session.redo()
    annotation.replace_masks(dict.fromkeys(annotation.masks))
    bench.segment(annotation)
    np.testing.assert_array_equal(annotation.state.labels, after)
