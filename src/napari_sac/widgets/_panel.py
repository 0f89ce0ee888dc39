"""Small pieces that the panels of a dock are made of."""

from __future__ import annotations

from qtpy.QtCore import Qt
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
        layout.addRow(name, widget)
    return layout


def scrollable(contents: QWidget) -> QScrollArea:
    """Return an area that scrolls up and down when the window is low."""
    area = QScrollArea()
    area.setWidget(contents)
    # it is not to be cut at the side, which a scroll area would allow
    bar = area.verticalScrollBar().sizeHint().width()
    area.setMinimumWidth(contents.minimumSizeHint().width() + bar)
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
    return area
