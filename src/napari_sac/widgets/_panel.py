"""Small pieces that the panels of a dock are made of."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QFrame,
    QLabel,
    QLayout,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

NOTE_STYLE = "font-size: 11px;"

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

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Stay as wide as the contents need, also when their style changes."""
        contents, bar = self.widget(), self.verticalScrollBar()
        if watched is contents and contents is not None and bar is not None:
            wide = contents.minimumSizeHint().width() + bar.sizeHint().width()
            if self.minimumWidth() != wide:
                self.setMinimumWidth(wide)
        return super().eventFilter(watched, event)
