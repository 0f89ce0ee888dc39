"""Looks at the small files of a run, and says when something is new."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_sac.core.training.events import Wish
from napari_sac.core.training.run_folder import (
    CURVE,
    RUN,
    STATUS,
    VALIDATION,
    Phase,
    RunStatus,
    ask_for,
    command,
    example_path,
    is_running,
    log_path,
    read_curve,
    read_log_end,
    read_status,
    read_validation,
    read_wish,
)
from napari_sac.widgets._worker import start_program

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

_POLL_MILLISECONDS = 300
# to ask who holds a lock takes as long as a frame
_POLLS_TO_A_LOCK = 10
_ENDED = (Phase.CANCELLED, Phase.FAILED)


class RunStage(Enum):
    """What a dock can do about a run."""

    GOING = "going"
    LOST = "lost"
    FAILED = "failed"
    CANCELLED = "cancelled"
    FINISHED = "finished"


@dataclass(frozen=True)
class Curves:
    """What was learned so far; columns of the tables that the run writes."""

    loss: dict[str, list[float]]
    scores: dict[str, list[float]]


class RunWatch(QObject):
    """Watches one run, starts it again, and tells it what is wished.

    Parameters
    ----------
    parent : QObject

    Attributes
    ----------
    changed : Signal
        ``status`` or ``stage`` is another one.
    curves_changed : Signal(object)
        There are new :class:`Curves`.
    example_changed : Signal(object)
        Path of a picture that was drawn anew.
    """

    changed = Signal()
    curves_changed = Signal(object)
    example_changed = Signal(object)

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.folder: Path | None = None
        self.status: RunStatus | None = None
        self.stage = RunStage.GOING
        self.wish = Wish.GO
        self._process: subprocess.Popen[bytes] | None = None
        self._running = False
        self._polls = 0
        self._seen: dict[str, tuple[int, int]] = {}
        self._timer = QTimer(self)
        self._timer.setInterval(_POLL_MILLISECONDS)
        self._timer.timeout.connect(self.poll)

    @property
    def is_going(self) -> bool:
        """Whether a run is watched that has not come to an end."""
        return self.folder is not None and self.stage is RunStage.GOING

    def start(self, folder: Path) -> None:
        """Start the process of a run, from where it was ended, and watch it.

        Raises
        ------
        OutputError
            If it cannot be started; what it had learned is kept.
        """
        ask_for(folder, Wish.GO)
        self._watch(folder, start_program(command(folder), log_path(folder)))

    def watch(self, folder: Path) -> None:
        """Look at a run from now on."""
        self._watch(folder, None)

    def _watch(self, folder: Path, process: subprocess.Popen[bytes] | None) -> None:
        self.leave()
        self.folder, self._process = folder, process
        self.wish = read_wish(folder)
        self._timer.start()
        self.poll()
        if self.folder is not None:
            self.changed.emit()

    def leave(self) -> None:
        """Look at no run; it goes on by itself."""
        self._timer.stop()
        self.folder = self.status = self._process = None
        self.stage, self.wish = RunStage.GOING, Wish.GO
        self._polls, self._seen = 0, {}

    def ask(self, wish: Wish) -> None:
        """Tell the run what is wished.

        Raises
        ------
        OutputError
            If it cannot be told.
        """
        if self.folder is not None:
            ask_for(self.folder, wish)
            self.wish = wish
            self.changed.emit()

    def poll(self) -> None:
        """Look whether something is new."""
        folder = self.folder
        if folder is None:
            return
        # first the process, then what it said last
        running = self._is_running(folder)
        status = self.status
        if self._is_new(folder / RUN / STATUS) or not running:
            status = read_status(folder)
        if running and status is not None and status.phase in _ENDED:
            # said by the process before this one
            status = None
        stage = self._find_stage(folder, status, running)
        if stage is RunStage.LOST:
            # it did not come to say why: what it printed may tell
            known = status or RunStatus(Phase.STARTING)
            status = replace(known, report=read_log_end(folder))
        before = self.status, self.stage
        self.status, self.stage = status, stage
        if stage is not RunStage.GOING:
            self._timer.stop()
        self._look_at_results(folder)
        if (status, stage) != before:
            self.changed.emit()

    def _look_at_results(self, folder: Path) -> None:
        news = [self._is_new(folder / RUN / name) for name in (CURVE, VALIDATION)]
        if any(news):
            curves = Curves(read_curve(folder), read_validation(folder))
            self.curves_changed.emit(curves)
        example = example_path(folder)
        if self._is_new(example):
            self.example_changed.emit(example)

    def _is_running(self, folder: Path) -> bool:
        if self._process is not None:
            if self._process.poll() is None:
                return True
            # so somebody else may have started it again meanwhile
            self._process = None
            self._polls = 0
        if self._polls % _POLLS_TO_A_LOCK == 0:
            self._running = is_running(folder)
        self._polls += 1
        return self._running

    def _find_stage(
        self, folder: Path, status: RunStatus | None, running: bool
    ) -> RunStage:
        if status is not None and status.phase is Phase.FINISHED:
            return RunStage.FINISHED
        if running:
            return RunStage.GOING
        if not (folder / RUN).is_dir() or self.wish is Wish.CANCEL:
            return RunStage.CANCELLED
        if status is not None and status.phase is Phase.CANCELLED:
            return RunStage.CANCELLED
        if status is not None and status.phase is Phase.FAILED:
            return RunStage.FAILED
        return RunStage.LOST

    def _is_new(self, file: Path) -> bool:
        """Return whether a file was written since it was looked at last."""
        try:
            found = file.stat()
        except OSError:
            return False
        stamp = (found.st_mtime_ns, found.st_size)
        if self._seen.get(file.name) == stamp:
            return False
        self._seen[file.name] = stamp
        return True
