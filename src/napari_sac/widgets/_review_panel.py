"""The review queue: how far it is, why a nucleus is doubtful, what it all took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QVBoxLayout, QWidget

from napari_sac.widgets._panel import narrow_button, note
from napari_sac.widgets._wording import describe_doubt, describe_effort

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sac.viewer.review import ReviewProgress

NOTHING_TO_REVIEW = "Segment first: then the most doubtful nuclei come first."


class ReviewPanel(QWidget):
    """Goes through the nuclei, the most doubtful first.

    Attributes
    ----------
    previous_requested, next_requested, accept_requested : Signal
    """

    previous_requested = Signal()
    next_requested = Signal()
    accept_requested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.bar = QProgressBar()
        self.bar.setFormat("%v of %m reviewed")
        self.reasons = note()
        self.effort = note()
        self.why_not = note()
        self.why_not.setText(NOTHING_TO_REVIEW)
        self.previous = narrow_button("Previous", "Go back to the nucleus before.")
        self.accept = narrow_button(
            "Accept && next", "This nucleus is right; go to the next."
        )
        self.next = narrow_button(
            "Next", "Go to the next nucleus and decide nothing about this one."
        )
        row = QHBoxLayout()
        row.addWidget(self.previous, 3)
        row.addWidget(self.accept, 4)
        row.addWidget(self.next, 3)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        for part in (self.bar, self.reasons):
            layout.addWidget(part)
        layout.addLayout(row)
        layout.addWidget(self.effort)
        layout.addWidget(self.why_not)
        self.previous.clicked.connect(self.previous_requested)
        self.accept.clicked.connect(self.accept_requested)
        self.next.clicked.connect(self.next_requested)
        self.show_progress(None)

    def show_progress(
        self,
        progress: ReviewProgress | None,
        current: int = 0,
        reasons: Sequence[str] = (),
        *,
        editable: bool = True,
    ) -> None:
        """Show how far the review is.

        Parameters
        ----------
        progress : ReviewProgress or None
            None if there is nothing to review.
        current : int, optional
            The nucleus under review; 0 for none.
        reasons : sequence of str, optional
            Why it is doubtful.
        editable : bool, optional
            Whether nuclei can be accepted.
        """
        there = progress is not None and progress.total > 0
        self.why_not.setVisible(not there)
        for part in (self.bar, self.reasons, self.effort):
            part.setVisible(there)
        self.previous.setEnabled(there)
        self.next.setEnabled(there)
        self.accept.setEnabled(there and editable and current > 0)
        if progress is not None and there:
            # a bar that changes paints the whole window before it returns
            self.bar.setUpdatesEnabled(False)
            self.bar.setRange(0, progress.total)
            self.bar.setValue(progress.reviewed)
            self.bar.setUpdatesEnabled(True)
            self.reasons.setText(describe_doubt(progress, current, reasons))
            self.effort.setText(describe_effort(progress))
