"""The wheel over a dock scrolls it, whatever lies under the mouse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import (
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLabel,
    QScrollBar,
    QVBoxLayout,
    QWidget,
)

from napari_sac.core.config import DecodeConfig
from napari_sac.widgets._config_form import ConfigForm
from napari_sac.widgets._panel import ScrollColumn
from napari_sac.widgets.finetune_widget import FinetuneWidget

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

    from napari_sac.widgets.segment_widget import SegmentWidget


def turn(widget: QWidget, notches: int = -1) -> None:
    """Turn the wheel over the middle of a widget; down by default.

    What it ignores goes to what it lies in: Qt does that for a real wheel only.
    """
    middle = widget.rect().center()
    over: QWidget | None = widget
    while over is not None:
        event = QWheelEvent(
            QPointF(widget.mapTo(over, middle)),
            QPointF(widget.mapToGlobal(middle)),
            QPoint(0, 0),
            QPoint(0, 120 * notches),
            Qt.MouseButton.NoButton,
            Qt.KeyboardModifier.NoModifier,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        event.ignore()
        QApplication.sendEvent(over, event)
        over = None if event.isAccepted() else over.parentWidget()


def inputs(inside: QWidget) -> list[Any]:
    kinds = (QComboBox, QAbstractSpinBox, QAbstractSlider)
    found = [w for kind in kinds for w in inside.findChildren(kind)]
    return [w for w in found if not isinstance(w, QScrollBar)]


def value(box: Any) -> object:
    if isinstance(box, QComboBox):
        return box.currentIndex()
    return box.text() if isinstance(box, QAbstractSpinBox) else box.value()


@pytest.fixture
def tuner(viewer: ViewerModel, qtbot: QtBot) -> Iterator[FinetuneWidget]:
    dock = FinetuneWidget(viewer)
    qtbot.addWidget(dock)
    yield dock
    dock.leave()


@pytest.mark.parametrize("name", ["dock", "tuner"])
def test_the_wheel_changes_no_setting_of_a_dock(
    qtbot: QtBot, request: pytest.FixtureRequest, name: str
) -> None:
    dock: SegmentWidget | FinetuneWidget = request.getfixturevalue(name)
    with qtbot.waitExposed(dock):
        dock.show()
    (column,) = dock.findChildren(ScrollColumn)
    found = inputs(column.widget())
    assert len(found) >= 3
    for box in found:
        if isinstance(box, QComboBox) and box.count() == 1:
            box.addItem("another")
    before = [value(box) for box in found]
    for box in found:
        # the wheel would give it the focus first, and turn it then
        assert box.focusPolicy() != Qt.FocusPolicy.WheelFocus
        for notches in (-1, 1):
            turn(box, notches)
            assert [value(box) for box in found] == before


@pytest.fixture
def column(qtbot: QtBot) -> ScrollColumn:
    """Two combo boxes and a form, in a window that is too low for what is below."""
    inside = QWidget()
    layout = QVBoxLayout(inside)
    for name in ("first", "second"):
        box = QComboBox()
        box.setObjectName(name)
        box.addItems(["a", "b", "c"])
        layout.addWidget(box)
    tall = QLabel()
    tall.setFixedHeight(2000)
    layout.addWidget(tall)
    column = ScrollColumn(inside)
    qtbot.addWidget(column)
    column.resize(300, 300)
    with qtbot.waitExposed(column):
        column.show()
    return column


def test_the_wheel_over_an_input_scrolls(column: ScrollColumn) -> None:
    turn(column.findChild(QComboBox, "first"))
    assert column.verticalScrollBar().value() > 0


def test_an_input_that_was_clicked_follows_the_wheel(
    qtbot: QtBot, column: ScrollColumn
) -> None:
    first, second = (column.findChild(QComboBox, n) for n in ("first", "second"))
    column.activateWindow()
    first.setFocus()
    qtbot.waitUntil(first.hasFocus)
    turn(first)
    turn(second)
    assert (first.currentIndex(), second.currentIndex()) == (1, 0)


def test_inputs_that_come_later_are_guarded_too(
    qtbot: QtBot, column: ScrollColumn
) -> None:
    late = ConfigForm(DecodeConfig)
    column.widget().layout().insertWidget(0, late.native)
    qtbot.waitUntil(late.native.isVisible)
    qtbot.wait(300)
    for box in inputs(late.native):
        turn(box, 1)
    assert late.config() == DecodeConfig()
