"""Which model goes on learning, what the result is called, and how it is trained."""

from __future__ import annotations

from dataclasses import fields

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QButtonGroup,
    QDoubleSpinBox,
    QFormLayout,
    QLineEdit,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from napari_sac.core.config import FinetuneConfig
from napari_sac.widgets._config_form import ConfigForm
from napari_sac.widgets._finetune_wording import FULL, QUICK
from napari_sac.widgets._panel import fold, form, note, push_button

_LONGEST_TEXT = 64
# a dock gives no original data to mix in
_ELSEWHERE = ("quick", "max_minutes", "original_part")


class NewAdapterPanel(QWidget):
    """What the training starts from, and what its result is called.

    Attributes
    ----------
    changed : Signal
        Another name was typed.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._typed = False
        self.start = note()
        self.name = QLineEdit()
        self.name.setMaxLength(_LONGEST_TEXT)
        self.name.setToolTip(
            "What the new adapter is called in the list of adapters: letters, digits, "
            "dots, dashes and underscores."
        )
        self.tissue = QLineEdit()
        self.tissue.setMaxLength(_LONGEST_TEXT)
        self.tissue.setPlaceholderText("optional")
        self.tissue.setToolTip("What the images show, for your own list of adapters.")
        self.problem = note()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.start)
        lines = QFormLayout()
        lines.addRow("Name", self.name)
        lines.addRow("Tissue", self.tissue)
        layout.addLayout(lines)
        layout.addWidget(self.problem)
        for line in (self.name, self.tissue):
            line.setMinimumWidth(60)
        self.name.textEdited.connect(self._on_typed)
        self.name.textChanged.connect(self.changed)

    def suggest(self, name: str) -> None:
        """Fill in a name, as long as nobody has typed another one."""
        if not self._typed and self.name.text() != name:
            self.name.setText(name)

    def forget_typed(self) -> None:
        """Suggest a name again for the next adapter."""
        self._typed = False

    def show_problem(self, problem: str) -> None:
        """Say what is wrong with the name; an empty text if nothing is."""
        self.problem.setText(problem)
        self.problem.setVisible(bool(problem))

    def _on_typed(self, text: str) -> None:
        self._typed = bool(text)


class TrainPanel(QWidget):
    """How to train, and the button that starts it.

    Attributes
    ----------
    requested : Signal
        The button was pressed.
    """

    requested = Signal()

    def __init__(self) -> None:
        super().__init__()
        options = {option.name: option for option in fields(FinetuneConfig)}
        self.quick = QRadioButton("Quick")
        self.full = QRadioButton("Full")
        group = QButtonGroup(self)
        for button in (self.quick, self.full):
            group.addButton(button)
            button.setToolTip(options["quick"].metadata["tooltip"])
        (self.quick if FinetuneConfig().quick else self.full).setChecked(True)
        self.minutes = _minutes_box(options["max_minutes"])
        self.advanced = ConfigForm(FinetuneConfig, without=_ELSEWHERE)
        self.fold = fold("Advanced", self.advanced.native)
        self.start = push_button("Fine-tune")
        self.why_not = note()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for button, text in ((self.quick, QUICK), (self.full, FULL)):
            about = note()
            about.setText(text)
            layout.addWidget(button)
            layout.addWidget(about)
        layout.addLayout(form(("Minutes at most", self.minutes)))
        layout.addWidget(self.fold)
        layout.addWidget(self.start)
        layout.addWidget(self.why_not)
        self.start.clicked.connect(self.requested)

    def config(self) -> FinetuneConfig:
        """Return what is chosen."""
        return self.advanced.config(
            quick=self.quick.isChecked(), max_minutes=self.minutes.value()
        )

    def allow(self, allowed: bool, reason: str) -> None:
        """Enable the button or not, and say why not, or what to think of."""
        self.start.setEnabled(allowed)
        self.why_not.setText(reason)
        self.why_not.setVisible(bool(reason))


def _minutes_box(option: object) -> QDoubleSpinBox:
    told = option.metadata  # type: ignore[attr-defined]
    box = QDoubleSpinBox()
    box.setDecimals(1)
    box.setRange(told["min"], told["max"])
    box.setSingleStep(told["step"])
    box.setValue(option.default)  # type: ignore[attr-defined]
    box.setSuffix(" min")
    box.setSpecialValueText("no limit")
    box.setToolTip(told["tooltip"])
    return box
