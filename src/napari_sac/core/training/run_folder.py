"""A fine-tuning run as a folder: what it was asked to do, how it goes, what is wished.

The window never trains. It writes a request, starts ``command(folder)``, and looks at
small files; so a run outlives its window, and a window that opens later finds it.
Everything of the run is in the subfolder ``run`` of the adapter's own folder. Nothing
here needs torch.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
import zipfile
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from napari_sac.core.config import FinetuneConfig
from napari_sac.core.errors import OutputError, TrainingDataError, reason_of
from napari_sac.core.io import atomic_path
from napari_sac.core.models.adapter import (
    CONFIG_FILE,
    INFO_FILE,
    LEARNED_FILE,
    WEIGHT_NAMES,
)
from napari_sac.core.training.events import Wish
from napari_sac.core.training.reviewed_file import (
    check_amount,
    check_text,
    describe_image,
    read_images,
    write_images,
)
from napari_sac.core.training.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_sac.core.training.reviewed_image import ReviewedImage

FORMAT = 1
"""Version of the request; a larger one is from a newer program."""

RUN = "run"
"""Subfolder of the run, in the adapter's folder."""

LOG_FILE = "log.txt"
"""Where whoever starts the process sends what it writes, in the subfolder."""

CHECKPOINT, SETTINGS, BEFORE = "checkpoint.pt", "job.json", "before.npz"
"""What is learned so far, what the run was begun with, and what the old weights saw."""

STATUS, CURVE, VALIDATION = "status.json", "curve.csv", "validation.csv"
"""How it goes, and the tables of its losses and of its scores, in the subfolder."""

REPORT, REPORT_PAGE = "report.json", "report.html"
"""What it came to, for programs and for people, beside the subfolder."""

_REQUEST, _DATA, _WISH = "request.json", "data.npz", "wish"
_LOCK, _EXAMPLE = "lock", "example.png"
_MOST_JSON_BYTES = 1 << 22
_PROBE_SECONDS = 0.03
_TRIES = 5
_LOG_END_BYTES = 4000
_LEFT_SECONDS = 3600.0
_TEXTS = ("model", "device", "title", "description", "tissue", "licence")


@dataclass(frozen=True, eq=False)
class RunRequest:
    """What a run is asked to do.

    Parameters
    ----------
    model : str
        Name of the base model.
    adapter : str or None
        Name or folder of the adapter to go on from.
    images : tuple of ReviewedImage
        What to learn from; the run sets a part of it aside.
    config : FinetuneConfig
    device : {"auto", "cpu", "cuda", "mps"}
    title, description, tissue, licence : str
        For the adapter.
    """

    model: str
    adapter: str | None
    images: tuple[ReviewedImage, ...]
    config: FinetuneConfig
    device: str = "auto"
    title: str = ""
    description: str = ""
    tissue: str = ""
    licence: str = ""


class Phase(StrEnum):
    """How far a run is."""

    STARTING = "starting"
    TRAINING = "training"
    PAUSED = "paused"
    COMPARING = "comparing"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True)
class RunStatus:
    """How a run goes, as its process said last.

    A process that was killed says nothing: then the phase is not an end, and
    :func:`is_running` is False.

    Parameters
    ----------
    phase : Phase
    step, steps : int
        Steps done and planned; 0 until they are known.
    seconds_left : float or None
        Until the last step; None until it is known.
    memory_bytes : int
        What the process takes of the device's memory at the moment; 0 if unknown.
    device : str
        In words.
    stage : str
        What is being done beside the steps, with how far it is; often empty.
    notes : tuple of str
        Sentences: what it learns from, the estimate, what was changed to fit.
    message : str
        Of a failed run: what happened, what was kept, what to do.
    report : str
        Of an error that nobody expected: the traceback, to paste.
    promoted : bool or None
        Of a finished run: whether it is better than what it came from.
    pid : int
    """

    phase: Phase
    step: int = 0
    steps: int = 0
    seconds_left: float | None = None
    memory_bytes: int = 0
    device: str = ""
    stage: str = ""
    notes: tuple[str, ...] = ()
    message: str = ""
    report: str = ""
    promoted: bool | None = None
    pid: int = 0


def save_request(folder: Path, request: RunRequest) -> None:
    """Write what a new run is to do. This copies pixels: call it in a worker.

    Raises
    ------
    OutputError
        If there is a run or an adapter in the folder already, or it cannot be written.
    TrainingDataError
        If there are more images than :func:`load_request` would read.
    """
    run = folder / RUN
    if is_begun(folder) or (folder / INFO_FILE).exists():
        raise OutputError(
            f"There is a run in {folder} already, and it was kept. Choose another name."
        )
    check_amount(request.images)
    values = {
        "format": FORMAT,
        "adapter": request.adapter,
        "config": asdict(request.config),
        "images": [describe_image(one) for one in request.images],
    } | {name: getattr(request, name) for name in _TEXTS}
    with atomic_path(run / _DATA) as partial:
        write_images(partial, request.images)
    # the request comes last: with it the run is there, and whole
    with atomic_path(run / _REQUEST) as partial:
        partial.write_text(json.dumps(values, indent=1), encoding="utf-8")


def load_request(folder: Path) -> RunRequest:
    """Return what a run is asked to do. The files are trusted in nothing.

    Raises
    ------
    TrainingDataError
        If they are not there, damaged, or of a newer version.
    """
    run = folder / RUN
    with _reading(folder):
        if (run / _REQUEST).stat().st_size > _MOST_JSON_BYTES:
            raise ValueError("the request is too large")
        values = json.loads((run / _REQUEST).read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError("it is of another version")
        texts = {name: check_text(values[name]) for name in _TEXTS}
        adapter = None if values["adapter"] is None else check_text(values["adapter"])
        config = _config(values["config"])
        images = read_images(run / _DATA, values["images"])
    return RunRequest(adapter=adapter, images=tuple(images), config=config, **texts)


_DAMAGED = (
    # a file is missing, or may not be read
    OSError,
    # text that is no JSON or no UTF-8, and all that is checked here
    ValueError,
    # JSON with values of another kind, without some, with endless numbers
    TypeError,
    LookupError,
    OverflowError,
    # what zipfile raises beside these: RuntimeError for what is encrypted, or packed in
    # a way that it does not know. JSON nested too deep is a RuntimeError too
    zipfile.BadZipFile,
    EOFError,
    RuntimeError,
    # sizes are limited, but not to what this machine has
    MemoryError,
)


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Turn what damaged or hostile files cause into one sentence."""
    try:
        yield
    except _DAMAGED as error:
        reason = reason_of(error)
        raise TrainingDataError(
            f"What the run in {folder} is to learn from cannot be read ({reason}). "
            "Discard the run and begin it again; your annotations are where they were."
        ) from error


def _config(values: object) -> FinetuneConfig:
    if not isinstance(values, dict):
        raise TypeError("the settings are no object")
    for f in fields(FinetuneConfig):
        if f.name not in values:
            continue
        value = values[f.name]
        allowed = (int, float) if type(f.default) is float else (type(f.default),)
        if type(value) not in allowed:
            raise TypeError(f"{f.name} is of another type")
        if not math.isfinite(value):
            raise ValueError(f"{f.name} is no number")
    return FinetuneConfig(**values)


def write_status(folder: Path, status: RunStatus) -> None:
    """Say how the run goes; for the process that runs it.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    _replace(folder / RUN / STATUS, json.dumps(asdict(status)))


def _replace(file: Path, text: str) -> None:
    """Write a small file that others read at any time."""
    with atomic_path(file) as partial:
        partial.write_text(text, encoding="utf-8")


def read_status(folder: Path) -> RunStatus | None:
    """Return how a run goes, or None if it said nothing yet, or is gone."""
    text = _read_small(folder / RUN / STATUS)
    try:
        values = json.loads(text)
        return RunStatus(
            phase=Phase(values["phase"]),
            step=int(values["step"]),
            steps=int(values["steps"]),
            seconds_left=_float_or_none(values["seconds_left"]),
            memory_bytes=int(values["memory_bytes"]),
            device=check_text(values["device"]),
            stage=check_text(values["stage"]),
            notes=tuple(check_text(note) for note in values["notes"]),
            message=check_text(values["message"]),
            report=str(values["report"]),
            promoted=_bool_or_none(values["promoted"]),
            pid=int(values["pid"]),
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _float_or_none(value: Any) -> float | None:
    return None if value is None else float(value)


def _bool_or_none(value: Any) -> bool | None:
    return None if value is None else bool(value)


def _read_small(file: Path) -> str:
    """Return the text of a small file, or nothing."""
    for _ in range(_TRIES):
        try:
            if file.stat().st_size > _MOST_JSON_BYTES:
                return ""
            return file.read_text(encoding="utf-8")
        except PermissionError:
            # Windows, while it is being replaced
            time.sleep(0.002)
        except (OSError, UnicodeDecodeError):
            return ""
    return ""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Be the process that runs it, until the block or the process ends.

    Within a block of the same thread another one is fine.

    Raises
    ------
    OutputError
        If there is no run, another process is that, or nobody could tell.
    """
    if not (folder / RUN).is_dir():
        raise OutputError(f"There is no run in {folder}. Nothing was changed.")
    lock = FileLock(folder / RUN / _LOCK, is_singleton=True)
    try:
        # somebody may be just looking
        lock.acquire(timeout=100 * _PROBE_SECONDS, poll_interval=0.02)
    except Timeout as error:
        raise OutputError(
            f"The run in {folder} is going on in another process already. Nothing was "
            "changed."
        ) from error
    except (OSError, NotImplementedError) as error:
        reason = reason_of(error)
        raise OutputError(
            f"{folder} cannot be locked ({reason}), so two programs could write there "
            "at once. Nothing was trained; choose a folder on another drive."
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_running(folder: Path) -> bool:
    """Return whether a process runs it now; one that was killed does not."""
    file = folder / RUN / _LOCK
    if not file.exists():
        return False
    lock = FileLock(file)
    try:
        lock.acquire(timeout=_PROBE_SECONDS, poll_interval=_PROBE_SECONDS / 3)
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False
    lock.release()
    return False


def ask_for(folder: Path, wish: Wish) -> None:
    """Tell a run what is wanted of it; it looks before each step, and while it pauses.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    _replace(folder / RUN / _WISH, wish.value)


def read_wish(folder: Path) -> Wish:
    """Return what is wanted of a run; to go on, if nobody said anything."""
    try:
        return Wish(_read_small(folder / RUN / _WISH).strip())
    except ValueError:
        return Wish.GO


def read_curve(folder: Path) -> dict[str, list[float]]:
    """Return the columns of the training's curve: step, seconds, rate, loss, ..."""
    return read_table(folder / RUN / CURVE)


def read_validation(folder: Path) -> dict[str, list[float]]:
    """Return the columns of the validations: step, seconds, and the scores."""
    return read_table(folder / RUN / VALIDATION)


def example_path(folder: Path) -> Path:
    """Return where the picture of the last validation is, or will be."""
    return folder / RUN / _EXAMPLE


def log_path(folder: Path) -> Path:
    """Return the file for what the process writes."""
    return folder / RUN / LOG_FILE


def read_log_end(folder: Path) -> str:
    """Return what the process wrote last; empty if nothing can be read."""
    try:
        with log_path(folder).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_END_BYTES))
            return file.read(_LOG_END_BYTES).decode(errors="replace").strip()
    except OSError:
        return ""


def command(folder: Path) -> list[str]:
    """Return the command of the process that runs it, from where it was ended."""
    return [sys.executable, "-m", "napari_sac.core.training.child", str(folder)]


def find_runs(root: Path) -> tuple[Path, ...]:
    """Return the folders in ``root`` with a run that is not finished, by name.

    It may be running, killed or failed: see :func:`is_running` and
    :func:`read_status`.
    """
    try:
        folders = sorted(file.parents[1] for file in root.glob(f"*/{RUN}/{_REQUEST}"))
    except OSError:
        return ()
    return tuple(folder for folder in folders if not _is_over(folder))


def is_begun(folder: Path) -> bool:
    """Return whether there is a run in a folder that can be gone on with."""
    # pathlib raises where one may not look
    return any(os.path.exists(folder / RUN / name) for name in (_REQUEST, CHECKPOINT))


def _is_over(folder: Path) -> bool:
    status = read_status(folder)
    return status is not None and status.phase in (Phase.FINISHED, Phase.CANCELLED)


def sweep_runs(root: Path) -> None:
    """Delete what is left of runs in ``root`` that were cancelled, or never begun.

    Their names would be taken for ever, by nothing that anybody can see.
    """
    try:
        folders = [place.parent for place in root.glob(f"*/{RUN}")]
    except OSError:
        return
    for folder in folders:
        if not (folder / INFO_FILE).exists() and _is_left(folder):
            remove_run(folder)


def _is_left(folder: Path) -> bool:
    status = read_status(folder)
    if status is not None and status.phase is Phase.CANCELLED:
        return not is_running(folder)
    # one of the command line has no request, only settings
    if is_begun(folder) or (folder / RUN / SETTINGS).exists() or is_running(folder):
        return False
    try:
        newest = max(file.stat().st_mtime for file in (folder / RUN).iterdir())
    except (OSError, ValueError):
        return False
    # the request comes last: somebody may be writing the images
    return time.time() - newest > _LEFT_SECONDS


def clear_request(folder: Path) -> None:
    """Delete what only an unfinished run needs: pixels and the wish."""
    for name in (_DATA, _REQUEST, _WISH):
        with suppress(OSError):
            (folder / RUN / name).unlink()


def remove_run(folder: Path) -> None:
    """Delete what a run left, and the folder if nothing else is in it.

    An adapter that is there stays, and so does its report.
    """
    shutil.rmtree(folder / RUN, ignore_errors=True)
    if not (folder / INFO_FILE).exists():
        names = [REPORT, REPORT_PAGE]
        if (folder / LEARNED_FILE).exists():
            # of an adapter that was not written to its end, which begins with this
            names += [CONFIG_FILE, *WEIGHT_NAMES, LEARNED_FILE]
        for name in names:
            with suppress(OSError):
                (folder / name).unlink()
        # a process that was killed could not
        for partial in folder.glob(".*.part"):
            shutil.rmtree(partial, ignore_errors=True)
    with suppress(OSError):
        os.rmdir(folder)
