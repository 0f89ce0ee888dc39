"""What becomes of a dock: put into a window, taken out of it, closed with it."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QApplication

from napari_sac.widgets._alive import is_alive

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtWidgets import QWidget

    FindWindow = Callable[[], QWidget | None]


class Docking(QObject):
    """Lets a dock join the viewer while it is docked, and leave it when it is closed.

    Parameters
    ----------
    dock : QWidget
    join, leave : callable
        Called in turn, never twice one behind the other.
    shown : callable
        Called when the dock is shown: which window it is in is not known before.
    """

    def __init__(
        self,
        dock: QWidget,
        join: Callable[[], None],
        leave: Callable[[], None],
        shown: Callable[[], None],
    ) -> None:
        super().__init__(dock)
        self._dock = dock
        self._join = join
        self._leave = leave
        self._shown = shown
        self._joined = False
        dock.installEventFilter(self)

    def join(self) -> None:
        """Join, unless that was done."""
        if not self._joined:
            self._joined = True
            self._join()

    def leave(self) -> None:
        """Leave, unless that was done."""
        if self._joined:
            self._joined = False
            self._leave()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Leave the viewer when the dock is closed, come back when it is docked."""
        kind = None if event is None else event.type()
        if kind == QEvent.Type.Show:
            self._shown()
        elif kind == QEvent.Type.ParentChange and self._dock.parent() is None:
            self.leave()
        elif kind == QEvent.Type.ParentChange:
            self.join()
        return super().eventFilter(watched, event)


def no_window() -> None:
    """Return that there is none yet."""


def watch_window(watcher: QObject, dock: QWidget, before: FindWindow) -> FindWindow:
    """Filter the events of the window that a dock is in now.

    Parameters
    ----------
    watcher : QObject
        Its ``eventFilter`` gets them, and those of the window before no more.
    dock : QWidget
    before : callable
        Finds the window before; ``no_window`` in the beginning.

    Returns
    -------
    callable
        Finds the window, weakly: what is in a window must not keep it.
    """
    known, window = before(), outermost(dock)
    if window is known:
        return before
    if known is not None and is_alive(known):
        known.removeEventFilter(watcher)
    window.installEventFilter(watcher)
    return weakref.ref(window)


def outermost(widget: QWidget) -> QWidget:
    """Return the window that a widget belongs to, also that of a floating dock."""
    while (parent := widget.parentWidget()) is not None:
        widget = parent
    return widget


def close_with_window(
    window: QWidget, owner: object, close: Callable[[], object]
) -> None:
    """Do something when a window closes, also if the dock that asks is gone by then.

    Parameters
    ----------
    window : QWidget
    owner : object
        Whose end it is: for each one the first call counts.
    close : callable
        May be called more than once.
    """
    if all(closer.owner is not owner for closer in window.findChildren(_Closer)):
        _Closer(window, owner, close)


class _Closer(QObject):
    """Lives as long as its window, and calls when that closes."""

    def __init__(
        self, window: QWidget, owner: object, close: Callable[[], object]
    ) -> None:
        super().__init__(window)
        self.owner = owner
        self._window = weakref.ref(window)
        self._close = close
        self._closing = False
        window.installEventFilter(self)
        app = QApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(self._call)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Call when the window hides after it was asked to close.

        napari may ask whether to close, and stay open; a window that never was shown
        does not hide, but is gone.
        """
        if event is not None and event.type() == QEvent.Type.Close:
            self._closing = True
            QTimer.singleShot(0, partial(_call_if_gone, self._window, self._close))
        if self._closing and is_hidden_by(event):
            self._close()
        return super().eventFilter(watched, event)

    def _call(self) -> None:
        self._close()


def _call_if_gone(find_window: FindWindow, close: Callable[[], object]) -> None:
    if is_closed(find_window):
        close()


def is_hidden_by(event: QEvent | None) -> bool:
    """Return whether a window is hidden, and not by its minimising."""
    return (
        event is not None
        and event.type() == QEvent.Type.Hide
        and not event.spontaneous()
    )


def is_closed(find_window: FindWindow) -> bool:
    """Return whether a window is gone or hidden; napari may ask, and keep it open."""
    window = find_window()
    return window is None or not is_alive(window) or not window.isVisible()
