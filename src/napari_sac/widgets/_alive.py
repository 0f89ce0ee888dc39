"""Whether a widget is still there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy import compat

if TYPE_CHECKING:
    from qtpy.QtCore import QObject


def is_alive(widget: QObject | None) -> bool:
    """Return whether Qt has not deleted a widget that Python still knows.

    Asked before a widget is touched by an event of the viewer or by a thread. The
    signal ``destroyed`` cannot tell them: it may come when Python's garbage collector
    has emptied the callable connected to it, and calling that crashes.
    """
    alive: bool = compat.isalive(widget)  # type: ignore[no-untyped-call]
    return alive
