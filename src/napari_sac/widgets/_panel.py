"""Small pieces that the panels of a dock are made of."""

from __future__ import annotations

from typing import TypeVar

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QApplication,
    QCheckBox,
    QComboBox,
    QFormLayout,
    QFrame,
    QLabel,
    QLayout,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_sac.widgets._wheel import WheelGuard

_Button = TypeVar("_Button", bound=QAbstractButton)

NOTE_STYLE = "font-size: 11px;"
WARNING_STYLE = "font-size: 11px; color: #E69F00; font-weight: bold;"
_FOLD_STYLE = (
    "QPushButton { text-align: left; border: none; outline: none; } "
    # napari colours a checked button like the one to press next
    "QPushButton:checked { background-color: transparent; }"
)

_HEADING_STYLE = (
    _FOLD_STYLE + "QPushButton { background-color: transparent; font-weight: bold; "
    "padding: 0px 0px 0px 4px; }"
)

_LONGEST_NAME = 24

# So that the inputs of all panels stand below each other.
_LABEL_WIDTH = 112


def note() -> QLabel:
    """Return a label for a sentence, which takes as many lines as it needs."""
    label = QLabel()
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    label.setStyleSheet(NOTE_STYLE)
    return label


def combo(tooltip: str) -> QComboBox:
    """Return a combo box that does not widen the dock when an entry is long."""
    box = QComboBox()
    box.setToolTip(tooltip)
    box.setMinimumContentsLength(8)
    box.setSizeAdjustPolicy(
        QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
    )
    return box


def narrow_button(text: str, tooltip: str) -> QPushButton:
    """Return a button that may get narrower than its text, so not to widen the dock."""
    button = push_button(text, tooltip)
    button.setMinimumWidth(40)
    button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    button.setStyleSheet("padding: 3px 4px;")
    return button


def push_button(text: str, tooltip: str = "") -> QPushButton:
    """Return a button that a click does not leave waiting for Space, which pans."""
    return _without_focus(QPushButton(text), tooltip)


def check_box(text: str, tooltip: str) -> QCheckBox:
    """Return a box that a click does not leave waiting for Space either."""
    return _without_focus(QCheckBox(text), tooltip)


def _without_focus(button: _Button, tooltip: str) -> _Button:
    button.setToolTip(tooltip)
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    button.pressed.connect(_leave_field)
    return button


def _leave_field() -> None:
    """Let what was typed count, as when a click takes the focus away from it."""
    field = QApplication.focusWidget()
    if isinstance(field, QLineEdit | QAbstractSpinBox):
        field.clearFocus()


def fold(title: str, *contents: QWidget) -> QCollapsible:
    """Return contents that are folded away until the title is clicked."""

    def name(unfolded: bool) -> None:
        folded.setText(f"{'▾' if unfolded else '▸'}  {title}")

    # its own icons keep the colour that text had before napari's theme came
    folded = QCollapsible(expandedIcon=" ", collapsedIcon=" ")
    folded.toggleButton().setStyleSheet(_FOLD_STYLE)
    folded.toggleButton().setIconSize(QSize(0, 0))
    folded.toggleButton().setFocusPolicy(Qt.FocusPolicy.TabFocus)
    folded.toggled.connect(name)
    name(False)
    for layout in (folded.layout(), folded.content().layout()):
        if layout is not None:
            layout.setContentsMargins(0, 0, 0, 0)
            layout.setSpacing(3)
    for widget in contents:
        folded.addWidget(widget)
    return folded


def whole_button(text: str, tooltip: str) -> QPushButton:
    """Return a button that is never narrower than its text."""
    button = push_button(text, tooltip)
    button.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
    button.setStyleSheet("padding: 3px 4px;")
    return button


def section(title: str, *contents: QWidget | QLayout) -> QVBoxLayout:
    """Return a layout with a heading and, below it, widgets and layouts."""
    layout = QVBoxLayout()
    layout.setSpacing(3)
    heading = QLabel(f"<b>{title}</b>")
    layout.addWidget(heading)
    for content in contents:
        if isinstance(content, QWidget):
            layout.addWidget(content)
        else:
            layout.addLayout(content)
    return layout


class FoldingSection(QWidget):
    """A heading and, below it, contents that a click on the heading folds away.

    Parameters
    ----------
    title : str
    *contents : QWidget

    Attributes
    ----------
    heading : QPushButton
        Checked while the contents are shown.
    """

    def __init__(self, title: str, *contents: QWidget) -> None:
        super().__init__()
        self._title, self._about = title, ""
        self._chosen = False
        self.heading = push_button("")
        self.heading.setCheckable(True)
        self.heading.setChecked(True)
        self.heading.setStyleSheet(_HEADING_STYLE)
        # a long name is not to widen the dock
        self.heading.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._body = QWidget()
        body = QVBoxLayout(self._body)
        body.setContentsMargins(0, 0, 0, 0)
        body.setSpacing(3)
        for content in contents:
            body.addWidget(content)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addWidget(self.heading)
        layout.addWidget(self._body)
        self.heading.clicked.connect(self._on_clicked)
        self._show_body()

    def suggest_fold(self) -> None:
        """Fold, unless the user has ever folded or unfolded this by a click."""
        if not self._chosen:
            self.heading.setChecked(False)
            self._show_body()

    def name(self, about: str) -> None:
        """Say in the heading, while folded, what is chosen inside; empty for none."""
        self._about = about
        self._show_body()

    def _on_clicked(self) -> None:
        self._chosen = True
        self._show_body()

    def _show_body(self) -> None:
        shown = self.heading.isChecked()
        about = "" if shown or not self._about else f": {_shorten(self._about)}"
        # Qt underlines what stands behind one
        title = f"{self._title}{about}".replace("&", "&&")
        self.heading.setText(f"{title}  {'▾' if shown else '▸'}")
        self.heading.setToolTip("" if shown else self._about)
        self._body.setVisible(shown)


def _shorten(name: str) -> str:
    """Return a name that fits behind a heading; images often differ at the end."""
    if len(name) <= _LONGEST_NAME:
        return name
    half = _LONGEST_NAME // 2
    return f"{name[:half]}…{name[1 - half :]}"


def form(*rows: tuple[str, QWidget]) -> QFormLayout:
    """Return a layout with a name before each widget."""
    layout = QFormLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    for name, widget in rows:
        label = QLabel(name)
        label.setMinimumWidth(_LABEL_WIDTH)
        layout.addRow(label, widget)
    return layout


class ScrollColumn(QScrollArea):
    """Scrolls its contents up and down when the window is low; never cuts their sides.

    The wheel scrolls, and sets nothing unless the input under it was clicked before.

    Parameters
    ----------
    contents : QWidget
    """

    def __init__(self, contents: QWidget) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self.setWidget(contents)
        WheelGuard(contents)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Stay as wide as the contents need, also when their style changes."""
        contents, bar = self.widget(), self.verticalScrollBar()
        if watched is contents and contents is not None and bar is not None:
            wide = contents.minimumSizeHint().width() + bar.sizeHint().width()
            if self.minimumWidth() != wide:
                self.setMinimumWidth(wide)
        return super().eventFilter(watched, event)
