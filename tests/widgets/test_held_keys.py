"""Tests for napari_sac.widgets._held_keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_sac.widgets._held_keys import HeldKeys

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot


def test_keys_that_are_held_are_told_once(qtbot: QtBot) -> None:
    window, dock = QWidget(), QWidget()
    qtbot.addWidget(window)
    QVBoxLayout(window).addWidget(dock)
    keys = HeldKeys(dock)
    told: list[frozenset[str]] = []
    keys.changed.connect(told.append)
    keys.watch_window()
    keys.watch_window()
    # a key that the dock does not want goes on to the window
    qtbot.keyPress(dock, Qt.Key.Key_Shift)
    qtbot.keyPress(window, Qt.Key.Key_Control)
    qtbot.keyPress(window, Qt.Key.Key_A)
    qtbot.keyRelease(window, Qt.Key.Key_Shift)
    qtbot.keyRelease(window, Qt.Key.Key_Control)
    assert told == [{"Shift"}, {"Shift", "Control"}, {"Control"}, set()]
