"""Offers a run that goes on, was ended, or has finished while nobody looked."""

from __future__ import annotations

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QFrame, QHBoxLayout, QVBoxLayout

from napari_sac.widgets._finetune_wording import DISCARD_RUN, describe_found_run
from napari_sac.widgets._panel import narrow_button, note


class RunOffer(QFrame):
    """A sentence and buttons; it waits, and stops nobody.

    Attributes
    ----------
    look_requested, go_on_requested, discard_requested, later_requested : Signal
    """

    look_requested = Signal()
    go_on_requested = Signal()
    discard_requested = Signal()
    later_requested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self._text = ""
        self._ended = self._asking = False
        self.text = note()
        self.look = narrow_button("Look", "Shows how it goes, or what came of it.")
        self.go_on = narrow_button("Go on", "Takes it up at its last checkpoint.")
        self.discard = narrow_button("Discard", "Deletes it, after one more question.")
        self.later = narrow_button("Later", "Keeps it, and asks the next time.")
        row = QHBoxLayout()
        for button in (self.look, self.go_on, self.discard, self.later):
            row.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 4, 6, 4)
        layout.setSpacing(3)
        layout.addWidget(self.text)
        layout.addLayout(row)
        self.look.clicked.connect(self.look_requested)
        self.go_on.clicked.connect(self.go_on_requested)
        self.discard.clicked.connect(self._on_discard)
        self.later.clicked.connect(self._on_later)
        self.hide()

    def offer(self, name: str, *, alive: bool, finished: bool, more: int) -> None:
        """Offer a run."""
        self._text = describe_found_run(name, alive=alive, finished=finished, more=more)
        self._ended = not alive and not finished
        self._ask(False)
        self.show()

    def _on_discard(self) -> None:
        if self._asking:
            self.discard_requested.emit()
        else:
            self._ask(True)

    def _on_later(self) -> None:
        if self._asking:
            self._ask(False)
        else:
            self.later_requested.emit()

    def _ask(self, asking: bool) -> None:
        """Ask whether to delete for good, in place of the offer."""
        self._asking = asking
        self.text.setText(DISCARD_RUN if asking else self._text)
        self.look.setVisible(not self._ended)
        self.go_on.setVisible(self._ended and not asking)
        self.discard.setVisible(self._ended)
        self.discard.setText("Delete for good" if asking else "Discard")
        self.later.setText("Keep it" if asking else "Later")
