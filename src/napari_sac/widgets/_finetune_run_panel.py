"""A run under way: how far it is, what it learns, and what can be done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QApplication,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_sac.core.training.curves import draw_curves
from napari_sac.core.training.events import Wish
from napari_sac.core.training.run_folder import Phase
from napari_sac.viewer.finetuning import SCORES
from napari_sac.widgets._finetune_pictures import CurvePicture, Picture
from napari_sac.widgets._finetune_watch import RunStage
from napari_sac.widgets._finetune_wording import (
    DISCARD_RUN,
    EXAMPLE,
    NOTHING_YET,
    describe_lost,
    describe_machine,
    describe_phase,
    describe_steps,
    describe_wish,
)
from napari_sac.widgets._panel import WARNING_STYLE, fold, narrow_button, note

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sac.core.training.run_folder import RunStatus
    from napari_sac.widgets._finetune_watch import Curves

# of a narrow dock; wider ones enlarge it
_SIZE = (250, 150)
# seen on dark and on light ground, and by those who see no red or no green
_COLOURS = ("#0096E0", "#E69F00", "#009E73", "#CC79A7")
_ENDED = (RunStage.LOST, RunStage.FAILED)


class RunPanel(QWidget):
    """Progress, curves and an example, and the buttons.

    Attributes
    ----------
    asked : Signal(object)
        A :class:`~napari_sac.core.training.events.Wish` for the run.
    go_on_requested, discard_requested : Signal
        About a run that was ended.
    """

    asked = Signal(object)
    go_on_requested = Signal()
    discard_requested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._report = ""
        self._paused = self._asking = False
        self._shown: tuple[RunStatus | None, RunStage, Wish] | None = None
        self.title = QLabel()
        self.title.setWordWrap(True)
        self.phase, self.steps, self.machine, self.said = (note() for _ in range(4))
        self.problem = note()
        self.problem.setStyleSheet(WARNING_STYLE)
        self.bar = QProgressBar()
        self.pause = narrow_button("Pause", "Waits after this step; loses nothing.")
        self.stop = narrow_button(
            "Stop, keep the best",
            "Ends the training now, and compares what was best so far.",
        )
        self.cancel = narrow_button("Cancel", "Ends the training, and keeps nothing.")
        self.go_on = narrow_button("Go on", "Takes it up at its last checkpoint.")
        self.discard = narrow_button("Discard", "Deletes it, after one more question.")
        self.keep = narrow_button("Keep it", "Deletes nothing.")
        self.copy = QPushButton("Copy report")
        self.copy.setToolTip("Puts what the developers need to know on the clipboard.")
        self.curves_note = note()
        self.loss, self.scores = CurvePicture(), CurvePicture()
        self.example, self.about_example = Picture(), note()
        self.notes = note()
        self.notes_fold = fold("What it says", self.notes)
        self._lay_out()
        self.pause.clicked.connect(self._on_pause)
        self.stop.clicked.connect(self._on_stop)
        self.cancel.clicked.connect(self._on_cancel)
        self.go_on.clicked.connect(self.go_on_requested)
        self.discard.clicked.connect(self._on_discard)
        self.keep.clicked.connect(self._on_keep)
        self.copy.clicked.connect(self._on_copy)

    def clear(self, name: str) -> None:
        """Get ready to show another run."""
        self.title.setText(f"<b>Fine-tuning of {name}</b>")
        self._asking = self._paused = False
        self.curves_note.setText(NOTHING_YET)
        self.curves_note.show()
        self.loss.hide()
        self.scores.hide()
        self.example.clear()
        self.about_example.hide()

    def show_status(
        self, status: RunStatus | None, stage: RunStage, wish: Wish
    ) -> None:
        """Say how far it is."""
        self._shown = (status, stage, wish)
        ended = stage in _ENDED
        self._paused = wish is Wish.PAUSE
        self._show_phase(status, stage, wish)
        self._show_progress(status, ended=ended)
        self._show_buttons(status, ended=ended, wish=wish)
        self._report = "" if status is None or not ended else status.report
        self.copy.setVisible(bool(self._report))
        notes = () if status is None else status.notes
        self.notes.setText("\n".join(f"• {text}" for text in notes))
        self.notes_fold.setVisible(bool(notes))

    def show_curves(self, curves: Curves) -> None:
        """Draw the loss, and the scores on what is held out."""
        loss, scores = curves.loss, curves.scores
        if loss:
            line = {"loss": loss["loss"]}
            self.loss.draw(
                draw_curves("Loss", loss["step"], line, size=_SIZE, colours=_COLOURS)
            )
        if scores:
            lines = {
                title: scores[name] for name, title in SCORES.items() if name in scores
            }
            self.scores.draw(
                draw_curves(
                    "Held out", scores["step"], lines, size=_SIZE, colours=_COLOURS
                )
            )
        self.curves_note.setVisible(not loss and not scores)

    def show_example(self, file: Path) -> None:
        """Show the overlay of a held-out window."""
        self.example.read(file)
        self.about_example.setVisible(not self.example.is_empty)

    def _show_phase(
        self, status: RunStatus | None, stage: RunStage, wish: Wish
    ) -> None:
        problem = ""
        if stage is RunStage.LOST:
            problem = describe_lost(status)
        elif stage is RunStage.FAILED and status is not None:
            problem = status.message
        text = "" if problem else describe_phase(status)
        if not problem and wish in (Wish.STOP, Wish.CANCEL):
            comparing = status is not None and status.phase is Phase.COMPARING
            if not comparing:
                text = describe_wish(stopping=wish is Wish.STOP)
        self.phase.setText(text)
        self.phase.setVisible(bool(text))
        self.problem.setText(problem)
        self.problem.setVisible(bool(problem))

    def _show_progress(self, status: RunStatus | None, *, ended: bool) -> None:
        known = status is not None and status.steps > 0
        busy = status is not None and status.phase is Phase.COMPARING
        self.bar.setRange(0, status.steps if known and not busy and status else 0)
        self.bar.setValue(0 if status is None else status.step)
        self.bar.setVisible(not ended or known)
        for label, text in (
            (self.steps, "" if status is None else describe_steps(status)),
            (self.machine, "" if status is None else describe_machine(status)),
            (self.said, status.notes[-1] if status and status.notes else ""),
        ):
            label.setText(text)
            label.setVisible(bool(text) and not ended)

    def _show_buttons(
        self, status: RunStatus | None, *, ended: bool, wish: Wish
    ) -> None:
        self.pause.setText("Go on" if self._paused else "Pause")
        ending = wish in (Wish.STOP, Wish.CANCEL)
        comparing = status is not None and status.phase is Phase.COMPARING
        for button in (self.pause, self.stop, self.cancel):
            button.setVisible(not ended)
        self.pause.setEnabled(not ending and not comparing)
        self.stop.setEnabled(not ending and not comparing)
        self.cancel.setEnabled(wish is not Wish.CANCEL)
        self.go_on.setVisible(ended and not self._asking)
        self.discard.setVisible(ended)
        self.discard.setText("Delete for good" if self._asking else "Discard")
        self.keep.setVisible(ended and self._asking)
        if ended and self._asking:
            self.problem.setText(DISCARD_RUN)

    def _on_pause(self) -> None:
        self.asked.emit(Wish.GO if self._paused else Wish.PAUSE)

    def _on_stop(self) -> None:
        self.asked.emit(Wish.STOP)

    def _on_cancel(self) -> None:
        self.asked.emit(Wish.CANCEL)

    def _on_discard(self) -> None:
        asked, self._asking = self._asking, not self._asking
        if asked:
            self.discard_requested.emit()
        elif self._shown is not None:
            self.show_status(*self._shown)

    def _on_keep(self) -> None:
        self._asking = False
        if self._shown is not None:
            self.show_status(*self._shown)

    def _on_copy(self) -> None:
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self._report)

    def _lay_out(self) -> None:
        self.about_example.setText(EXAMPLE)
        rows = []
        for buttons in (
            (self.pause, self.cancel),
            (self.stop,),
            (self.go_on, self.discard, self.keep),
        ):
            row = QHBoxLayout()
            for button in buttons:
                row.addWidget(button)
            rows.append(row)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        above: tuple[QWidget, ...] = (
            self.title,
            self.phase,
            self.problem,
            self.bar,
            self.steps,
            self.machine,
            self.said,
        )
        for widget in above:
            layout.addWidget(widget)
        for row in rows:
            layout.addLayout(row)
        below: tuple[QWidget, ...] = (
            self.copy,
            self.curves_note,
            self.scores,
            self.loss,
            self.about_example,
            self.example,
            self.notes_fold,
        )
        for widget in below:
            layout.addWidget(widget)
