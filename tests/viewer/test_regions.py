"""What is drawn in the layers of boxes and lassos, and of reviewed regions."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from annotating import import_labels
from napari.components import ViewerModel
from napari.utils.interactions import (
    mouse_double_click_callbacks,
    mouse_move_callbacks,
    mouse_press_callbacks,
    mouse_release_callbacks,
)

from napari_sac.core.config import ProposalConfig
from napari_sac.core.progress import ignore_progress
from napari_sac.viewer.inference import FindRequest, find_nuclei
from napari_sac.viewer.regions import (
    NO_AREA,
    REVIEWED_HINT,
    TOOLS_HINT,
    labels_inside,
)
from napari_sac.viewer.session import AnnotationSession

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Bench
    from napari.layers import Shapes
    from synthetic import Nuclei

LINE = [[20, 30], [50, 60]]
BENT = [[20, 30], [50, 60], [50, 30]]
FLAT = [[20, 30], [50, 30], [80, 30]]
LEFT = np.array([[-1, -1], [-1, 100], [161, 100], [161, -1]], float)
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


# -- what is reviewed by them --------------------------------------------------


def test_a_region_accepts_what_lies_mostly_in_it_as_one_step(
    bench: Bench, nuclei: Nuclei
) -> None:
    annotation = import_labels(bench.session, bench.plane, nuclei.labels)
    bench.segment(annotation)
    bench.session.reject(annotation, np.array([0]))
    before = annotation.prompts
    layer = bench.session.regions.show_reviewed(annotation)
    middle = float(before.yx[5, 1])
    columns = np.where(annotation.state.labels > 0, np.arange(200), np.nan)
    inside = {
        int(k)
        for k in before.object_id[1:]
        if (columns[annotation.state.labels == k] <= middle - 2).mean() > 0.5
    }
    assert inside
    assert 6 not in inside
    draw(layer, [[-1, -1], [-1, middle - 2], [160, middle - 2], [160, -1]], "polygon")
    accepted = annotation.prompts.state == "accepted"
    assert set(annotation.prompts.object_id[accepted].tolist()) == inside
    assert annotation.prompts.state[0] == "rejected"
    progress = bench.session.review.progress(annotation)
    assert progress.reviewed == len(inside) + 1
    title = f"mark 1 region, accept {len(inside)} nuclei"
    assert bench.session.undo_title == title
    # one that is made larger accepts what it holds now
    layer.data = [[[-1, -1], [-1, middle + 2], [160, middle + 2], [160, -1]]]
    assert annotation.prompts.state[5] == "accepted"
    bench.session.undo()
    bench.session.undo()
    assert annotation.reviewed == ()
    assert layer.nshapes == 0
    np.testing.assert_array_equal(annotation.prompts.state, before.state)
    # to take one away opens nothing again
    bench.session.redo()
    layer.remove([0])
    assert bench.session.undo_title == "unmark 1 region"
    assert (annotation.prompts.state == "accepted").sum() == len(inside)


def test_labels_in_regions_are_those_with_most_of_their_pixels_there() -> None:
    labels = np.zeros((200, 300), np.uint32)
    labels[50:60, 50:60] = 7
    # half of it lies in the region, and more than half
    labels[70:80, 95:105] = 2**31
    labels[85:95, 94:104] = 3
    labels[150:160, 250:260] = 5
    region = np.array([[40, 40], [40, 99.5], [100, 99.5], [100, 40]])
    second = np.array([[145, 245], [145, 320], [320, 320], [320, 245]], float)
    assert labels_inside(labels, [region], 20) == {7, 3}
    assert labels_inside(labels, [region, second], 20) == {7, 3, 5}
    # nothing far away is looked at
    assert labels_inside(labels, [region], 0) == {7, 3, 2**31}
    assert labels_inside(labels, [region + 1000], 20) == set()


def test_before_there_are_masks_the_points_tell_what_a_region_holds(
    bench: Bench,
) -> None:
    annotation = bench.find()
    left = annotation.prompts.yx[:, 1] < 100
    bench.session.set_reviewed(annotation, (LEFT,))
    np.testing.assert_array_equal(annotation.prompts.state == "accepted", left)


def test_they_tell_it_again_when_the_masks_were_undone(bench: Bench) -> None:
    annotation = bench.find()
    left = annotation.prompts.yx[:, 1] < 100
    bench.segment(annotation)
    bench.session.undo()
    assert not annotation.state.labels.any()
    bench.session.set_reviewed(annotation, (LEFT,))
    np.testing.assert_array_equal(annotation.prompts.state == "accepted", left)


def test_they_tell_it_still_after_a_session_was_opened_again(
    bench: Bench, tmp_path: Path
) -> None:
    annotation = bench.find()
    # it gets a mask, and its neighbour
    annotation.points.add([80.0, 100.0])
    bench.decode()
    assert len(np.unique(annotation.state.labels)) == 3
    bench.session.save_as(tmp_path / "x.sac")
    bench.session.close()
    session = AnnotationSession.of(ViewerModel())
    (annotation,) = session.open(tmp_path / "x.sac")
    opened = annotation.prompts.state == "auto"
    left = annotation.prompts.yx[:, 1] < 100
    session.set_reviewed(annotation, (LEFT,))
    np.testing.assert_array_equal(
        annotation.prompts.state[opened] == "accepted", left[opened]
    )
    # what is in the region is drawn, and not all that was proposed beside it
    bench.session, session.loaded = session, bench.loaded
    assert bench.decode()
    accepted = set(annotation.prompts.object_id[opened & left].tolist())
    assert accepted <= annotation.masks.keys()
    assert not annotation.masks.keys() >= set(annotation.prompts.object_id.tolist())
    assert not annotation.segmented
    session.close()


def test_in_a_region_nothing_comes_or_goes_that_nobody_has_seen(bench: Bench) -> None:
    annotation = bench.find(score_threshold=0.6)
    session, hidden = bench.session, annotation.hidden
    assert (hidden.yx[:, 1] < 100).any()
    assert (hidden.yx[:, 1] > 100).any()
    session.set_reviewed(annotation, (LEFT,))

    def reviewed() -> list[int]:
        inside = annotation.prompts.yx[:, 1] < 100
        return sorted(annotation.prompts.object_id[inside].tolist())

    before = reviewed()
    assert before
    for threshold in (1.0, 0.0):
        session.set_threshold(annotation, threshold)
        assert reviewed() == before
    assert (annotation.prompts.yx[:, 1] > 100).sum() > 0
    assert len(annotation.prompts) + len(annotation.hidden) == 12
    bench.find(score_threshold=0.1)
    assert reviewed() == before
    assert (annotation.prompts.yx[:, 1] > 100).sum() > 0


def test_nuclei_of_a_region_of_an_older_session_stay_as_they_were(
    bench: Bench,
) -> None:
    annotation = bench.find()
    # regions did not accept what is in them
    annotation.state = replace(annotation.state, reviewed=(LEFT,))
    inside = annotation.prompts.yx[:, 1] < 100
    before = sorted(annotation.prompts.object_id[inside].tolist())
    bench.session.set_threshold(annotation, 1.0)
    bench.find()
    inside = annotation.prompts.yx[:, 1] < 100
    assert sorted(annotation.prompts.object_id[inside].tolist()) == before
    assert set(annotation.prompts.state) == {"auto"}


def test_a_nucleus_beside_a_region_stays_where_it_is_found_in_it_now(
    bench: Bench,
) -> None:
    annotation = bench.find()
    x = annotation.prompts.yx[:, 1]
    nearest = int(np.where(x > 100, x, np.inf).argmin())
    edge = x[nearest] - 1
    region = [[-1, -1], [-1, edge], [161, edge], [161, -1]]
    bench.session.set_reviewed(annotation, (np.array(region, float),))
    assert annotation.prompts.state[nearest] == "auto"
    before = annotation.prompts.yx[nearest].tolist()
    # it is found two pixels further to the left, where nothing comes any more
    request = FindRequest(
        bench.plane, bench.loaded.choice, bench.loaded, ProposalConfig(), diameter=20
    )
    found = find_nuclei(request, ignore_progress)
    found.prompts.yx[:, 1] -= 2
    bench.session.show_proposals(bench.plane, found, 0)
    assert len(annotation.prompts) == 12
    assert before in annotation.prompts.yx.tolist()


def test_labels_that_are_imported_were_reviewed_by_nobody(
    bench: Bench, nuclei: Nuclei
) -> None:
    annotation = bench.find()
    layer = bench.session.regions.show_reviewed(annotation)
    draw(layer, BOX, "rectangle")
    import_labels(bench.session, bench.plane, nuclei.labels)
    assert annotation.reviewed == ()
    assert layer.nshapes == 0
    bench.session.undo()
    assert layer.nshapes == 1


def test_who_starts_over_has_reviewed_nothing(bench: Bench) -> None:
    annotation = bench.find()
    bench.session.set_reviewed(annotation, (LEFT,))
    bench.viewer.layers.remove(annotation.points)
    again = bench.find()
    assert again.reviewed == ()
    assert len(again.prompts) == 12
