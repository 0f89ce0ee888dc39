"""How core tells its caller how far it is, and how the caller stops it."""

import time
from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)`` from the thread that does the work.

``stage`` is a short phrase for the user ("finding nuclei"), ``done`` counts up to
``total``. A callback stops the work by raising
:class:`~napari_sac.core.errors.Cancelled`.
"""


def ignore_progress(stage: str, done: int, total: int) -> None:
    """Do nothing: the default of every ``progress`` parameter."""


class Stopwatch:
    """How long each stage took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Note the time since the last stage as that of this one."""
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now


def format_bytes(count: int) -> str:
    """Return a number of bytes in GB or MB, for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def count(number: int, one: str, many: str | None = None) -> str:
    """Return a number of things: "2 images"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
