"""What is going on: progress and Cancel, the last result, the last error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QApplication,
    QHBoxLayout,
    QProgressBar,
    QVBoxLayout,
    QWidget,
)

from napari_sac.core.errors import NapariSacError
from napari_sac.widgets._panel import NOTE_STYLE, note, push_button
from napari_sac.widgets._wording import describe_stage

if TYPE_CHECKING:
    from collections.abc import Callable

_ERROR_STYLE = "color: #D55E00; font-weight: bold;"


class StatusPanel(QWidget):
    """A bar with a Cancel button, and a sentence.

    Attributes
    ----------
    cancel_requested : Signal
    """

    cancel_requested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._report = ""
        self.bar = QProgressBar()
        self.cancel = push_button("Cancel")
        self.message = note()
        self.copy = push_button(
            "Copy report", "Puts what the developers need to know on the clipboard."
        )
        row = QHBoxLayout()
        row.addWidget(self.bar, 1)
        row.addWidget(self.cancel)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 0, 6, 0)
        layout.addLayout(row)
        layout.addWidget(self.message)
        layout.addWidget(self.copy)
        self.cancel.clicked.connect(self.cancel_requested)
        self.copy.clicked.connect(self._on_copy)
        self.copy.hide()
        self.show_busy(False)

    @property
    def sentence(self) -> str:
        """What is shown."""
        return self.message.text()

    def show_busy(self, busy: bool) -> None:
        """Show or hide the bar and its button."""
        self.bar.setVisible(busy)
        self.bar.setRange(0, 0)
        self.cancel.setVisible(busy)
        self.cancel.setEnabled(True)

    def show_progress(self, stage: str, done: int, total: int) -> None:
        """Show how far the work is; ``total`` 0 if nobody knows."""
        self.bar.setRange(0, total)
        self.bar.setValue(done)
        self.say(describe_stage(stage))

    def say(self, sentence: str) -> None:
        """Show a sentence in place of the last one."""
        self._show(sentence, "", error=False)

    def say_error(self, sentence: str, report: str) -> None:
        """Show what went wrong, and offer the report if there is one."""
        self._show(sentence, report, error=True)

    def attempt(self, act: Callable[[], object]) -> bool:
        """Do what may fail in a way that the user can mend; return whether it did not.

        If it fails, the sentence of the error is shown.
        """
        try:
            act()
        except NapariSacError as error:
            self.say_error(str(error), "")
            return False
        return True

    def _show(self, sentence: str, report: str, *, error: bool) -> None:
        self._report = report
        self.message.setText(sentence)
        self.message.setStyleSheet(_ERROR_STYLE if error else NOTE_STYLE)
        self.copy.setVisible(bool(report))

    def _on_copy(self) -> None:
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self._report)
