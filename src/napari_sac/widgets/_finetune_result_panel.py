"""What a run came to: the verdict, the scores, and whether its adapter is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_sac.widgets._finetune_wording import (
    CONFIDENCE,
    describe_gain,
    describe_not_used,
    describe_used,
    describe_verdict,
)
from napari_sac.widgets._panel import NOTE_STYLE, narrow_button, note

if TYPE_CHECKING:
    from napari_sac.viewer.finetuning import Score, Verdict

# told by words too, not by colour alone
_PERHAPS = "font-weight: bold;"
_GOOD = "font-weight: bold; color: #009E73;"
_BAD = "font-weight: bold; color: #E69F00;"


class ResultPanel(QWidget):
    """The verdict and what to do about it.

    Attributes
    ----------
    use_requested, back_requested, report_requested, again_requested : Signal
    """

    use_requested = Signal()
    back_requested = Signal()
    report_requested = Signal()
    again_requested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._name = ""
        self.title = QLabel()
        self.title.setWordWrap(True)
        self.verdict, self.reason, self.gain, self.used = (note() for _ in range(4))
        self.table = QWidget()
        self.confidence = note()
        self.confidence.setText(CONFIDENCE)
        self.use = narrow_button("Use it", "Chooses it in the dock Segment nuclei.")
        self.back = narrow_button("Back", "Chooses what was used before.")
        self.report = narrow_button(
            "Open the report",
            "Curves, scores, and which nuclei were gained and lost, in the browser.",
        )
        self.again = narrow_button(
            "Fine-tune another", "Goes back to the form; this adapter is kept."
        )
        self._lay_out()
        self.use.clicked.connect(self.use_requested)
        self.back.clicked.connect(self.back_requested)
        self.report.clicked.connect(self.report_requested)
        self.again.clicked.connect(self.again_requested)

    def show_verdict(self, name: str, verdict: Verdict) -> None:
        """Say whether it helped, and by how much."""
        self._name = name
        self.title.setText(f"<b>Fine-tuning of {name}</b>")
        self.verdict.setText(describe_verdict(verdict))
        good = _PERHAPS if verdict.may_be_chance else _GOOD
        self.verdict.setStyleSheet(good if verdict.promoted else _BAD)
        self.reason.setText(verdict.reason)
        self.gain.setText(describe_gain(verdict))
        self.gain.setVisible(bool(self.gain.text()))
        self._fill_table(verdict.scores)
        self.use.setText("Use it" if verdict.promoted else "Use it anyway")

    def show_used(self, used: bool, before: str) -> None:
        """Say whether it is used; ``before`` names what can be gone back to."""
        self.used.setText(
            describe_used(self._name) if used else describe_not_used(self._name)
        )
        self.use.setVisible(not used)
        self.back.setVisible(used and bool(before))
        self.back.setText(f"Back to {before}")
        self.back.setToolTip(f"Chooses {before} again. {self._name} stays listed.")

    def _fill_table(self, scores: tuple[Score, ...]) -> None:
        grid = self.table.layout()
        while grid is not None and (item := grid.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.deleteLater()
        if not isinstance(grid, QGridLayout):
            return
        ranged = any(score.after_range is not None for score in scores)
        for column, text in enumerate(("", "before", "after", "gain")):
            grid.addWidget(_cell(text), 0, column)
        for row, score in enumerate(scores, 1):
            grid.addWidget(_cell(score.name), row, 0)
            grid.addWidget(_cell(_number(score.before, score.before_range)), row, 1)
            grid.addWidget(_cell(_number(score.after, score.after_range)), row, 2)
            gain = _number(score.after - score.before, score.gain_range, "+")
            grid.addWidget(_cell(gain), row, 3)
        self.table.setVisible(bool(scores))
        self.confidence.setVisible(ranged)

    def _lay_out(self) -> None:
        grid = QGridLayout(self.table)
        grid.setContentsMargins(0, 4, 0, 4)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(3)
        grid.setColumnStretch(1, 1)
        grid.setColumnStretch(2, 1)
        row = QHBoxLayout()
        row.addWidget(self.report)
        row.addWidget(self.again)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (
            self.title,
            self.verdict,
            self.reason,
            self.table,
            self.confidence,
            self.gain,
            self.used,
            self.use,
            self.back,
        ):
            layout.addWidget(widget)
        layout.addLayout(row)


def _cell(text: str) -> QLabel:
    cell = QLabel(text)
    cell.setStyleSheet(NOTE_STYLE)
    cell.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
    return cell


def _number(value: float, ends: tuple[float, float] | None, sign: str = "") -> str:
    """Return a number and its range; ``sign`` is "+" for one that may be negative."""
    if ends is None:
        return f"{value:{sign}.3f}"
    return f"{value:{sign}.3f}\n{ends[0]:{sign}.2f} to {ends[1]:{sign}.2f}"
