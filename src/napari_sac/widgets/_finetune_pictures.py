"""What is drawn while a model learns: curves and the overlay of an example."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QByteArray, QPointF, QRectF, Qt
from qtpy.QtGui import QPainter, QPixmap
from qtpy.QtSvgWidgets import QSvgWidget
from qtpy.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from pathlib import Path

    from qtpy.QtGui import QPaintEvent, QResizeEvent

_TALLEST_PICTURE, _WIDEST_CURVES = 320, 400


class CurvePicture(QSvgWidget):
    """Shows an SVG as wide as the dock, in the colour of its text."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setMaximumWidth(_WIDEST_CURVES)
        self.hide()

    def draw(self, svg: str) -> None:
        """Show an SVG whose black parts are to have the colour of text."""
        colour = self.palette().windowText().color().name()
        inked = svg.replace("<svg ", f'<svg fill="{colour}" ', 1)
        self.load(QByteArray(inked.encode()))
        self._fit()
        self.show()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Keep the proportions."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        drawn = self.renderer()
        size = self.size() if drawn is None else drawn.defaultSize()
        if size.width() > 0:
            self.setFixedHeight(round(self.width() * size.height() / size.width()))


class Picture(QWidget):
    """Shows a picture as wide as the dock, with its proportions."""

    def __init__(self) -> None:
        super().__init__()
        self._picture = QPixmap()
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.hide()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return self._picture.isNull()

    def read(self, file: Path) -> None:
        """Show the picture of a file; keep the last one if there is none to read."""
        picture = QPixmap(str(file))
        if not picture.isNull():
            self._picture = picture
            self._fit()
            self.show()
            self.update()

    def clear(self) -> None:
        """Show nothing."""
        self._picture = QPixmap()
        self.hide()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Keep the proportions."""
        super().resizeEvent(event)
        self._fit()

    def paintEvent(self, _: QPaintEvent | None) -> None:
        """Draw it in the middle, as large as there is room."""
        if self._picture.isNull():
            return
        keep, smooth = (
            Qt.AspectRatioMode.KeepAspectRatio,
            Qt.TransformationMode.SmoothTransformation,
        )
        # drawn at the pixels of the screen, which may be finer
        ratio = self.devicePixelRatioF()
        scaled = self._picture.scaled(self.size() * ratio, keep, smooth)
        scaled.setDevicePixelRatio(ratio)
        area = QRectF(QPointF(), scaled.size().toSizeF() / ratio)
        area.moveCenter(QRectF(self.rect()).center())
        painter = QPainter(self)
        painter.drawPixmap(area.topLeft(), scaled)
        painter.end()

    def _fit(self) -> None:
        wide, tall = self._picture.width(), self._picture.height()
        if wide > 0:
            height = min(_TALLEST_PICTURE, round(self.width() * tall / wide))
            self.setFixedHeight(max(1, height))
