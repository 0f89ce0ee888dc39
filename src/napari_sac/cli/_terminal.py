"""What commands write to the terminal for who looks on: all of it to stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
