"""The pixels of a polygon, also of one with many corners around a large area."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from napari_sac.core.types import BoolArray, FloatArray, IntArray

_FEW_CROSSINGS = 1 << 20
"""So many take no time, however small the image."""


def mask_inside(
    ring: FloatArray, shape: tuple[int, ...]
) -> tuple[tuple[int, int], BoolArray]:
    """Return which pixels have their middle in a polygon, by the even-odd rule.

    Row by row between the crossings with its edges: in time with the pixels around it
    and with the rows that its edges cross, not with corners times area as
    ``skimage.draw.polygon``, which for the outline of a whole tissue takes minutes.

    Parameters
    ----------
    ring : (N, 2) float
        Corners (y, x); the middle of the first pixel is (0, 0). Open or closed.
    shape : (int, int)
        Of the image; pixels outside of it are left out.

    Returns
    -------
    (y, x) : tuple of int
        Where the mask begins.
    mask : (h, w) bool
        No larger than the polygon needs; (0, 0) where it has no pixel.

    Raises
    ------
    ValueError
        If it crosses rows more often than any outline along the edges of pixels: so
        many crossings are of no outline, and fill the memory.
    """
    row, column = _crossings(ring, shape)
    if len(row) == 0:
        return (0, 0), np.zeros((0, 0), bool)
    y, x = int(row.min()), int(column.min())
    mask = np.zeros((row.max() - y + 1, column.max() - x + 1), bool)
    np.logical_xor.at(mask, (row - y, column - x), True)
    # a pixel is inside if the line crosses its row an odd number of times to the left
    np.logical_xor.accumulate(mask, axis=1, out=mask)
    # behind the last crossing nothing is
    return (y, x), mask[:, :-1]


def mask_of(rings: Iterable[FloatArray], shape: tuple[int, ...]) -> BoolArray:
    """Return (H, W) which pixels lie in any of the polygons (N, 2)."""
    mask = np.zeros(shape, bool)
    for ring in rings:
        (y, x), inside = mask_inside(ring, shape)
        mask[y : y + inside.shape[0], x : x + inside.shape[1]] |= inside
    return mask


def mostly_inside(labels: IntArray, mask: BoolArray) -> IntArray:
    """Return which labels, ascending, have more than half of their pixels in a mask.

    Parameters
    ----------
    labels : (H, W) int
        0 is no label.
    mask : (H, W) bool
    """
    values, inside = labels.ravel(), mask.ravel()
    # by runs of pixels that are alike, which are far fewer
    begins = np.ones(values.size, bool)
    np.not_equal(values[1:], values[:-1], out=begins[1:])
    begins[1:] |= inside[1:] != inside[:-1]
    first = np.flatnonzero(begins)
    length = np.diff(first, append=values.size)
    which: npt.NDArray[np.generic] = values[first]
    last = int(which.max(initial=0))
    if last <= values.size:
        ids = np.arange(last + 1)
    else:
        # a table of all ids would be larger than the labels; to sort takes longer
        ids, which = np.unique(which, return_inverse=True)
    weight = np.where(inside[first], length, -length)
    more = np.bincount(which, weight, minlength=len(ids))
    return np.asarray(ids[(more > 0) & (ids > 0)])


def _crossings(
    ring: FloatArray, shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the rows where a polygon's edges cross them, and the first pixel behind.

    Those to the left of the image are at its first column, those to the right behind
    its last one.
    """
    if len(ring) < 3:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    corners = np.asarray(ring, np.float64)
    y, x = corners.T
    next_y, next_x = np.roll(corners, -1, axis=0).T
    # an edge crosses the rows from its upper end on, without the lower one
    first = np.clip(np.ceil(np.minimum(y, next_y)), 0, shape[0]).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(y, next_y)), 0, shape[0]).astype(np.int64)
    crossings = int((last - first).sum())
    if crossings > max(_FEW_CROSSINGS, shape[0] * (shape[1] + 1)):
        raise ValueError(f"an outline that crosses rows of pixels {crossings:,} times")
    edge, row = _expand(first, last)
    part = (row - y[edge]) / (next_y - y)[edge]
    crossing = x[edge] + part * (next_x - x)[edge]
    return row, np.clip(np.ceil(crossing), 0, shape[1]).astype(np.int64)


def _expand(
    first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return all numbers from ``first`` up to ``last``, and which pair each is of."""
    counts = last - first
    which = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    return which, np.arange(len(which)) - before[which] + first[which]
