"""What is drawn in the layers of boxes and lassos, and of reviewed regions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.utils.interactions import (
    mouse_double_click_callbacks,
    mouse_move_callbacks,
    mouse_press_callbacks,
    mouse_release_callbacks,
)

from napari_sac.viewer.regions import NO_AREA, REVIEWED_HINT, TOOLS_HINT

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Bench
    from napari.layers import Shapes

LINE = [[20, 30], [50, 60]]
BENT = [[20, 30], [50, 60], [50, 30]]
FLAT = [[20, 30], [50, 30], [80, 30]]
BOX = [[20, 30], [20, 60], [50, 60], [50, 30]]


def listen(bench: Bench) -> list[str]:
    told: list[str] = []
    bench.session.told.connect(told.append)
    return told


def draw(layer: Shapes, corners: list[list[int]], kind: str) -> None:
    layer.add([np.array(corners, float)], shape_type=kind)


class Mouse:
    """Lets napari's tools see a mouse, at places (y, x) of a layer."""

    def __init__(self, layer: Shapes) -> None:
        self._layer = layer
        # the tools hold on to the event, and look what has become of it
        self._event = SimpleNamespace(modifiers=[], dims_displayed=[0, 1])

    def drag(self, *path: list[int]) -> None:
        self._do(mouse_press_callbacks, "mouse_press", path[0])
        for yx in path[1:]:
            self._do(mouse_move_callbacks, "mouse_move", yx)
        self._do(mouse_release_callbacks, "mouse_release", path[-1])

    def click_round(self, *path: list[int]) -> None:
        for yx in path:
            self.drag(yx)
        self._do(mouse_double_click_callbacks, "mouse_double_click", path[-1])

    def _do(self, tell: Callable[..., None], kind: str, yx: list[int]) -> None:
        event = self._event
        event.type, event.pos = kind, np.array(yx, float) * 10
        event.position = self._layer.data_to_world(yx)
        event.is_dragging, event.view_direction = kind == "mouse_move", None
        event.dims_point, event.handled = [0, 0], False
        tell(self._layer, event)


TOOLS = {
    "add_rectangle": Mouse.drag,
    "add_ellipse": Mouse.drag,
    "add_line": Mouse.drag,
    "add_path": Mouse.drag,
    "add_polygon_lasso": Mouse.drag,
    "add_polyline": Mouse.click_round,
    "add_polygon": Mouse.click_round,
}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("kind", ["tools", "reviewed"])
def test_every_tool_of_napari_can_be_used(bench: Bench, tool: str, kind: str) -> None:
    annotation = bench.find()
    regions = bench.session.regions
    layer = getattr(regions, f"show_{kind}")(annotation)
    layer.mode = tool
    told = listen(bench)
    straight = tool in {"add_rectangle", "add_ellipse", "add_line"}
    path = [BOX[0], BOX[2]] if straight else [*BOX, [20, 31]]
    # twice: napari is ready for the next one
    for times in (1, 2):
        bench.session.viewer.layers.selection.active = layer
        TOOLS[tool](Mouse(layer), *path)
        if kind == "tools":
            assert layer.nshapes == 0
        else:
            areas = 0 if tool == "add_line" else times
            assert layer.nshapes == len(annotation.reviewed) == areas
        assert layer.mode == tool
    assert told == ([NO_AREA] * 2 if tool == "add_line" else [])


@pytest.mark.parametrize(("corners", "kind"), [(LINE, "line"), (LINE, "path")])
def test_a_line_is_taken_away_from_the_tools_with_a_word(
    bench: Bench, corners: list[list[int]], kind: str
) -> None:
    annotation = bench.find()
    layer = bench.session.regions.show_tools(annotation)
    told, steps = listen(bench), bench.session.undo_title
    draw(layer, corners, kind)
    assert layer.nshapes == 0
    assert told == [NO_AREA]
    assert bench.session.undo_title == steps


@pytest.mark.parametrize("kind", ["path", "polygon", "ellipse"])
def test_whatever_encloses_points_selects_them(bench: Bench, kind: str) -> None:
    annotation = bench.find()
    layer = bench.session.regions.show_tools(annotation)
    told = listen(bench)
    height, width = annotation.state.labels.shape
    # wide enough for an ellipse too
    y, x = (-height, 2 * height), (-width, 2 * width)
    draw(layer, [[y[0], x[0]], [y[0], x[1]], [y[1], x[1]], [y[1], x[0]]], kind)
    assert layer.nshapes == 0
    assert annotation.points.selected_data == set(range(len(annotation.prompts)))
    assert told == []


def test_what_is_too_flat_for_an_area_raises_nothing(bench: Bench) -> None:
    annotation = bench.find()
    layer = bench.session.regions.show_tools(annotation)
    steps = bench.session.undo_title
    draw(layer, FLAT, "path")
    assert layer.nshapes == 0
    assert bench.session.undo_title == steps


def test_a_line_is_no_reviewed_region(bench: Bench) -> None:
    annotation = bench.find()
    layer = bench.session.regions.show_reviewed(annotation)
    draw(layer, BOX, "rectangle")
    told = listen(bench)
    draw(layer, LINE, "line")
    assert [str(kind) for kind in layer.shape_type] == ["polygon"]
    assert len(annotation.reviewed) == 1
    assert NO_AREA in told


def test_an_open_line_round_a_region_is_shown_closed(bench: Bench) -> None:
    annotation = bench.find()
    layer = bench.session.regions.show_reviewed(annotation)
    draw(layer, BENT, "path")
    assert [str(kind) for kind in layer.shape_type] == ["polygon"]
    np.testing.assert_array_equal(annotation.reviewed[0], BENT)
    bench.session.undo()
    assert layer.nshapes == 0


def test_the_mouse_can_draw_at_once_and_is_told_what(bench: Bench) -> None:
    annotation, told = bench.find(), listen(bench)
    regions = bench.session.regions
    for show, hint in (
        (regions.show_tools, TOOLS_HINT),
        (regions.show_reviewed, REVIEWED_HINT),
    ):
        show(annotation).mode = "pan_zoom"
        show(annotation).visible = False
        layer = show(annotation)
        assert layer.visible
        assert layer.mode == "add_rectangle"
        assert bench.viewer.layers.selection.active is layer
        assert told[-1] == hint


def test_a_session_that_is_opened_leaves_the_mouse_its_tool(bench: Bench) -> None:
    annotation, told = bench.find(), listen(bench)
    layer = bench.session.regions.restore_reviewed(annotation)
    assert layer.mode == "pan_zoom"
    assert bench.viewer.layers.selection.active is not layer
    assert told == []
