"""Lets a window wait for a moment, so that a click and its mask are one frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer
from qtpy.QtOpenGLWidgets import QOpenGLWidget

from napari_sac.widgets._docking import outermost

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

LONGEST_MS = 100
"""How long the window waits at most: what takes longer is shown when it comes."""


class HeldFrame(QObject):
    """Keeps the window that a widget is in from painting itself.

    Painting takes the window's own thread, on a computer without a graphics card longer
    than decoding a mask takes: a frame of the point alone would only delay the mask.
    All of the window is held: where a canvas is in it, one label that says something
    else lets all of it be composed again.

    Parameters
    ----------
    widget : QWidget
    """

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self._widget = widget
        self._held: QWidget | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.release)

    def hold(self) -> None:
        """Paint nothing until :meth:`release`, or for ``LONGEST_MS``."""
        window = outermost(self._widget)
        if self._held is None and window.updatesEnabled():
            self._held = window
            window.setUpdatesEnabled(False)
            self._timer.start(LONGEST_MS)

    def paint(self) -> None:
        """Paint the canvases at once, if they are not held."""
        if self._held is None:
            for canvas in outermost(self._widget).findChildren(QOpenGLWidget):
                canvas.repaint()

    def release(self) -> None:
        """Paint again, with all that has changed meanwhile."""
        self._timer.stop()
        held, self._held = self._held, None
        if held is not None:
            held.setUpdatesEnabled(True)
