"""The review queue: how far it is, why a nucleus is doubtful, what it all took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QGridLayout, QProgressBar, QVBoxLayout, QWidget

from napari_sac.widgets._panel import narrow_button, note
from napari_sac.widgets._wording import describe_doubt, describe_progress

if TYPE_CHECKING:
    from napari_sac.viewer.review import ReviewProgress

NOTHING_TO_REVIEW = "Segment first: then the most doubtful nuclei come first."


class ReviewPanel(QWidget):
    """Goes through the nuclei, the most doubtful first.

    Attributes
    ----------
    previous_requested, next_requested : Signal
    accept_requested, reject_requested : Signal
        Decide about the nucleus under review, and go on.
    """

    previous_requested = Signal()
    next_requested = Signal()
    accept_requested = Signal()
    reject_requested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.bar = QProgressBar()
        self.reasons = note()
        self.effort = note()
        self.effort.setToolTip(
            "Steps: all that Undo can take back, and undo and redo themselves. Time: "
            "from step to step; of a longer pause one minute counts."
        )
        self.why_not = note()
        self.why_not.setText(NOTHING_TO_REVIEW)
        self.previous = narrow_button("Previous", "Go back to the nucleus before.")
        self.accept = narrow_button(
            "Accept && next", "This nucleus is right; go to the next."
        )
        self.reject = narrow_button(
            "Reject && next", "There is no nucleus here; go to the next."
        )
        self.next = narrow_button(
            "Next", "Go to the next nucleus and decide nothing about this one."
        )
        buttons = QGridLayout()
        buttons.setSpacing(4)
        buttons.addWidget(self.accept, 0, 0)
        buttons.addWidget(self.reject, 0, 1)
        buttons.addWidget(self.previous, 1, 0)
        buttons.addWidget(self.next, 1, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        for part in (self.bar, self.reasons):
            layout.addWidget(part)
        layout.addLayout(buttons)
        layout.addWidget(self.effort)
        layout.addWidget(self.why_not)
        self.previous.clicked.connect(self.previous_requested)
        self.accept.clicked.connect(self.accept_requested)
        self.reject.clicked.connect(self.reject_requested)
        self.next.clicked.connect(self.next_requested)
        self.show_progress(None)

    def show_progress(
        self,
        progress: ReviewProgress | None,
        nuclei: int = 0,
        effort: str = "",
        *,
        editable: bool = True,
    ) -> None:
        """Show how far the review is.

        Parameters
        ----------
        progress : ReviewProgress or None
            None if there is nothing to review.
        nuclei : int, optional
            How many there are; what was rejected is none.
        effort : str, optional
            What it all took.
        editable : bool, optional
            Whether nuclei can be accepted and rejected.
        """
        there = progress is not None and progress.total > 0
        self.why_not.setVisible(not there)
        for part in (self.bar, self.reasons, self.effort):
            part.setVisible(there)
        self.bar.setVisible(there and nuclei > 0)
        self.previous.setEnabled(there)
        self.next.setEnabled(there)
        current = 0 if progress is None else progress.current_id
        for button in (self.accept, self.reject):
            button.setEnabled(there and editable and current > 0)
        if progress is not None and there:
            # a bar that changes paints the whole window before it returns
            self.bar.setUpdatesEnabled(False)
            rejected = progress.total - nuclei
            self.bar.setFormat(describe_progress(rejected))
            # an empty range would mean that nobody knows
            self.bar.setRange(0, max(nuclei, 1))
            self.bar.setValue(progress.reviewed - rejected)
            self.bar.setUpdatesEnabled(True)
            self.reasons.setText(describe_doubt(progress))
            self.effort.setText(effort)
