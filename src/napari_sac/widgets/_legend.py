"""What the colours and symbols of the points mean."""

from __future__ import annotations

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPen, QPixmap
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QWidget

from napari_sac.core.types import NEGATIVE, POSITIVE, PromptState
from napari_sac.viewer.prompts import STATE_COLOURS, STATE_TITLES

_COLUMNS = 3
_SIDE = 14


class Legend(QWidget):
    """A swatch and a word for each state and sign."""

    def __init__(self) -> None:
        super().__init__()
        grid = QGridLayout(self)
        grid.setVerticalSpacing(2)
        grid.setContentsMargins(3, 0, 0, 0)
        entries = [
            *((STATE_TITLES[s], c, POSITIVE) for s, c in STATE_COLOURS.items()),
            ("not this", STATE_COLOURS[PromptState.ADDED], NEGATIVE),
        ]
        for i, (title, colour, sign) in enumerate(entries):
            row, column = divmod(i, _COLUMNS)
            grid.addLayout(_entry(title, colour, sign), row, column)


def _entry(title: str, colour: str, sign: int) -> QHBoxLayout:
    swatch = QLabel()
    swatch.setPixmap(_swatch(colour, sign))
    row = QHBoxLayout()
    row.addWidget(swatch)
    row.addWidget(QLabel(title), 1)
    return row


def mark(tool: str) -> QPixmap:
    """Return a picture of what a tool sets: "add", "exclude" or "include"."""
    colour = STATE_COLOURS[PromptState.ADDED]
    if tool == "include":
        return _swatch(colour, POSITIVE, count=2)
    return _swatch(colour, NEGATIVE if tool == "exclude" else POSITIVE)


def _swatch(colour: str, sign: int, count: int = 1) -> QPixmap:
    """Return a picture of a point, or of several, as it looks in the Points layer."""
    picture = QPixmap(_SIDE, _SIDE)
    picture.fill(Qt.GlobalColor.transparent)
    painter = QPainter(picture)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setBrush(QColor("black"))
    painter.setPen(QPen(QColor(colour), 3 if count == 1 else 2))
    middle = _SIDE / 2
    if sign == POSITIVE:
        radius = 4 if count == 1 else 2
        for i in range(count):
            x = _SIDE * (2 * i + 1) / (2 * count)
            painter.drawEllipse(QPointF(x, middle), radius, radius)
    else:
        painter.drawRect(QRectF(2, middle - 2, _SIDE - 4, 4))
    painter.end()
    return picture
