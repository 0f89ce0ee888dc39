"""The one place where threads and programs start; errors of jobs are shown from here.

:class:`Worker` runs what takes seconds and shows how far it is; :class:`LiveLane` runs
what a click asks for, which nobody should have to wait for; :func:`start_program`
starts what outlives the window. What runs in a thread touches no layer. Results and
errors arrive on the window's thread; those of a cancelled job are dropped.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import threading
import time
import traceback
import warnings
import weakref
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from napari.qt.threading import create_worker
from napari.utils import cancelable_progress
from napari.utils.notifications import notification_manager, show_error, show_info
from qtpy.QtCore import (  # type: ignore[attr-defined]
    QCoreApplication,
    QEventLoop,
    QObject,
    Qt,
    Signal,
)

from napari_sac.core.device import is_out_of_memory
from napari_sac.core.errors import Cancelled, NapariSacError, OutputError
from napari_sac.core.progress import ignore_progress
from napari_sac.widgets._alive import is_alive
from napari_sac.widgets._torch_import import import_torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_sac.core.progress import Progress

_T = TypeVar("_T")
_Request = TypeVar("_Request")
_Result = TypeVar("_Result")
_Taken_contra = TypeVar("_Taken_contra", contravariant=True)

_REPORT_SECONDS = 0.05
_QUIET_SECONDS = 0.4
_JOIN_SECONDS = 15.0
"""At the end of the program, when no window is left to wait: imports take so long."""
_PACKAGES = ("napari-sac", "napari", "torch", "numpy", "qtpy")


def start_program(command: Sequence[str], log_file: Path) -> subprocess.Popen[bytes]:
    """Start a program that goes on when this one ends.

    Parameters
    ----------
    command : sequence of str
        The program and its arguments.
    log_file : Path
        What it prints is added there.

    Raises
    ------
    OutputError
        If it cannot be started.
    """
    # so that neither Ctrl-C in our terminal nor the end of our window reaches it
    apart: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        apart = {"creationflags": flags}
    try:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with log_file.open("ab") as log:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **apart,
            )
    except OSError as error:
        raise OutputError(
            f"The program could not be started ({error.strerror or error}). Nothing "
            "was changed. Free some memory and disk space, and try again."
        ) from error
    # somebody must wait for it, or it stays in the table of processes as a zombie
    threading.Thread(target=process.wait, daemon=True).start()
    return process


class Worker(QObject):
    """Runs one job at a time for a dock.

    Parameters
    ----------
    parent : QObject
        When it is deleted the job stops, and its result is dropped.

    Attributes
    ----------
    busy_changed : Signal(bool)
    progressed : Signal(str, int, int)
        What is being done, how much of it is done, out of how much; 0 if not known.
    failed : Signal(str, str)
        A sentence for the user, and a report for the developers (empty for what the
        user can mend).
    cancelled : Signal(str)
        Title of the job.
    """

    busy_changed = Signal(bool)
    progressed = Signal(str, int, int)
    failed = Signal(str, str)
    cancelled = Signal(str)

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._job: _Job[Any] | None = None
        self._bar: cancelable_progress | None = None

    @property
    def busy(self) -> bool:
        """Whether a job is running, or being cancelled."""
        return self._job is not None

    @property
    def title(self) -> str:
        """What the job does that is running; empty if none is."""
        return "" if self._job is None else self._job.title

    def start(
        self,
        title: str,
        work: Callable[[Progress], _T],
        on_done: Callable[[_T], None],
        *,
        lasting: bool = False,
    ) -> None:
        """Run ``work`` in a thread, then ``on_done`` with its result in this one.

        Parameters
        ----------
        title : str
            What the job does, for the user: "Finding nuclei".
        work : callable
            Given a :data:`~napari_sac.core.progress.Progress`, which raises
            ``Cancelled`` to stop it.
        on_done : callable
            Not called for a job that failed or was cancelled.
        lasting : bool
            Whether what the work has done stays, as a file does: if Cancel comes when
            it is done, it is told as done, and not as cancelled.

        Raises
        ------
        RuntimeError
            If a job is running.
        """
        if self._job is not None:
            raise RuntimeError(f"{self._job.title} is still running")
        self._job = job = _Job(title, work, on_done, self, lasting)
        queued = Qt.ConnectionType.QueuedConnection
        job.relay.progressed.connect(self._on_progressed, queued)
        job.relay.finished.connect(self._on_finished, queued)
        self.busy_changed.emit(True)
        thread = create_worker(job)
        # napari cancels by this when its window closes
        job.is_quit = partial(getattr, thread, "abort_requested")
        self._bar = job.bar = cancelable_progress(total=0, desc=title)
        thread.start()

    def cancel(self) -> None:
        """Ask the job to stop; its result will be dropped, unless it lasts."""
        if self._job is not None:
            self._job.cancelled.set()
            self.progressed.emit("Cancelling", 0, 0)

    def stop(self) -> None:
        """Cancel without a word; the thread ends by itself.

        Nobody waits for it here. At the end of the program napari waits for its
        threads, of which this is one.
        """
        if self._job is not None:
            self._job.cancelled.set()

    def _on_progressed(self, stage: str, done: int, total: int) -> None:
        job, bar = self._job, self._bar
        if job is None or bar is None or job.cancelled.is_set():
            return
        self.progressed.emit(stage, done, total)
        # each step lets napari process events, among them the end of this job
        for step in (
            partial(bar.set_description, stage),
            partial(bar.reset, total),
            partial(bar.update, done),
        ):
            if self._bar is bar:
                step()

    def _on_finished(self) -> None:
        job, bar = self._job, self._bar
        if job is None or not job.finished.is_set():
            return
        self._job = self._bar = None
        if bar is not None:
            bar.close()
        self.busy_changed.emit(False)
        try:
            self._deliver(job)
        except Exception as error:
            # what shows a result is a dock's code: its bugs are told like the work's
            self._show_unexpected(job.title, error)
        finally:
            job.clear()

    def _deliver(self, job: _Job[Any]) -> None:
        done = job.lasting and job.error is None
        if isinstance(job.error, Cancelled) or (job.is_cancelled() and not done):
            self.cancelled.emit(job.title)
        elif isinstance(job.error, NapariSacError):
            self.failed.emit(str(job.error), "")
            show_error(str(job.error))
        elif job.error is not None:
            self._show_unexpected(job.title, job.error)
        else:
            job.on_done(job.result)

    def _show_unexpected(self, title: str, error: Exception) -> None:
        self.failed.emit(_sentence(title, error), _report(title, error))
        notification_manager.receive_error(type(error), error, error.__traceback__)


def wait_for(title: str, work: Callable[[Progress], _T]) -> _T | None:
    """Return the result of work that is done in a thread; the window answers meanwhile.

    For commands of napari, which must return what they were asked for. Where Qt has no
    application, it is simply done.

    Parameters
    ----------
    title, work
        As :meth:`Worker.start` takes them.

    Returns
    -------
    result or None
        None if it failed or was cancelled, which napari has told the user then.
    """
    if QCoreApplication.instance() is None:
        return work(ignore_progress)
    loop = QEventLoop()
    worker = Worker(loop)
    results: list[_T] = []
    worker.cancelled.connect(lambda title: show_info(f"{title} was cancelled."))
    # the result comes with the same event, before the loop is left
    worker.busy_changed.connect(lambda busy: None if busy else loop.quit())
    worker.start(title, work, results.append)
    loop.exec()
    loop.deleteLater()
    return results[0] if results else None


class RequestQueue(Protocol[_Request, _Taken_contra]):
    """What a :class:`LiveLane` serves; called in the thread of the window only."""

    def next_request(self) -> _Request | None:
        """Return what to compute now, or None."""

    def take(self, result: _Taken_contra, /) -> None:
        """Take what came of the request."""

    def fail(self, request: _Request, error: Exception, /) -> None:
        """Go on without a request that could not be served, and why not."""

    def give_back(self, request: _Request, /) -> None:
        """Take back a request that nobody serves any more."""


class LiveLane(QObject, Generic[_Request, _Result]):
    """Answers one request after the other in a thread that stays.

    The next request is asked for when the last one is answered, so it is about the
    state of things at that moment.

    Parameters
    ----------
    parent : QObject
        When it is deleted, what is being computed is dropped.
    queue : RequestQueue
    compute : callable
        Run in the lane's thread, with a request and a
        :data:`~napari_sac.core.progress.Progress`.

    Attributes
    ----------
    busy_changed : Signal(bool)
    progressed : Signal(str, int, int)
        As that of :class:`Worker`, but only from what takes long.
    failed : Signal(str, str)
        As that of :class:`Worker`; no notification comes with it.
    """

    busy_changed = Signal(bool)
    progressed = Signal(str, int, int)
    failed = Signal(str, str)

    def __init__(
        self,
        parent: QObject,
        queue: RequestQueue[_Request, _Result],
        compute: Callable[[_Request, Progress], _Result],
    ) -> None:
        super().__init__(parent)
        self._queue = queue
        self._compute = compute
        self._line: _Line | None = None
        self._request: _Request | None = None
        self._paused = False

    @property
    def busy(self) -> bool:
        """Whether something is being computed."""
        return self._request is not None

    def wake(self) -> None:
        """Ask for a request, unless there is one at work or the lane is paused."""
        if self.busy or self._paused or not is_alive(self):
            return
        self._request = self._queue.next_request()
        if self._request is None:
            return
        if self._line is None or self._line.stopped.is_set():
            self._line = self._open_line()
        self.busy_changed.emit(True)
        self._line.inbox.put(self._request)

    def pause(self, paused: bool) -> None:
        """Ask for nothing for a while, then go on with what has gathered."""
        self._paused = paused
        self.wake()

    def stop(self) -> None:
        """Drop what is being computed, and end the thread; ``wake`` starts another.

        The thread ends when its computation next says how far it is, and the window
        does not wait for that.
        """
        line, self._line = self._line, None
        if line is None:
            return
        line.stop()
        line.relay.answered.disconnect(self._on_answered)
        line.relay.progressed.disconnect(self.progressed)
        request, self._request = self._request, None
        if request is not None:
            self._queue.give_back(request)
            self.busy_changed.emit(False)

    def _open_line(self) -> _Line:
        line = _Line(self._compute)
        queued = Qt.ConnectionType.QueuedConnection
        line.relay.answered.connect(self._on_answered, queued)
        line.relay.progressed.connect(self.progressed, queued)
        # the thread does not know the lane, so something must tell it to end
        weakref.finalize(self, line.stop)
        line.thread.start()
        app = QCoreApplication.instance()
        if app is not None:
            # a thread that imports or computes while the interpreter ends crashes it
            end = partial(_end, line.thread, line.stopped, line.inbox)
            app.aboutToQuit.connect(end)
        return line

    def _on_answered(self, answer: _Answer) -> None:
        request = self._request
        if request is None or answer.request is not request:
            # of a thread that was stopped
            return
        self._request = None
        self.busy_changed.emit(False)
        error = answer.error
        try:
            if error is None:
                self._queue.take(answer.result)
            else:
                self._queue.fail(request, error)
        except Exception as raised:
            # whatever is wrong with this mask, the next request must be served
            error = raised
        if isinstance(error, NapariSacError):
            self.failed.emit(str(error), "")
        elif error is not None:
            title = "Computing the mask"
            self.failed.emit(_sentence(title, error), _report(title, error))
        self.wake()


class _Answer(NamedTuple):
    """What came of a request."""

    request: Any
    result: Any
    error: Exception | None


class _Line:
    """A thread that computes, what it is given, and what it says.

    Parameters
    ----------
    compute : callable
        As that of :class:`LiveLane`.
    """

    def __init__(self, compute: Callable[[Any, Progress], Any]) -> None:
        self.inbox: SimpleQueue[Any] = SimpleQueue()
        self.relay = _Relay()
        self.stopped = threading.Event()
        # daemon: it waits for requests, which is nothing to keep a program open for
        self.thread = threading.Thread(
            target=_answer,
            args=(compute, self.inbox, self.relay, self.stopped),
            daemon=True,
        )

    def stop(self) -> None:
        """Tell the thread to end, also in the middle of a computation."""
        self.stopped.set()
        self.inbox.put(None)


def _answer(
    compute: Callable[[Any, Progress], Any],
    inbox: SimpleQueue[Any],
    relay: _Relay,
    stopped: threading.Event,
) -> None:
    """Answer requests until there comes None; nothing is raised in the thread."""
    while (request := inbox.get()) is not None:
        try:
            import_torch()
            result = compute(request, _live_progress(relay, stopped))
            answer = _Answer(request, result, None)
            del result
        except Exception as error:
            # a thread that ends with an error answers no request any more
            answer = _Answer(request, None, error)
        relay.answered.emit(answer)
        # a request holds an embedding: not until the next one comes
        del request, answer


def _end(
    thread: threading.Thread, stopped: threading.Event, inbox: SimpleQueue[Any]
) -> None:
    """Tell a lane's thread to end, and wait until it has."""
    stopped.set()
    inbox.put(None)
    thread.join(_JOIN_SECONDS)


def _live_progress(relay: _Relay, stopped: threading.Event) -> Progress:
    """Return a progress that is silent unless it takes long, and stops the work."""
    quiet_until = time.monotonic() + _QUIET_SECONDS

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal quiet_until
        if stopped.is_set():
            raise Cancelled("The dock was closed.")
        now = time.monotonic()
        if now > quiet_until:
            quiet_until = now + _REPORT_SECONDS
            relay.progressed.emit(stage, done, total)

    return progress


class _Relay(QObject):
    """Carries what a thread says to the window's thread; it belongs to the thread."""

    progressed = Signal(str, int, int)
    finished = Signal()
    answered = Signal(object)


class _Job(Generic[_T]):
    """What a thread runs, and what came of it."""

    def __init__(
        self,
        title: str,
        work: Callable[[Progress], _T],
        on_done: Callable[[_T], None],
        worker: Worker,
        lasting: bool,
    ) -> None:
        self.title = title
        self.lasting = lasting
        self.worker: Worker | None = worker
        self.work: Callable[[Progress], _T] | None = work
        self.on_done: Callable[[Any], None] = on_done
        self.result: _T | None = None
        self.error: Exception | None = None
        self.relay = _Relay()
        self.bar: cancelable_progress | None = None
        self.is_quit: Callable[[], bool] = bool
        self.cancelled = threading.Event()
        self.finished = threading.Event()
        self._last = ("", 0.0)

    def __str__(self) -> str:
        # napari shows it when its window is closed meanwhile
        return f"Segment Any Cell: {self.title}"

    def __call__(self) -> None:
        """Run in the thread; nothing is raised there."""
        for category in (DeprecationWarning, FutureWarning):
            # napari shows every warning of a thread; these are not for its users
            warnings.simplefilter("ignore", category)
        try:
            self._report("Starting", 0, 0)
            import_torch()
            if self.work is not None:
                self.result = self.work(self._report)
        except Exception as error:
            # told in the window's thread; raised here, the dock would stay busy
            self.error = error
        self.work = None
        if not is_alive(self.worker):
            self.clear()
        self.finished.set()
        self.relay.finished.emit()

    def is_cancelled(self) -> bool:
        """Whether somebody asked the job to stop, or nobody waits for it any more."""
        return (
            self.cancelled.is_set()
            or self.is_quit()
            or (self.bar is not None and self.bar.is_canceled)
            or not is_alive(self.worker)
        )

    def clear(self) -> None:
        """Let go of everything large: napari keeps the job until its window closes."""
        self.work = self.result = self.error = self.bar = self.worker = None
        self.on_done = _ignore
        self.is_quit = bool

    def _report(self, stage: str, done: int, total: int) -> None:
        if self.is_cancelled():
            raise Cancelled(f"{self.title} was cancelled.")
        now = time.monotonic()
        last_stage, last_time = self._last
        if stage == last_stage and now - last_time < _REPORT_SECONDS:
            return
        self._last = (stage, now)
        self.relay.progressed.emit(stage, done, total)


def _ignore(_: object) -> None:
    """Do nothing with a result."""


def _sentence(title: str, error: Exception) -> str:
    if is_out_of_memory(error):
        return (
            f"{title} needs more memory than there is. Points and labels were kept. "
            "Choose a smaller model, the cpu, or crop the image."
        )
    return (
        f"{title} stopped by an error that the program did not expect "
        f"({type(error).__name__}). Points and labels were kept. "
        "Try again; if it comes back, send us the report."
    )


def _report(title: str, error: Exception) -> str:
    """Return what the developers want to know, as text to paste."""
    lines = [f"{title} failed", f"Python {platform.python_version()}, {sys.platform}"]
    for package in _PACKAGES:
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"{package} not installed")
    return "\n".join([*lines, "", *traceback.format_exception(error)])
