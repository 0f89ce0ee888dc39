"""The worker: threads, progress, cancelling, errors, and going away in the middle."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from napari.utils.notifications import Notification, notification_manager
from qtpy.QtCore import QObject

from napari_sac.core.errors import ImageFormatError
from napari_sac.widgets._worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytestqt.qtbot import QtBot

    from napari_sac.core.progress import Progress

MAIN = threading.main_thread()


class Heard:
    """Everything that a worker says."""

    def __init__(self, worker: Worker) -> None:
        self.progress: list[tuple[str, int, int]] = []
        self.failures: list[tuple[str, str]] = []
        self.cancelled: list[str] = []
        self.results: list[Any] = []
        worker.progressed.connect(lambda *a: self.progress.append(a))
        worker.failed.connect(lambda *a: self.failures.append(a))
        worker.cancelled.connect(self.cancelled.append)


@pytest.fixture
def worker(qtbot: QtBot) -> Iterator[Worker]:
    parent = QObject()
    yield Worker(parent)
    parent.deleteLater()


@pytest.fixture
def heard(worker: Worker) -> Heard:
    return Heard(worker)


@pytest.fixture
def shown() -> Iterator[list[Notification]]:
    """What napari shows as notifications."""
    found: list[Notification] = []
    notification_manager.notification_ready.connect(found.append)
    yield found
    notification_manager.notification_ready.disconnect(found.append)


def count_slowly(progress: Progress) -> str:
    for i in range(1000):
        progress("counting", i, 1000)
        time.sleep(0.01)
    return "counted"


def wait_until_idle(qtbot: QtBot, worker: Worker) -> None:
    qtbot.waitUntil(lambda: not worker.busy, timeout=20_000)


def test_work_runs_in_a_thread_and_its_result_comes_back(
    qtbot: QtBot, worker: Worker, heard: Heard
) -> None:
    threads = []

    def work(progress: Progress) -> int:
        threads.append(threading.current_thread())
        progress("adding", 1, 2)
        return 42

    def show(result: int) -> None:
        threads.append(threading.current_thread())
        heard.results.append(result)

    with qtbot.waitSignal(worker.busy_changed):
        worker.start("Adding", work, show)
    assert worker.busy
    wait_until_idle(qtbot, worker)
    assert heard.results == [42]
    assert threads[0] is not MAIN
    assert threads[1] is MAIN
    assert ("adding", 1, 2) in heard.progress


def test_one_job_at_a_time(qtbot: QtBot, worker: Worker) -> None:
    worker.start("Counting", count_slowly, print)
    with pytest.raises(RuntimeError, match="Counting is still running"):
        worker.start("Again", count_slowly, print)
    worker.cancel()
    wait_until_idle(qtbot, worker)


def test_cancel_stops_the_work_soon(qtbot: QtBot, worker: Worker, heard: Heard) -> None:
    worker.start("Counting", count_slowly, heard.results.append)
    qtbot.waitUntil(lambda: ("counting", 0, 1000) in heard.progress)
    start = time.monotonic()
    worker.cancel()
    wait_until_idle(qtbot, worker)
    assert time.monotonic() - start < 3
    assert heard.cancelled == ["Counting"]
    assert heard.results == []
    assert heard.failures == []


def test_a_result_that_comes_after_cancel_is_dropped(
    qtbot: QtBot, worker: Worker, heard: Heard
) -> None:
    go_on = threading.Event()

    def work(progress: Progress) -> str:
        go_on.wait(20)
        return "late"

    worker.start("Waiting", work, heard.results.append)
    worker.cancel()
    go_on.set()
    wait_until_idle(qtbot, worker)
    assert heard.results == []
    assert heard.cancelled == ["Waiting"]


def test_what_stays_is_told_as_done_though_cancel_came_at_its_end(
    qtbot: QtBot, worker: Worker, heard: Heard
) -> None:
    began, go_on = threading.Event(), threading.Event()

    def write(progress: Progress) -> str:
        began.set()
        go_on.wait(20)
        return "written"

    worker.start("Exporting", write, heard.results.append, lasting=True)
    qtbot.waitUntil(began.is_set, timeout=20_000)
    worker.cancel()
    go_on.set()
    wait_until_idle(qtbot, worker)
    assert heard.results == ["written"]
    assert heard.cancelled == []
    worker.start("Exporting", count_slowly, heard.results.append, lasting=True)
    worker.cancel()
    wait_until_idle(qtbot, worker)
    assert heard.results == ["written"]
    assert heard.cancelled == ["Exporting"]


def test_the_cancel_of_naparis_activity_dock_stops_the_work(
    qtbot: QtBot, worker: Worker, heard: Heard
) -> None:
    from napari.utils import cancelable_progress

    worker.start("Counting", count_slowly, heard.results.append)
    (bar,) = [
        b for b in cancelable_progress._all_instances if b.desc.startswith("Counting")
    ]
    bar.cancel()
    wait_until_idle(qtbot, worker)
    assert heard.cancelled == ["Counting"]
    assert bar not in cancelable_progress._all_instances


def test_an_error_that_the_user_can_mend_is_a_sentence(
    qtbot: QtBot, worker: Worker, heard: Heard, shown: list[Notification]
) -> None:
    def work(progress: Progress) -> None:
        raise ImageFormatError("The image has no pixels. Choose another.")

    worker.start("Reading", work, heard.results.append)
    wait_until_idle(qtbot, worker)
    assert heard.failures == [("The image has no pixels. Choose another.", "")]
    assert [n.message for n in shown] == ["The image has no pixels. Choose another."]
    assert shown[0].severity == "error"


def test_an_unexpected_error_comes_with_a_report(
    qtbot: QtBot, worker: Worker, heard: Heard, shown: list[Notification]
) -> None:
    def work(progress: Progress) -> None:
        raise KeyError("surprise")

    worker.start("Segmenting", work, heard.results.append)
    wait_until_idle(qtbot, worker)
    ((sentence, report),) = heard.failures
    assert "Segmenting" in sentence
    assert "were kept" in sentence
    assert "KeyError" in report
    assert "surprise" in report
    assert "napari 0" in report
    assert len(shown) == 1


def test_too_little_memory_is_said_in_plain_words(
    qtbot: QtBot, worker: Worker, heard: Heard, shown: list[Notification]
) -> None:
    def work(progress: Progress) -> None:
        raise MemoryError

    worker.start("Segmenting", work, heard.results.append)
    wait_until_idle(qtbot, worker)
    assert "more memory than there is" in heard.failures[0][0]


def test_an_error_while_showing_the_result_is_shown_too(
    qtbot: QtBot, worker: Worker, heard: Heard, shown: list[Notification]
) -> None:
    def show(result: int) -> None:
        raise ValueError("cannot show")

    worker.start("Adding", lambda progress: 1, show)
    wait_until_idle(qtbot, worker)
    assert "ValueError: cannot show" in heard.failures[0][1]
    assert len(shown) == 1


def test_the_next_job_can_start_from_the_result_of_the_last(
    qtbot: QtBot, worker: Worker, heard: Heard
) -> None:
    def show(result: int) -> None:
        heard.results.append(result)
        if result < 3:
            worker.start("Next", lambda progress: result + 1, show)

    worker.start("First", lambda progress: 1, show)
    qtbot.waitUntil(lambda: heard.results == [1, 2, 3], timeout=20_000)


def test_deleting_the_parent_ends_the_thread_and_drops_the_result(
    qtbot: QtBot,
) -> None:
    parent = QObject()
    worker = Worker(parent)
    heard = Heard(worker)
    ended = threading.Event()

    def work(progress: Progress) -> None:
        try:
            count_slowly(progress)
        finally:
            ended.set()

    worker.start("Counting", work, heard.results.append)
    qtbot.waitUntil(lambda: ("counting", 0, 1000) in heard.progress)
    parent.deleteLater()
    with qtbot.waitSignal(parent.destroyed):
        pass
    assert ended.wait(3)
    qtbot.wait(50)
    assert heard.results == []


def test_stopping_does_not_wait_for_the_thread(
    qtbot: QtBot, worker: Worker, heard: Heard
) -> None:
    begun, let_go, ended = (threading.Event() for _ in range(3))

    def work(progress: Progress) -> int:
        begun.set()
        # as what says nothing for seconds
        let_go.wait(10)
        ended.set()
        return 42

    worker.start("Adding", work, heard.results.append)
    qtbot.waitUntil(begun.is_set)
    worker.stop()
    assert not ended.is_set()
    assert worker.busy
    let_go.set()
    wait_until_idle(qtbot, worker)
    assert heard.results == []
    assert heard.cancelled == ["Adding"]


def test_what_a_job_held_is_freed(qtbot: QtBot, worker: Worker) -> None:
    class Large:
        pass

    large = Large()
    ref = weakref.ref(large)
    done = []
    worker.start("Holding", lambda progress, held=large: held, lambda _: done.append(1))
    wait_until_idle(qtbot, worker)
    del large
    gc.collect()
    assert done
    assert ref() is None
