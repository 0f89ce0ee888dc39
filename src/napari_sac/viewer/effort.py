"""How long a person has worked on a plane, and in how many steps."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sac.viewer.annotation import Annotation

PAUSE_SECONDS = 60.0
"""Who does nothing for so long is not working: a longer pause counts as this."""


class Effort:
    """Counts the steps of a person, and the time between them.

    Parameters
    ----------
    clock : callable, optional
        Gives the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None

    def count(self, annotation: Annotation, steps: int = 1) -> None:
        """Count what a person just did here, and the time since what was done before.

        Parameters
        ----------
        annotation : Annotation
        steps : int, optional
            0 for looking at something: time passes, and nothing is changed.
        """
        now = self._clock()
        if self._last is not None:
            annotation.worked += min(now - self._last, PAUSE_SECONDS)
        self._last = now
        annotation.steps += steps

    def start(self) -> None:
        """Count from now on: what a person has waited for is no work."""
        self._last = self._clock()
