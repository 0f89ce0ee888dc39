"""The process that fine-tunes: ``python -m napari_sac.core.training.child FOLDER``.

It does what the request in the folder says, from where it was ended last, and writes
how it goes into the same folder. It needs no window, and no window needs it.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from napari_sac.core.device import select_device
from napari_sac.core.errors import Cancelled, NapariSacError, OutputError
from napari_sac.core.io import atomic_path
from napari_sac.core.models.adapter import INFO_FILE, find_adapter
from napari_sac.core.training.events import (
    Began,
    Comparing,
    Stepped,
    Told,
    Validated,
    Wish,
    Working,
)
from napari_sac.core.training.lineage import learned_by
from napari_sac.core.training.run_folder import (
    Phase,
    RunStatus,
    clear_request,
    example_path,
    hold,
    load_request,
    read_status,
    read_wish,
    remove_run,
    write_status,
)
from napari_sac.core.training.training_set import split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sac.core.device import Device
    from napari_sac.core.training.events import Event
    from napari_sac.core.training.run import Outcome
    from napari_sac.core.training.run_folder import RunRequest

_NICENESS = 10
_STATUS_SECONDS = 0.5
_LONGEST_TEXT = 9000


class _Reporter:
    """Keeps the run's status up to date, and passes on what is wished."""

    def __init__(self, folder: Path, before: RunStatus | None) -> None:
        self._folder = folder
        self._device: Device | None = None
        self._written = 0.0
        self._status = RunStatus(Phase.STARTING, pid=os.getpid())
        if before is not None:
            self._status = replace(self._status, step=before.step, steps=before.steps)
        self.write()

    def begin_on(self, device: Device) -> None:
        """Note where it computes."""
        self._device = device
        self.write(device=device.title)

    def write(self, **changes: Any) -> None:
        """Change the status, and write it."""
        memory = 0 if self._device is None else _memory_in_use(self._device)
        self._status = replace(self._status, memory_bytes=memory, **changes)
        write_status(self._folder, self._status)
        self._written = time.monotonic()

    def _write_now_and_then(self, **changes: Any) -> None:
        if time.monotonic() - self._written <= _STATUS_SECONDS:
            self._status = replace(self._status, **changes)
            return
        self._tell(**changes)

    def _tell(self, **changes: Any) -> None:
        # a training does not end because nobody can be told how far it is
        with suppress(OutputError):
            self.write(**changes)

    def listen(self, event: Event) -> None:
        """Write what happens, for whoever looks at the folder."""
        match event:
            case Told(text):
                sys.stdout.write(f"{text}\n")
                sys.stdout.flush()
                self._tell(notes=(*self._status.notes, text[:_LONGEST_TEXT]))
            case Working(stage, done, total):
                # of a download they are bytes
                part = f": {done / total:.0%}" if total else ""
                self._write_now_and_then(stage=f"{stage}{part}")
            case Began(step, steps):
                self._tell(phase=Phase.TRAINING, step=step, steps=steps, stage="")
            case Stepped(step, steps):
                left = event.seconds_left
                self._write_now_and_then(
                    step=step, steps=steps, seconds_left=left, stage=""
                )
            case Validated():
                self._draw(event)
                self._tell(step=event.step, stage="")
            case Comparing():
                self._tell(phase=Phase.COMPARING, seconds_left=None, stage="")

    def ask(self) -> Wish:
        """Return what is wished, and say so if a training pauses or goes on."""
        wish = read_wish(self._folder)
        waits = wish is Wish.PAUSE
        if self._status.phase is Phase.TRAINING and waits:
            self._tell(phase=Phase.PAUSED)
        elif self._status.phase is Phase.PAUSED and not waits:
            self._tell(phase=Phase.TRAINING)
        return wish

    def _draw(self, event: Validated) -> None:
        from PIL import Image

        from napari_sac.core.training.report import draw_example

        picture = Image.fromarray(draw_example(event.image, event.labels, event.truth))
        with (
            suppress(OutputError),
            atomic_path(example_path(self._folder)) as partial,
        ):
            picture.save(partial, format="PNG")


def _memory_in_use(device: Device) -> int:
    """Return the bytes that this process takes of the device's memory."""
    import torch

    if device.name == "cuda":
        return torch.cuda.memory_reserved()
    if device.name == "mps":
        return torch.mps.driver_allocated_memory()
    return int(psutil.Process().memory_info().rss)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the folder asks for.

    Returns
    -------
    int
        0 if it finished or was cancelled; 1 if it failed, which the status explains,
        or if another process runs it.
    """
    (place,) = sys.argv[1:] if arguments is None else arguments
    folder = Path(place)
    _step_back()
    try:
        with hold(folder):
            phase = _run(folder)
    except NapariSacError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if phase is Phase.CANCELLED:
        # not while it is held: Windows deletes no file that is open, as our log is
        if sys.platform == "win32":
            _stop_logging()
        remove_run(folder)
    return int(phase is Phase.FAILED)


def _stop_logging() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def _step_back() -> None:
    """Let other programs go first, above all the window."""
    lower = getattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS", _NICENESS)
    with suppress(psutil.Error, OSError):
        psutil.Process().nice(lower)


def _run(folder: Path) -> Phase:
    """Do it, and write how it ended; return that."""
    before = read_status(folder)
    whole = (folder / INFO_FILE).is_file()
    if whole and before is not None and before.phase is Phase.FINISHED:
        return before.phase
    reporter = _Reporter(folder, before)
    try:
        outcome = _finetune(folder, load_request(folder), reporter)
    except Cancelled:
        reporter.write(phase=Phase.CANCELLED)
        return Phase.CANCELLED
    except NapariSacError as error:
        sys.stderr.write(f"{error}\n")
        reporter.write(phase=Phase.FAILED, message=str(error)[:_LONGEST_TEXT], stage="")
        return Phase.FAILED
    except Exception as error:  # noqa: BLE001
        # a bug, or a GPU out of memory: else the window would learn nothing but that
        # this process is gone
        report = traceback.format_exc()
        sys.stderr.write(report)
        reporter.write(
            phase=Phase.FAILED,
            message=f"The training ended with an error that nobody expected ({error}). "
            "What was learned up to the last checkpoint is kept: you can go on with "
            "it, or press Discard."[:_LONGEST_TEXT],
            report=report[-_LONGEST_TEXT:],
            stage="",
        )
        return Phase.FAILED
    promoted = bool(outcome.report["promoted"])
    reporter.write(phase=Phase.FINISHED, promoted=promoted, stage="")
    clear_request(folder)
    return Phase.FINISHED


def _finetune(folder: Path, request: RunRequest, reporter: _Reporter) -> Outcome:
    from napari_sac.core.training.fine_tuning import finetune
    from napari_sac.core.training.run import Job
    from napari_sac.core.training.team import Team

    device = select_device(request.device)
    reporter.begin_on(device)
    parent = None if request.adapter is None else find_adapter(request.adapter)
    job = Job(
        model=request.model,
        adapter=request.adapter,
        data=split(request.images, learned_by(parent).nuclei),
        output=folder,
        config=request.config,
        title=request.title,
        description=request.description,
        tissue=request.tissue,
        licence=request.licence,
    )
    return finetune(
        job, Team(device), resume=True, listen=reporter.listen, ask=reporter.ask
    )


if __name__ == "__main__":
    sys.exit(main())
