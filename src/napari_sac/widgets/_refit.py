"""Brings the whole image back into view when a dock takes some of its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer

from napari_sac.viewer.view import is_fitted

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.utils.events import Event
    from qtpy.QtWidgets import QWidget

_SETTLES_MS = 500
"""How long after a dock was shown the canvas may get another size."""


class Refit(QObject):
    """Fits the view again while a dock opens, if it was napari's own until then.

    Who has moved the image keeps the view.

    Parameters
    ----------
    dock : QWidget
    viewer : ViewerModel
    """

    def __init__(self, dock: QWidget, viewer: ViewerModel) -> None:
        super().__init__(dock)
        self._viewer = viewer
        self._listens = is_fitted(viewer)
        self._view = self._current()
        if self._listens:
            viewer.canvas.events.size.connect(self._on_size)

    def shown(self) -> None:
        """Soon let the view be: the dock has its place."""
        QTimer.singleShot(_SETTLES_MS, self.stop)

    def stop(self) -> None:
        """Let the view be from now on."""
        if self._listens:
            self._listens = False
            self._viewer.canvas.events.size.disconnect(self._on_size)

    def _current(self) -> tuple[float, ...]:
        camera = self._viewer.scene.camera
        return (*camera.center, camera.zoom)

    def _on_size(self, event: Event) -> None:
        del event
        if self._current() == self._view:
            self._viewer.reset_view()
            self._view = self._current()
        else:
            self.stop()
