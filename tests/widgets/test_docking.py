"""A dock joins the viewer while it is docked, and its window is watched weakly."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject
from qtpy.QtWidgets import QMainWindow, QWidget

from napari_sac.widgets._docking import Docking, is_closed, no_window, watch_window

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot


def test_a_dock_joins_and_leaves_in_turn(qtbot: QtBot) -> None:
    window, dock = QMainWindow(), QWidget()
    qtbot.addWidget(window)
    qtbot.addWidget(dock)
    told: list[str] = []
    docking = Docking(
        dock,
        lambda: told.append("join"),
        lambda: told.append("leave"),
        lambda: told.append("shown"),
    )
    docking.join()
    dock.setParent(window)
    assert told == ["join"]
    with qtbot.waitExposed(window):
        window.show()
        dock.show()
    assert set(told[1:]) == {"shown"}
    told.clear()
    dock.setParent(None)
    assert told == ["leave"]
    docking.leave()
    dock.setParent(window)
    assert told == ["leave", "join"]


class Watcher(QObject):
    """Counts the events that it filters."""

    def __init__(self) -> None:
        super().__init__()
        self.events = 0

    def eventFilter(self, watched, event):
        self.events += 1
        return False


def test_only_the_window_of_now_is_watched_and_it_is_not_kept(qtbot: QtBot) -> None:
    first, second, dock = QMainWindow(), QMainWindow(), QWidget()
    qtbot.addWidget(second)
    watcher = Watcher()
    assert is_closed(no_window)
    dock.setParent(first)
    find = watch_window(watcher, dock, no_window)
    assert find() is first
    assert watch_window(watcher, dock, find) is find
    dock.setParent(second)
    find_second = watch_window(watcher, dock, find)
    assert find_second() is second
    watcher.events = 0
    first.setWindowTitle("first")
    assert watcher.events == 0
    second.setWindowTitle("second")
    assert watcher.events > 0
    assert is_closed(find_second)
    second.show()
    assert not is_closed(find_second)
    del first
    gc.collect()
    assert find() is None
