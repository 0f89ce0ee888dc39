"""What commands have in common: lines for who looks on, a folder to fill."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from napari_sac.core.errors import ChannelsNotChosenError, OutputError

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sac.core.progress import Progress

_CLEAR = "\x1b[K"


def say(line: str) -> None:
    """Write a line, over the progress that is shown there."""
    clear = _CLEAR if sys.stderr.isatty() else ""
    sys.stderr.write(f"{line}{clear}\n")


def progress_line(heading: str = "") -> Progress:
    """Return a callback that shows the stage in place, where a person is looking."""
    before = f"{heading}: " if heading else ""

    def show(stage: str, done: int, total: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{before}{stage} {done}/{total}{_CLEAR}\r")
            sys.stderr.flush()

    return show


def describe_error(error: Exception) -> str:
    """Return what an error says, with the flag that mends it if there is one."""
    if isinstance(error, ChannelsNotChosenError):
        return f"{error} The flag for it is --channels N[,N]."
    return str(error)


def make_folder(folder: Path) -> None:
    """Make the folder for results, before there are any.

    Raises
    ------
    OutputError
        If it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The folder {folder} cannot be made ({error.strerror}). Nothing was "
            "written; choose another --output."
        ) from error
    if not os.access(folder, os.W_OK):
        raise OutputError(
            f"The folder {folder} cannot be written to. Choose another --output."
        )
