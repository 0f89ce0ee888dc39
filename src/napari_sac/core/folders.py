"""Folders that are written as a whole: the old one is there until the new one is."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
        replace_folder(partial, target)
    finally:
        # after success it is gone
        shutil.rmtree(partial, ignore_errors=True)


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
    if not target.exists():
        os.rename(partial, target)
        _sync(target.parent)
        return
    before = target.with_name(f"{target.stem} (before){target.suffix}")
    if before.exists():
        # of a kill, and perhaps all that somebody has left
        before = before.with_stem(f"{before.stem} {secrets.token_hex(3)}")
    os.rename(target, before)
    try:
        os.rename(partial, target)
    except OSError:
        os.rename(before, target)
        raise
    _sync(target.parent)
    # hidden before it is deleted: half of a folder must not look like a whole one
    going = target.with_name(f".{secrets.token_hex(6)}.old")
    with suppress(OSError):
        os.rename(before, going)
        shutil.rmtree(going, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make sure that renamings in a folder outlive a loss of power, where one can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    with suppress(OSError):
        # not every file system can
        sync_folder(folder)
