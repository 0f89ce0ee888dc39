"""Tells which of Shift and Ctrl are held down, before the mouse moves or clicks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QKeyEvent
from qtpy.QtOpenGLWidgets import QOpenGLWidget

from napari_sac.widgets._docking import outermost

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

_NAMES = {Qt.Key.Key_Shift: "Shift", Qt.Key.Key_Control: "Control"}


class HeldKeys(QObject):
    """Watches the keys of the window that a dock is in.

    Parameters
    ----------
    dock : QWidget

    Attributes
    ----------
    changed : Signal(frozenset)
        The names of the keys, as napari calls them.
    """

    changed = Signal(frozenset)

    def __init__(self, dock: QWidget) -> None:
        super().__init__(dock)
        self._dock = dock
        self._held: frozenset[str] = frozenset()

    def watch_window(self) -> None:
        """Watch the window that the dock is in now."""
        window = outermost(self._dock)
        # a canvas keeps its keys to itself; a filter is not put in twice
        for widget in (window, *window.findChildren(QOpenGLWidget)):
            widget.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Look at keys; nothing is taken from anybody."""
        if isinstance(event, QKeyEvent) and event.key() in _NAMES:
            name = frozenset({_NAMES[Qt.Key(event.key())]})
            held = self._held
            if event.type() == QEvent.Type.KeyPress:
                held |= name
            elif event.type() == QEvent.Type.KeyRelease and not event.isAutoRepeat():
                held -= name
            if held != self._held:
                self._held = held
                self.changed.emit(held)
        return super().eventFilter(watched, event)
