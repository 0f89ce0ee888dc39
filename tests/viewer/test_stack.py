"""The planes of a stack have points and labels of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tifffile
from annotating import import_points
from napari.components import ViewerModel
from napari.layers import Image
from napari.layers._source import layer_source

from napari_sac.viewer import exchange, reopening
from napari_sac.viewer.planes import look_at_plane
from napari_sac.viewer.session import AnnotationSession

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from conftest import Bench


def open_stack(bench: Bench) -> None:
    grey = bench.layer.data[..., 0]
    bench.viewer.layers.clear()
    bench.layer = bench.viewer.add_image(
        np.stack([grey, grey[::-1], grey]), name="stack", axis_labels=("z", "y", "x")
    )


def test_each_plane_is_corrected_by_itself(bench: Bench) -> None:
    open_stack(bench)
    bench.viewer.dims.set_current_step(0, 0)
    first = bench.find()
    bench.viewer.dims.set_current_step(0, 1)
    second = bench.find()
    assert second is not first
    assert second.points.ndim == 2
    np.testing.assert_allclose(
        np.sort(second.prompts.yx[:, 0]), np.sort(159 - first.prompts.yx[:, 0]), atol=2
    )


def test_only_what_lies_on_the_shown_plane_is_shown(bench: Bench) -> None:
    open_stack(bench)
    bench.viewer.dims.set_current_step(0, 0)
    first = bench.find()
    bench.segment(first)
    bench.viewer.dims.set_current_step(0, 1)
    second = bench.find()
    assert not first.points.visible
    assert not first.labels.visible
    assert second.points.visible
    bench.viewer.dims.set_current_step(0, 0)
    bench.session.follow(bench.plane)
    assert first.points.visible
    assert first.labels.visible
    assert not second.points.visible


def save_stack_session(bench: Bench, folder: Path) -> np.ndarray:
    """Find nuclei in each plane of a stack of a file; return the stack."""
    folder.mkdir()
    open_stack(bench)
    stack = bench.layer.data
    tifffile.imwrite(folder / "stack.tif", stack, photometric="minisblack")
    bench.viewer.layers.clear()
    with layer_source(path=str(folder / "stack.tif")):
        bench.layer = bench.viewer.add_image(stack, name="stack")
    for plane in range(3):
        bench.viewer.dims.set_current_step(0, plane)
        bench.find()
    bench.session.save_as(folder / "S.sac")
    bench.session.close()
    return stack


def test_a_stack_takes_the_place_of_the_planes_that_its_session_brought(
    bench: Bench, tmp_path: Path
) -> None:
    stack = save_stack_session(bench, tmp_path / "old")
    session = AnnotationSession.of(ViewerModel())
    told: list[str] = []
    session.told.connect(told.append)
    again = session.open(tmp_path / "old" / "S.sac")
    layers = session.viewer.layers
    planes = [a.plane.layer for a in again]
    assert len(set(planes)) == 3
    other = stack.copy()
    other[:, :5] = 0
    with layer_source(path=str(tmp_path / "old" / "stack.tif")):
        changed = session.viewer.add_image(other, name="stack")
    # other pixels than those that the nuclei were found in
    assert [a.plane.layer for a in again] == planes
    layers.remove(changed)
    with layer_source(path=str(tmp_path / "old" / "stack.tif")):
        layer = session.viewer.add_image(stack, name="stack")
    assert [a.plane.layer for a in again] == [layer] * 3
    assert not set(planes) & set(layers)
    # below its nuclei
    above = [layers.index(a.points) for a in again]
    assert layers.index(layer) < min(above)
    assert told[1:] == [f"{layer.name} is here again, with its nuclei."]
    assert [a.plane.index for a in again] == [(0,), (1,), (2,)]
    session.viewer.dims.set_current_step(0, 1)
    assert [a.points.visible for a in again] == [False, True, False]
    session.close()
    # and the session knows it
    once_more = AnnotationSession.of(ViewerModel())
    with layer_source(path=str(tmp_path / "old" / "stack.tif")):
        layer = once_more.viewer.add_image(stack, name="stack")
    assert {a.plane.layer for a in once_more.open(tmp_path / "old" / "S.sac")} == {
        layer
    }
    once_more.close()


def test_of_a_large_stack_some_planes_are_compared_and_all_of_them_must_fit(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = save_stack_session(bench, tmp_path / "old")
    monkeypatch.setattr(reopening, "_MOST_COMPARED_PIXELS", 2 * stack[0].size)
    file = str(tmp_path / "old" / "stack.tif")
    for changed, taken in ((None, 3), (2, 3), (1, 1), (0, 1)):
        session = AnnotationSession.of(ViewerModel())
        again = session.open(tmp_path / "old" / "S.sac")
        pixels = stack.copy()
        if changed is not None:
            pixels[changed, :5] = 0
        with layer_source(path=file):
            layer = session.viewer.add_image(pixels, name="stack")
        assert [a.plane.layer for a in again].count(layer) == taken
        session.close(clean=False)


def test_an_image_that_is_opened_while_its_session_is_read_is_used(
    bench: Bench, tmp_path: Path
) -> None:
    stack = save_stack_session(bench, tmp_path / "old")
    session = AnnotationSession.of(ViewerModel())
    read = exchange.read_session(tmp_path / "old" / "S.sac")
    with layer_source(path=str(tmp_path / "old" / "stack.tif")):
        layer = session.viewer.add_image(stack, name="stack")
    again = exchange.show_session(session, read)
    assert [a.plane.layer for a in again] == [layer] * 3
    assert [x for x in session.viewer.layers if isinstance(x, Image)] == [layer]
    session.close()


def test_a_stack_that_was_moved_is_known_where_it_is_open(
    bench: Bench, tmp_path: Path
) -> None:
    stack = save_stack_session(bench, tmp_path / "old")
    elsewhere = tmp_path / "elsewhere.tif"
    (tmp_path / "old" / "stack.tif").rename(elsewhere)
    for open_first in (True, False):
        session = AnnotationSession.of(ViewerModel())
        told: list[str] = []
        session.told.connect(told.append)
        if not open_first:
            again = session.open(tmp_path / "old" / "S.sac")
            assert {a.plane for a in again} == {None}
            assert "open it from where it is now in a new window" in told[0]
            session.viewer.add_image(stack[:, ::-1], name="stack")
            assert {a.plane for a in again} == {None}
        with layer_source(path=str(elsewhere)):
            layer = session.viewer.add_image(stack, name="elsewhere")
        if open_first:
            again = session.open(tmp_path / "old" / "S.sac")
            assert not any("cannot be used" in sentence for sentence in told)
        assert {a.plane.layer for a in again} == {layer}
        session.close(clean=False)
        if open_first:
            elsewhere = elsewhere.rename(tmp_path / "third.tif")


def test_a_stack_beside_its_session_is_used_for_all_planes_where_it_is_open(
    bench: Bench, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    stack = save_stack_session(bench, old)
    old.rename(new)
    session = AnnotationSession.of(ViewerModel())
    with layer_source(path=str(new / "stack.tif")):
        layer = session.viewer.add_image(stack, name="stack")
    again = session.open(new / "S.sac")
    assert [a.plane.layer for a in again] == [layer] * 3
    session.close()


def test_the_layers_of_other_images_are_left_alone(bench: Bench) -> None:
    alone = bench.find()
    open_image = bench.layer
    bench.layer = bench.viewer.add_image(np.zeros((3, 40, 50)), name="stack")
    bench.session.follow(bench.plane)
    assert alone.points.visible
    assert open_image in bench.viewer.layers


def test_sliders_move_to_a_plane(bench: Bench) -> None:
    open_stack(bench)
    bench.layer.scale = (2.0, 0.5, 0.5)
    bench.layer.translate = (10.0, 0.0, 0.0)
    bench.viewer.dims.set_current_step(0, 2)
    there = bench.plane
    bench.viewer.dims.set_current_step(0, 0)
    look_at_plane(bench.viewer, there)
    assert bench.plane.index == there.index == (2,)


def test_the_tool_stays_where_layers_are_shown_already(bench: Bench) -> None:
    annotation = bench.find()
    annotation.points.mode = "add"
    bench.session.follow(bench.plane)
    assert annotation.points.visible
    assert annotation.points.mode == "add"


def test_the_preview_has_the_scale_of_its_image(bench: Bench) -> None:
    first = bench.find()
    bench.segment(first)
    masks = list(first.masks.values())
    bench.session.preview._draw(first, masks[0])
    bench.layer = bench.viewer.add_image(
        bench.layer.data, rgb=True, scale=(3, 3), units=("um", "um"), name="other"
    )
    second = bench.find()
    bench.session.preview._draw(second, masks[0])
    np.testing.assert_allclose(bench.session.preview.layer.scale, (3, 3))
    names = [layer.name for layer in bench.viewer.layers]
    assert names.count(bench.session.preview.layer.name) == 1


def test_keys_go_to_the_plane_that_is_seen(bench: Bench) -> None:
    open_stack(bench)
    bench.viewer.dims.set_current_step(0, 1)
    second = bench.find()
    bench.viewer.dims.set_current_step(0, 0)
    first = bench.find()
    selection = bench.viewer.layers.selection
    selection.active = first.points
    bench.viewer.dims.set_current_step(0, 1)
    bench.session.follow(bench.plane)
    assert selection.active is second.points
    bench.viewer.dims.set_current_step(0, 2)
    bench.session.follow(bench.plane)
    assert selection.active is bench.layer, "there is nothing on that plane"


def test_layers_that_a_person_has_hidden_stay_so(bench: Bench) -> None:
    open_stack(bench)
    bench.viewer.dims.set_current_step(0, 0)
    first = bench.find()
    bench.segment(first)
    first.points.visible = False
    bench.session.follow(bench.plane)
    assert not first.points.visible
    bench.viewer.dims.set_current_step(0, 1)
    bench.session.follow(bench.plane)
    assert not first.labels.visible
    bench.viewer.dims.set_current_step(0, 0)
    bench.session.follow(bench.plane)
    assert first.labels.visible
    assert not first.points.visible


def test_layers_that_come_late_are_not_laid_over_another_plane(bench: Bench) -> None:
    open_stack(bench)
    bench.viewer.dims.set_current_step(0, 0)
    first = bench.find()
    bench.session.reject(first, np.array([0]))
    there = bench.plane
    bench.viewer.layers.remove(first.points)
    bench.viewer.dims.set_current_step(0, 1)
    bench.session.undo()
    assert first.points is not None
    assert not first.points.visible
    late = import_points(bench.session, there, [[40.0, 40.0]])
    assert late is first
    bench.decode()
    assert not first.labels.visible
    bench.viewer.dims.set_current_step(0, 0)
    bench.session.follow(bench.plane)
    assert first.points.visible
    assert first.labels.visible


def test_a_stack_that_gets_fewer_planes_is_looked_at_anew(bench: Bench) -> None:
    open_stack(bench)
    bench.viewer.dims.set_current_step(0, 2)
    last = bench.find()
    bench.viewer.dims.set_current_step(0, 0)
    first = bench.find()
    bench.segment(first)
    bench.layer.data = bench.layer.data[1:]
    assert bench.session.find(bench.plane) is first
    assert first.embedding is None
    np.testing.assert_array_equal(
        first.plane.read()[..., 0], bench.plane.read()[..., 0]
    )
    bench.viewer.dims.set_current_step(0, 1)
    assert bench.session.find(bench.plane) is None, "the third plane is not there"
    bench.session.follow(bench.plane)
    assert not last.points.visible


def test_without_a_dock_the_layers_follow_the_sliders_too(bench: Bench) -> None:
    open_stack(bench)
    bench.viewer.dims.set_current_step(0, 0)
    first = bench.find()
    grey = bench.layer.data
    other = bench.viewer.add_image(grey.copy(), name="other", axis_labels=("z",) * 3)
    bench.layer, stack = other, bench.layer
    second = bench.find()
    bench.viewer.dims.set_current_step(0, 1)
    assert not first.points.visible
    assert not second.points.visible
    bench.viewer.dims.set_current_step(0, 0)
    assert first.points.visible
    assert second.points.visible
    assert stack in bench.viewer.layers
