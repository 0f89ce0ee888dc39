"""A person's hands in a napari window: real mouse and key events on its canvas."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QApplication

if TYPE_CHECKING:
    from napari.layers import Image, Layer
    from pytestqt.qtbot import QtBot

    from napari_sac.widgets._image_panel import ImagePanel

LEFT = Qt.MouseButton.LeftButton
NONE = Qt.KeyboardModifier.NoModifier


def choose_image(panel: ImagePanel, layer: Image) -> None:
    """Choose a layer of the viewer in a dock's list of images."""
    index = panel.image.findText(layer.name)
    panel.image.setCurrentIndex(index)
    # Qt says this of a person's choice alone
    panel.image.activated.emit(index)


class Hands:
    """Clicks, drags and keys, at positions (y, x) of a layer.

    Parameters
    ----------
    viewer : napari.Viewer
    layer : Layer
        Whose pixels positions are given in.
    qtbot : QtBot
    """

    def __init__(self, viewer: Any, layer: Layer, qtbot: QtBot) -> None:
        self.viewer, self.layer, self.qtbot = viewer, layer, qtbot
        self.canvas = next(
            widget
            for widget in QApplication.allWidgets()
            if isinstance(widget, QOpenGLWidget) and widget.isVisible()
        )

    def place(self, yx: Any) -> QPoint:
        """Return where the canvas shows a position."""
        camera = self.viewer.scene.camera
        y, x = self.layer.data_to_world(yx)[-2:]
        size = (self.canvas.height(), self.canvas.width())
        down, right = (
            (world - centre) * camera.zoom + length / 2
            for world, centre, length in zip(
                (y, x), camera.center[-2:], size, strict=True
            )
        )
        return QPoint(round(right), round(down))

    def point_at(self, yx: Any) -> None:
        self.qtbot.mouseMove(self.canvas, self.place(yx))
        self.qtbot.wait(30)

    def click(self, yx: Any, modifier: Qt.KeyboardModifier = NONE) -> None:
        self.point_at(yx)
        self.qtbot.mouseClick(self.canvas, LEFT, modifier, self.place(yx))
        self.qtbot.wait(30)

    def drag(self, *path: Any) -> None:
        places = [self.place(yx) for yx in path]
        self.qtbot.mouseMove(self.canvas, places[0])
        self.qtbot.mousePress(self.canvas, LEFT, NONE, places[0])
        for start, end in pairwise(places):
            for part in (0.25, 0.5, 0.75, 1):
                self.qtbot.wait(20)
                between = start + (end - start) * part
                self.qtbot.mouseMove(self.canvas, between)
        self.qtbot.wait(20)
        self.qtbot.mouseRelease(self.canvas, LEFT, NONE, places[-1])
        self.qtbot.wait(50)

    def key(self, key: Qt.Key, modifier: Qt.KeyboardModifier = NONE) -> None:
        self.qtbot.keyClick(self.canvas, key, modifier)
        self.qtbot.wait(50)


def emptiest(yx: np.ndarray, shape: tuple[int, int], margin: int = 20) -> np.ndarray:
    """Return a place (y, x) away from the rim and from all points (N, 2)."""
    y, x = np.mgrid[margin : shape[0] - margin : 5, margin : shape[1] - margin : 5]
    grid = np.stack([y.ravel(), x.ravel()], 1).astype(float)
    distance = np.linalg.norm(grid[:, None] - yx, axis=2).min(1)
    return grid[np.argmax(distance)]
