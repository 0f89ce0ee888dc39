"""The wheel scrolls a dock; it sets only the input that was clicked before."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtWidgets import (
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QScrollBar,
    QWidget,
)

_INPUTS = (QComboBox, QAbstractSpinBox, QAbstractSlider)
_SETTLED_MS = 200
"""When to look for new inputs after the layout has changed: looking takes 5 ms, and
every sentence that a click lets the dock say changes the layout."""


class WheelGuard(QObject):
    """Lets combo boxes, spin boxes and sliders without the focus ignore the wheel.

    So it goes to what they lie in, which scrolls.

    Parameters
    ----------
    contents : QWidget
        What is scrolled; inputs that come later are guarded too.
    """

    def __init__(self, contents: QWidget) -> None:
        super().__init__(contents)
        self._contents = contents
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._guard_inputs)
        contents.installEventFilter(self)
        self._guard_inputs()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Take the wheel from an input that has not the focus."""
        kind = None if event is None else event.type()
        if kind == QEvent.Type.LayoutRequest and watched is self._contents:
            self._timer.start(_SETTLED_MS)
        if event is None or kind != QEvent.Type.Wheel:
            return super().eventFilter(watched, event)
        if isinstance(watched, _INPUTS) and not watched.hasFocus():
            event.ignore()
            return True
        return super().eventFilter(watched, event)

    def _guard_inputs(self) -> None:
        for kind in _INPUTS:
            for found in self._contents.findChildren(kind):
                if isinstance(found, QScrollBar):
                    continue
                # else the wheel itself would give it the focus
                if found.focusPolicy() == Qt.FocusPolicy.WheelFocus:
                    found.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
                # a filter that is there already is not put in twice
                found.installEventFilter(self)
