"""Which pixels of labels changed, as runs: small, and exact both ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from napari_sac.core.types import AnyArray, IntArray

_BLOCK_PIXELS = 1 << 22
_LAST_START = 1 << 62


@dataclass(frozen=True, eq=False)
class PixelChange:
    """Runs of pixels that had one label and got another.

    Parameters
    ----------
    starts : (R,) int64
        First pixel of each run, counted row by row (``y * W + x``); ascending, and no
        run overlaps the next.
    lengths : (R,) int32
        Pixels of each run, at least 1.
    before, after : (R,) uint32
        The label of all its pixels.

    Examples
    --------
    >>> import numpy as np
    >>> before = np.array([[0, 0, 5], [0, 0, 5]], np.uint32)
    >>> after = np.array([[0, 7, 7], [0, 0, 5]], np.uint32)
    >>> change = PixelChange.between(before, after)
    >>> change.starts.tolist(), change.lengths.tolist()
    ([1, 2], [1, 1])
    >>> change.before.tolist(), change.after.tolist()
    ([0, 5], [7, 7])
    """

    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int32]
    before: npt.NDArray[np.uint32]
    after: npt.NDArray[np.uint32]

    def __post_init__(self) -> None:
        n = len(self.starts)
        if any(c.shape != (n,) for c in (self.lengths, self.before, self.after)):
            raise ValueError("the columns of a pixel change are of unequal length")
        if (
            n
            and (
                self.starts[0] < 0
                or self.lengths.min() < 1
                # else the sum with a length could be less than nothing
                or self.starts.max() > _LAST_START
                or (self.starts[1:] < self.ends[:-1]).any()
            )
        ):
            raise ValueError("the runs of a pixel change are not in order")

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def ends(self) -> npt.NDArray[np.int64]:
        """The pixel behind the last one of each run, counted row by row."""
        return self.starts + self.lengths

    def flat(self) -> npt.NDArray[np.int64]:
        """Return every pixel that changed, counted row by row."""
        return _expand(self.starts, self.lengths)

    @classmethod
    def between(
        cls,
        before: AnyArray,
        after: AnyArray,
        origin_yx: tuple[int, int] = (0, 0),
        shape: tuple[int, int] | None = None,
    ) -> PixelChange:
        """Return what differs between two versions of the labels, or of a window.

        Parameters
        ----------
        before, after : (h, w) integer arrays
        origin_yx : (int, int), optional
            Pixel of the labels at which the window begins.
        shape : (int, int), optional
            Height and width of the whole labels; by default those of the window.
        """
        if before.shape != after.shape or before.ndim != 2:
            raise ValueError(f"cannot compare {before.shape} with {after.shape}")
        height, width = before.shape
        (y, x), whole = origin_yx, shape or (height, width)
        if min(y, x) < 0 or y + height > whole[0] or x + width > whole[1]:
            raise ValueError(f"a window {before.shape} at {origin_yx} leaves {whole}")
        rows = max(1, _BLOCK_PIXELS // max(1, width))
        parts = []
        for top in range(0, height, rows):
            old, new = before[top : top + rows], after[top : top + rows]
            at = np.nonzero(old != new)
            flat = (at[0] + (top + y)) * whole[1] + (at[1] + x)
            parts.append(_runs(flat, old[at], new[at]))
        return _join(parts)

    @classmethod
    def of_pixels(
        cls,
        shape: tuple[int, int],
        indices: tuple[IntArray, IntArray],
        before: npt.ArrayLike,
        after: npt.ArrayLike,
    ) -> PixelChange:
        """Return the change of single pixels, in the order in which they were written.

        Parameters
        ----------
        shape : (int, int)
            Height and width of the labels.
        indices : ((N,) int, (N,) int)
            Rows and columns. A pixel may come several times, as in a brush stroke: it
            had what it had the first time, and gets what it gets the last time.
        before, after : (N,) integers, or one for all
        """
        rows, columns = (np.asarray(i, np.int64).ravel() for i in indices)
        if len(rows) and (
            min(rows.min(), columns.min()) < 0
            or rows.max() >= shape[0]
            or columns.max() >= shape[1]
        ):
            raise ValueError(f"pixels outside labels of shape {shape}")
        n = len(rows)
        old = np.broadcast_to(np.asarray(before).astype(np.uint32), n)
        new = np.broadcast_to(np.asarray(after).astype(np.uint32), n)
        return _from_flat(rows * shape[1] + columns, old, new)

    @classmethod
    def none(cls) -> PixelChange:
        """Return the change that changes nothing."""
        empty = np.empty(0, np.int64)
        return _runs(empty, empty, empty)

    def write(self, labels: AnyArray, *, back: bool = False) -> None:
        """Write the new labels, or with ``back`` those from before, into ``labels``.

        Parameters
        ----------
        labels : (H, W) integer array
            Contiguous; changed in place.
        back : bool, optional

        Raises
        ------
        ValueError
            If a run leaves the labels, or they are not contiguous.
        """
        if len(self) == 0:
            return
        if self.ends[-1] > labels.size:
            raise ValueError(f"pixels outside labels of shape {labels.shape}")
        if not labels.flags.c_contiguous:
            raise ValueError("labels must be contiguous")
        flat = labels.reshape(-1)
        values = self.before if back else self.after
        for part in self._blocks():
            lengths = self.lengths[part]
            flat[_expand(self.starts[part], lengths)] = np.repeat(values[part], lengths)

    def box(self, shape: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the box ``(y0, x0, y1, x1)``, half-open, around what changed."""
        if len(self) == 0:
            return (0, 0, 0, 0)
        y0, x0 = np.divmod(self.starts, shape[1])
        y1, x1 = np.divmod(self.ends - 1, shape[1])
        if (y0 != y1).any():
            return (int(y0[0]), 0, int(y1[-1]) + 1, shape[1])
        return (int(y0[0]), int(x0.min()), int(y1[-1]) + 1, int(x1.max()) + 1)

    def meets(self, other: PixelChange) -> bool:
        """Return whether both write a pixel in common."""
        if len(self) == 0 or len(other) == 0:
            return False
        # of the runs of other, the first that ends behind the start of mine
        near = np.searchsorted(other.ends, self.starts, side="right")
        found = near < len(other)
        return bool((other.starts[near[found]] < self.ends[found]).any())

    def then(self, later: PixelChange) -> PixelChange:
        """Return this change and a later one as one."""
        if not self.meets(later):
            order = np.argsort(np.concatenate([self.starts, later.starts]))
            columns = zip(self._columns(), later._columns(), strict=True)
            return PixelChange(*(np.concatenate(pair)[order] for pair in columns))
        both = [
            (c.flat(), *(np.repeat(v, c.lengths) for v in values))
            for c in (self, later)
            for values in [(c.before, c.after)]
        ]
        return _from_flat(*(np.concatenate(pair) for pair in zip(*both, strict=True)))

    def _columns(self) -> tuple[AnyArray, ...]:
        return self.starts, self.lengths, self.before, self.after

    def _blocks(self) -> Iterator[slice]:
        """Return parts of the runs that together have few enough pixels."""
        pixels = np.cumsum(self.lengths, dtype=np.int64)
        start = 0
        while start < len(self):
            done = pixels[start - 1] if start else 0
            end = int(np.searchsorted(pixels, done + _BLOCK_PIXELS, side="right"))
            end = max(end, start + 1)
            yield slice(start, end)
            start = end


def _expand(starts: IntArray, lengths: IntArray) -> npt.NDArray[np.int64]:
    """Return every pixel of the runs."""
    first = np.cumsum(lengths, dtype=np.int64) - lengths
    pixels = np.arange(int(lengths.sum(dtype=np.int64)))
    return np.asarray(pixels + np.repeat(starts - first, lengths), np.int64)


def _from_flat(flat: IntArray, before: AnyArray, after: AnyArray) -> PixelChange:
    """Return the runs of pixels in the order in which they were written."""
    order = np.argsort(flat, kind="stable")
    flat, before, after = flat[order], before[order], after[order]
    first = np.flatnonzero(np.diff(flat, prepend=-1))
    last = np.flatnonzero(np.diff(flat, append=-1))
    flat, before, after = flat[first], before[first], after[last]
    changed = before != after
    return _runs(flat[changed], before[changed], after[changed])


def _runs(flat: IntArray, before: AnyArray, after: AnyArray) -> PixelChange:
    """Return the runs of pixels in ascending order, each once."""
    begins = np.ones(len(flat), bool)
    begins[1:] = (
        (np.diff(flat) != 1) | (before[1:] != before[:-1]) | (after[1:] != after[:-1])
    )
    at = np.flatnonzero(begins)
    return PixelChange(
        flat[at].astype(np.int64),
        np.diff(at, append=len(flat)).astype(np.int32),
        before[at].astype(np.uint32),
        after[at].astype(np.uint32),
    )


def _join(parts: list[PixelChange]) -> PixelChange:
    if not parts:
        return PixelChange.none()
    columns = zip(*(p._columns() for p in parts), strict=True)
    return PixelChange(*(np.concatenate(c) for c in columns))
