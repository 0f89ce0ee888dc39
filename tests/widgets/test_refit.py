"""The view when a dock takes a part of the canvas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sac.widgets.segment_widget import SegmentWidget

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

NARROW = (600, 300)


def view(viewer: ViewerModel) -> tuple[float, ...]:
    return (*viewer.scene.camera.center, viewer.scene.camera.zoom)


def open_dock(viewer: ViewerModel, qtbot: QtBot) -> SegmentWidget:
    widget = SegmentWidget(viewer)
    qtbot.addWidget(widget)
    return widget


def test_the_whole_image_stays_in_view(viewer: ViewerModel, qtbot: QtBot) -> None:
    viewer.reset_view()
    before = view(viewer)
    dock = open_dock(viewer, qtbot)
    assert view(viewer) == before
    viewer.canvas.size = NARROW
    assert viewer.scene.camera.zoom < before[-1]
    assert 200 * viewer.scene.camera.zoom <= NARROW[1]
    dock.leave()


def test_who_has_moved_the_image_keeps_the_view(
    viewer: ViewerModel, qtbot: QtBot
) -> None:
    viewer.scene.camera.zoom = 3.25
    viewer.scene.camera.center = (0, 40, 50)
    before = view(viewer)
    dock = open_dock(viewer, qtbot)
    viewer.canvas.size = NARROW
    np.testing.assert_allclose(view(viewer), before)
    dock.leave()


def test_later_the_view_is_let_be(viewer: ViewerModel, qtbot: QtBot) -> None:
    viewer.reset_view()
    before = view(viewer)
    dock = open_dock(viewer, qtbot)
    dock.show()
    qtbot.wait(800)
    viewer.canvas.size = NARROW
    np.testing.assert_allclose(view(viewer), before)
    dock.leave()


def test_a_dock_without_an_image_fits_nothing(
    viewer: ViewerModel, qtbot: QtBot
) -> None:
    viewer.layers.clear()
    before = view(viewer)
    dock = open_dock(viewer, qtbot)
    viewer.canvas.size = NARROW
    np.testing.assert_allclose(view(viewer), before)
    dock.leave()
