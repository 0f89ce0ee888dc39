"""The live lane: newest state first, results on the window's thread, going away."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from qtpy.QtCore import QCoreApplication, QObject

from napari_sac.core.errors import NapariSacError
from napari_sac.widgets._torch_import import import_torch
from napari_sac.widgets._worker import LiveLane

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytestqt.qtbot import QtBot

    from napari_sac.core.progress import Progress

MAIN = threading.main_thread()


class Clicks:
    """Something that changes while the lane computes: the number of clicks."""

    def __init__(self) -> None:
        self.count = self.asked = 0
        self.taken: list[int] = []
        self.threads: list[threading.Thread] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.error: Exception | None = None
        self.wrong = False
        self.failed: list[int] = []
        self.given_back: list[int] = []

    def next_request(self) -> int | None:
        if self.count == self.asked:
            return None
        self.asked = self.count
        return self.asked

    def compute(self, request: int, progress: Progress) -> int:
        self.threads.append(threading.current_thread())
        while not self.go_on.wait(0.01):
            progress("waiting", request, 0)
        if self.error is not None:
            raise self.error
        return request

    def take(self, result: int) -> None:
        assert threading.current_thread() is MAIN
        if self.wrong:
            raise ValueError("cannot take")
        self.taken.append(result)

    def fail(self, request: int, error: Exception) -> None:
        self.failed.append(request)

    def give_back(self, request: int) -> None:
        self.given_back.append(request)


@pytest.fixture(autouse=True, scope="module")
def torch_is_there() -> None:
    """The import alone takes longer than these tests wait."""
    import_torch()


@pytest.fixture
def clicks() -> Clicks:
    return Clicks()


@pytest.fixture
def lane(qtbot: QtBot, clicks: Clicks) -> Iterator[LiveLane[int, int]]:
    parent = QObject()
    made = LiveLane(parent, clicks, clicks.compute)
    yield made
    clicks.go_on.set()
    made.stop()
    parent.deleteLater()


def click(lane: LiveLane[int, int], clicks: Clicks) -> None:
    clicks.count += 1
    lane.wake()


def test_requests_are_answered_beside_the_window_in_one_thread(
    qtbot: QtBot, lane: LiveLane[int, int], clicks: Clicks
) -> None:
    for number in (1, 2, 3):
        click(lane, clicks)
        assert lane.busy
        qtbot.waitUntil(lambda n=number: clicks.taken[-1:] == [n])
        assert not lane.busy
    assert MAIN not in clicks.threads
    assert len(set(clicks.threads)) == 1


def test_of_many_quick_clicks_the_first_and_the_last_state_are_computed(
    qtbot: QtBot, lane: LiveLane[int, int], clicks: Clicks
) -> None:
    clicks.go_on.clear()
    for _ in range(10):
        click(lane, clicks)
    clicks.go_on.set()
    qtbot.waitUntil(lambda: clicks.taken == [1, 10])


def test_nothing_starts_without_a_request(
    lane: LiveLane[int, int], clicks: Clicks
) -> None:
    before = threading.active_count()
    lane.wake()
    assert not lane.busy
    assert threading.active_count() == before


def test_while_paused_requests_gather(
    qtbot: QtBot, lane: LiveLane[int, int], clicks: Clicks
) -> None:
    lane.pause(True)
    click(lane, clicks)
    click(lane, clicks)
    assert not lane.busy
    lane.pause(False)
    qtbot.waitUntil(lambda: clicks.taken == [2])


def test_what_is_computed_when_the_dock_closes_is_dropped(
    qtbot: QtBot, lane: LiveLane[int, int], clicks: Clicks
) -> None:
    clicks.go_on.clear()
    click(lane, clicks)
    qtbot.waitUntil(lambda: bool(clicks.threads))
    lane.stop()
    assert not lane.busy
    assert clicks.given_back == [1]
    clicks.threads[0].join(3)
    assert not clicks.threads[0].is_alive()
    qtbot.wait(50)
    assert clicks.taken == []
    # docked again
    clicks.go_on.set()
    click(lane, clicks)
    qtbot.waitUntil(lambda: clicks.taken == [2])


def test_the_window_waits_for_the_thread_only_when_the_program_ends(
    qtbot: QtBot, clicks: Clicks
) -> None:
    let_go = threading.Event()

    def compute(request: int, progress: Progress) -> int:
        clicks.threads.append(threading.current_thread())
        # as what says nothing for seconds
        let_go.wait(10)
        return request

    parent = QObject()
    lane = LiveLane(parent, clicks, compute)
    click(lane, clicks)
    qtbot.waitUntil(lambda: bool(clicks.threads))
    lane.stop()
    assert clicks.threads[0].is_alive()
    # docked again: the next answer is not mistaken for that of the last request
    click(lane, clicks)
    let_go.set()
    qtbot.waitUntil(lambda: clicks.taken == [2])
    clicks.threads[0].join(3)
    let_go.clear()
    click(lane, clicks)
    qtbot.waitUntil(lambda: len(clicks.threads) == 3)
    threading.Timer(0.1, let_go.set).start()
    QCoreApplication.instance().aboutToQuit.emit()
    assert not clicks.threads[2].is_alive()
    parent.deleteLater()


def test_what_takes_long_says_so(
    qtbot: QtBot, lane: LiveLane[int, int], clicks: Clicks
) -> None:
    told: list[tuple[str, int, int]] = []
    lane.progressed.connect(lambda *words: told.append(words))
    click(lane, clicks)
    qtbot.waitUntil(lambda: clicks.taken == [1])
    assert told == []
    clicks.go_on.clear()
    click(lane, clicks)
    qtbot.waitUntil(lambda: ("waiting", 2, 0) in told)


def test_an_error_is_told_and_the_next_request_served(
    qtbot: QtBot, lane: LiveLane[int, int], clicks: Clicks
) -> None:
    told: list[tuple[str, str]] = []
    lane.failed.connect(lambda *words: told.append(words))
    clicks.error = NapariSacError("The image is gone. Open it again.")
    click(lane, clicks)
    qtbot.waitUntil(lambda: bool(told))
    assert told == [("The image is gone. Open it again.", "")]
    assert not lane.busy
    assert clicks.failed == [1]
    clicks.error = KeyError("surprise")
    click(lane, clicks)
    qtbot.waitUntil(lambda: len(told) == 2)
    assert "were kept" in told[1][0]
    assert "KeyError: 'surprise'" in told[1][1]
    clicks.error = None
    click(lane, clicks)
    qtbot.waitUntil(lambda: clicks.taken == [3])


def test_an_error_while_taking_the_result_is_told(
    qtbot: QtBot, clicks: Clicks, lane: LiveLane[int, int]
) -> None:
    clicks.wrong = True
    with qtbot.waitSignal(lane.failed) as told:
        click(lane, clicks)
    assert "ValueError: cannot take" in told.args[1]
    assert not lane.busy


def test_a_deleted_parent_ends_the_thread_and_drops_the_result(
    qtbot: QtBot, clicks: Clicks
) -> None:
    parent = QObject()
    lane = LiveLane(parent, clicks, clicks.compute)
    clicks.go_on.clear()
    click(lane, clicks)
    qtbot.waitUntil(lambda: bool(clicks.threads))
    parent.deleteLater()
    with qtbot.waitSignal(parent.destroyed):
        pass
    clicks.go_on.set()
    qtbot.wait(50)
    assert clicks.taken == []
    lane.wake()
    ref = weakref.ref(lane)
    del lane, parent
    gc.collect()
    assert ref() is None
    clicks.threads[0].join(3)
    assert not clicks.threads[0].is_alive()


def test_what_was_computed_with_is_freed(qtbot: QtBot) -> None:
    class Large:
        pass

    class Once(Clicks):
        def next_request(self) -> Any:
            return waiting.pop() if waiting else None

        def take(self, result: Any) -> None:
            self.taken.append(1)

    waiting = [Large()]
    ref = weakref.ref(waiting[0])
    parent, clicks = QObject(), Once()
    lane = LiveLane(parent, clicks, clicks.compute)
    lane.wake()
    qtbot.waitUntil(lambda: clicks.taken == [1])
    qtbot.waitUntil(lambda: gc.collect() >= 0 and ref() is None)
    lane.stop()
    parent.deleteLater()
