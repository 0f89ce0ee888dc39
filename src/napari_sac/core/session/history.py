"""One stack of steps for all annotations of a viewer: undo and redo, with names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_sac.core.session.changes import add_pixels

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_sac.core.session.changes import Change
    from napari_sac.core.session.pixels import PixelChange

LIMIT = 5000
"""Steps that can be undone."""


@dataclass(frozen=True, eq=False)
class Step:
    """A change of one annotation.

    Parameters
    ----------
    number : int
        1 or larger; never given twice.
    annotation : int
        The annotation's number in the journal.
    change : Change
    """

    number: int
    annotation: int
    change: Change


class History:
    """The steps that can be undone and those that can be done again.

    It holds the steps and applies none: whoever calls :meth:`undo` goes backward by
    the step returned, and after :meth:`redo` forward.

    Parameters
    ----------
    limit : int, optional
        Steps to keep; beyond it the oldest can no longer be undone.
    done, undone : iterable of Step, optional
        Steps of an earlier time, in the order in which they were done.
    next_number : int, optional
        Number of the next step.
    """

    def __init__(
        self,
        limit: int = LIMIT,
        *,
        done: Iterable[Step] = (),
        undone: Iterable[Step] = (),
        next_number: int = 1,
    ) -> None:
        self._limit = limit
        self._done = list(done)[-limit:]
        # the next step to be done again is the last
        self._undone = list(undone)[::-1]
        self._next_number = next_number

    @property
    def done(self) -> tuple[Step, ...]:
        """The steps that can be undone, oldest first."""
        return tuple(self._done)

    @property
    def undone(self) -> tuple[Step, ...]:
        """The steps that can be done again, the next one first."""
        return tuple(reversed(self._undone))

    @property
    def doomed(self) -> tuple[Step, ...]:
        """The steps that the next :meth:`push` forgets."""
        over = max(0, len(self._done) + 1 - self._limit)
        return (*self._done[:over], *self._undone)

    @property
    def undo_title(self) -> str | None:
        """What :meth:`undo` would take back, or None."""
        return self._done[-1].change.title if self._done else None

    @property
    def redo_title(self) -> str | None:
        """What :meth:`redo` would do again, or None."""
        return self._undone[-1].change.title if self._undone else None

    def push(self, annotation: int, change: Change) -> int:
        """Add a step that was just done, and return its number.

        What had been undone can no longer be done again.
        """
        step = Step(self._next_number, annotation, change)
        self._next_number += 1
        self._done.append(step)
        del self._done[: -self._limit]
        self._undone.clear()
        return step.number

    def find(self, number: int) -> Step | None:
        """Return the step of that number if it is done and can be undone."""
        # what is looked for is nearly always one of the last
        for step in reversed(self._done):
            if step.number <= number:
                return step if step.number == number else None
        return None

    def can_amend(self, number: int, pixels: PixelChange) -> bool:
        """Return whether pixels may join a step.

        They may if the step is done, and no later step of the same annotation, done or
        undone, writes one of them: only then do undo and redo stay exact.

        Parameters
        ----------
        number : int
            Of the step.
        pixels : PixelChange
            What would join it.
        """
        step = self.find(number)
        if step is None:
            return False
        later = [s for s in self._undone if s.annotation == step.annotation]
        for other in reversed(self._done):
            if other.number == number:
                break
            if other.annotation == step.annotation:
                later.append(other)
        written = (s.change.pixels for s in later)
        return not any(w is not None and w.meets(pixels) for w in written)

    def amend(self, number: int, pixels: PixelChange) -> None:
        """Let pixels that were written just now be part of an earlier step.

        Raises
        ------
        ValueError
            If :meth:`can_amend` says no; nothing was changed.
        """
        if not self.can_amend(number, pixels):
            raise ValueError(f"step {number} cannot get these pixels")
        for i in range(len(self._done) - 1, -1, -1):
            step = self._done[i]
            if step.number == number:
                change = add_pixels(step.change, pixels)
                self._done[i] = replace(step, change=change)
                return

    def undo(self) -> Step | None:
        """Take the last step from the stack and return it; None if there is none."""
        if not self._done:
            return None
        step = self._done.pop()
        self._undone.append(step)
        return step

    def redo(self) -> Step | None:
        """Put the step undone last back and return it; None if there is none."""
        if not self._undone:
            return None
        step = self._undone.pop()
        self._done.append(step)
        return step
