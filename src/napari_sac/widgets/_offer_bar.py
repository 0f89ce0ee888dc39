"""Offers what was left the last time, and asks twice before it is deleted."""

from __future__ import annotations

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QFrame, QHBoxLayout, QPushButton, QVBoxLayout

from napari_sac.widgets._panel import narrow_button, note


class OfferBar(QFrame):
    """A sentence and buttons; it waits, and stops nobody.

    Parameters
    ----------
    question : str
        Asked in place of the offer, before what is offered is deleted.
    *takes : QPushButton
        What takes the offer up; one of them is shown.

    Attributes
    ----------
    discard_requested, later_requested : Signal
    """

    discard_requested = Signal()
    later_requested = Signal()

    def __init__(self, question: str, *takes: QPushButton) -> None:
        super().__init__()
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self._deleting = question
        self._forgetting = ""
        self._takes = takes
        self._offer = ""
        self._take = takes[0]
        self._asking = False
        self.text = note()
        self.discard = narrow_button("Discard", "Asks once more before it is gone.")
        self.later = narrow_button("Later", "Keeps it, and asks the next time.")
        row = QHBoxLayout()
        for button in (*takes, self.discard, self.later):
            row.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 4, 6, 4)
        layout.setSpacing(3)
        layout.addWidget(self.text)
        layout.addLayout(row)
        self.discard.clicked.connect(self._on_discard)
        self.later.clicked.connect(self._on_later)
        self.hide()

    def offer(
        self,
        text: str,
        take: QPushButton,
        *,
        discardable: bool = True,
        forgetting: str = "",
    ) -> None:
        """Show an offer.

        Parameters
        ----------
        text : str
        take : QPushButton
            The one of the buttons that takes it up.
        discardable : bool
            Whether it can be deleted.
        forgetting : str
            Asked instead of the question whether to delete it, where it will only be
            offered no more.
        """
        self._offer, self._take, self._forgetting = text, take, forgetting
        self.discard.setVisible(discardable)
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
        """Ask whether to discard it, in place of the offer."""
        self._asking = asking
        question = self._forgetting or self._deleting
        self.text.setText(question if asking else self._offer)
        for button in self._takes:
            button.setVisible(button is self._take and not asking)
        answer = "Forget it" if self._forgetting else "Delete for good"
        self.discard.setText(answer if asking else "Discard")
        self.later.setText("Keep it" if asking else "Later")
