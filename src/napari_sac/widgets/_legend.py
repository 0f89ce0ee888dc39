"""What the colours and symbols of the points mean, and which keys change them."""

from __future__ import annotations

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPen, QPixmap
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_sac.core.types import NEGATIVE, POSITIVE, PromptState
from napari_sac.viewer.prompts import STATE_COLOURS, STATE_TITLES
from napari_sac.widgets._panel import note

_COLUMNS = 2
_SIDE = 14

_KEYS = (
    "<b>W</b> accept &nbsp; <b>Q</b> reject &nbsp; <b>N</b> nucleus or not<br>"
    "<b>2</b> add &nbsp; <b>3</b> select, move &nbsp; <b>Del</b> delete<br>"
    "W, Q, N: the selected points, else the one under the mouse."
)


class Legend(QWidget):
    """A swatch and a word for each state and sign, and the keys."""

    def __init__(self) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        grid = QGridLayout()
        grid.setVerticalSpacing(2)
        grid.setContentsMargins(3, 0, 0, 0)
        entries = [
            *((STATE_TITLES[s], c, POSITIVE) for s, c in STATE_COLOURS.items()),
            ("not this nucleus", STATE_COLOURS[PromptState.ADDED], NEGATIVE),
        ]
        for i, (title, colour, sign) in enumerate(entries):
            row, column = divmod(i, _COLUMNS)
            grid.addLayout(_entry(title, colour, sign), row, column)
        layout.addLayout(grid)
        keys = note()
        keys.setText(_KEYS)
        layout.addWidget(keys)


def _entry(title: str, colour: str, sign: int) -> QHBoxLayout:
    swatch = QLabel()
    swatch.setPixmap(_swatch(colour, sign))
    row = QHBoxLayout()
    row.addWidget(swatch)
    row.addWidget(QLabel(title), 1)
    return row


def _swatch(colour: str, sign: int) -> QPixmap:
    """Return a picture of a point as it looks in the Points layer."""
    picture = QPixmap(_SIDE, _SIDE)
    picture.fill(Qt.GlobalColor.transparent)
    painter = QPainter(picture)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setBrush(QColor("black"))
    painter.setPen(QPen(QColor(colour), 3))
    middle = _SIDE / 2
    if sign == POSITIVE:
        painter.drawEllipse(QPointF(middle, middle), 4, 4)
    else:
        painter.drawRect(QRectF(2, middle - 2, _SIDE - 4, 4))
    painter.end()
    return picture
