"""Folders that are written as a whole: the old one is there until the new one is.

So are files that belong together. And what tells a file from another.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from napari_sac.core.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from filelock import FileLock

_LOCK = re.compile(r"\.[0-9a-f]{12}\.lock")
_LEFT_SECONDS = 3600
_TRIES = 50


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside ``target`` to write to; it takes that place on success.

    Missing folders around it are made. On failure it is removed, and what was at
    ``target`` is kept.

    Raises
    ------
    OSError
        If the folder cannot be made or put there.
    """
    partial = target.with_name(f".{secrets.token_hex(6)}.part")
    try:
        partial.mkdir(parents=True)
        yield partial
        # what was there before goes, and must not be all that a loss of power left
        _sync_below(partial)
        replace_folder(partial, target)
    finally:
        # after success it is gone
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def files_together(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield a folder to write files to that belong together, also folders.

    When all are written they replace those of ``folder``, one after the other. A lock
    beside it says that somebody writes there; see :func:`remove_left_over`.

    Parameters
    ----------
    folder : Path
        Made if need be.
    names : sequence of str
        What is written, in the order in which it is put there.

    Raises
    ------
    OutputError
        For any ``OSError`` in the block or in the renaming, also one that an
        ``OutputError`` tells of; it says which files are new. Another ``OutputError``
        of the block is raised as it is.
    """
    name = f".{secrets.token_hex(6)}"
    partial, lock = folder / f"{name}.part", _lock_of(folder / f"{name}.lock")
    new: list[str] = []
    before: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # where a drive has no locks, nobody takes it for left over either
        with suppress(OSError, NotImplementedError):
            lock.acquire(timeout=1)
        partial.mkdir()
        yield partial
        for name in names:
            written = partial / name
            if written.is_dir():
                # deleted later: it takes long, and the rest would be of another making
                old = _swap(written, folder / name)
                if old is not None:
                    before.append(old)
            else:
                rename(written, folder / name)
            new.append(name)
    except (OSError, OutputError) as error:
        # the path that an error of ours names is the partial one's
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        reason = cause.strerror or cause
        kept = "Nothing there was changed"
        if new:
            kept = f"New there: {', '.join(new)}; the others are as they were"
        raise OutputError(
            f"{', '.join(names)} could not be written to {folder} ({reason}). {kept}; "
            "choose a folder that you may write to and that has space left."
        ) from error
    finally:
        for old in before:
            _delete(old)
        shutil.rmtree(partial, ignore_errors=True)
        _unlock(lock)


def remove_left_over(folder: Path) -> None:
    """Remove what killed programs have not finished of :func:`files_together`.

    What another one is writing there just now is locked, and stays; so does all of the
    last hour, for locks need not hold between computers that share a drive. So does
    what has no lock beside it: of programs before there were locks, on drives without
    them, and a folder that was replaced and not deleted yet.
    """
    with suppress(OSError):
        for file in folder.iterdir():
            if not _LOCK.fullmatch(file.name):
                continue
            lock = _lock_of(file)
            # a timeout is an OSError too
            with suppress(OSError, NotImplementedError):
                if time.time() - file.stat().st_mtime < _LEFT_SECONDS:
                    continue
                lock.acquire(timeout=0)
                shutil.rmtree(file.with_suffix(".part"), ignore_errors=True)
                _unlock(lock)


def _lock_of(file: Path) -> FileLock:
    # imported late: it takes long, which looking at the flags need not
    from filelock import FileLock

    return FileLock(file)


def _unlock(lock: FileLock) -> None:
    lock.release()
    with suppress(OSError):
        Path(lock.lock_file).unlink(missing_ok=True)


def identity_of(path: Path) -> tuple[int, int] | None:
    """Return what tells a file or folder from others, None where nothing can be seen.

    Its path does not: links and systems that do not tell a from A give it several.
    """
    try:
        about = os.stat(path)
    except OSError:
        return None
    return about.st_dev, about.st_ino


def rename(source: Path, target: Path) -> None:
    """Rename a file or a folder; a file that has the name already is replaced.

    Windows refuses it while somebody has the file open, such as a virus scanner that
    looks at what is new: there it is tried for half a second.

    Raises
    ------
    OSError
        If it cannot be done.
    """
    for left in reversed(range(_TRIES)):
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if os.name != "nt" or not left:
                raise
            time.sleep(0.01)


def replace_folder(partial: Path, target: Path) -> None:
    """Put a folder that is whole in the place of another one, or where nothing is.

    A system renames one thing at a time. If the program is killed between two
    renamings, what was there before lies beside it as ``NAME (before).ENDING``, under
    a name that people see; a failure puts it back.

    Parameters
    ----------
    partial : Path
        The new folder, beside ``target``; it has that name afterwards.
    target : Path

    Raises
    ------
    OSError
        If it cannot be done; both are as they were.
    """
    old = _swap(partial, target)
    if old is not None:
        _delete(old)


def _swap(partial: Path, target: Path) -> Path | None:
    """Put a folder in the place of another one; return where that is now, if any."""
    if not target.exists():
        rename(partial, target)
        sync_folder(target.parent)
        return None
    before = target.with_name(f"{target.stem} (before){target.suffix}")
    if before.exists():
        # of a kill, and perhaps all that somebody has left
        before = before.with_stem(f"{before.stem} {secrets.token_hex(3)}")
    rename(target, before)
    try:
        rename(partial, target)
    except OSError:
        rename(before, target)
        raise
    sync_folder(target.parent)
    return before


def _delete(folder: Path) -> None:
    # hidden first: half of a folder must not look like a whole one
    going = folder.with_name(f".{secrets.token_hex(6)}.old")
    with suppress(OSError):
        rename(folder, going)
        shutil.rmtree(going, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make sure that renamings in a folder outlive a loss of power, where one can."""
    if os.name == "nt":
        return
    # not every file system can
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sync_below(folder: Path) -> None:
    """Make sure that all that is in a folder outlives a loss of power."""
    for path, _, names in os.walk(folder):
        for name in names:
            # a copy of what nobody may write to cannot be opened for it
            with (
                suppress(PermissionError),
                open(os.path.join(path, name), "rb+") as file,
            ):
                os.fsync(file.fileno())
        sync_folder(Path(path))
