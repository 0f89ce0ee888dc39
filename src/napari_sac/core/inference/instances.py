"""Put the masks of single nuclei together into instance labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sac.core.types import (
    POSITIVE,
    BoolArray,
    ObjectMask,
    Prompts,
    PromptState,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from napari_sac.core.config import DecodeConfig

_HOLE_LOGIT = 1e-6

_COVERED_WEIGHT = 0.8
"""How much the covered part of a mask counts beside IoU: a little of a nucleus that
looks out from under a better mask does not save it."""

_PLACED = (PromptState.ADDED, PromptState.MOVED)
_DECIDED = (PromptState.ACCEPTED, *_PLACED)


def assemble_labels(
    masks: Iterable[ObjectMask],
    shape: tuple[int, int],
    config: DecodeConfig,
    *,
    prompts: Prompts,
    painted: Collection[int] = frozenset(),
    labels: npt.NDArray[np.uint32] | None = None,
) -> npt.NDArray[np.uint32]:
    """Return instance labels in which each pixel belongs to the mask surest of it.

    Masks that the model itself thinks poor, and duplicates of a better one, are left
    out, unless a person set or accepted their prompt.

    Parameters
    ----------
    masks : iterable of ObjectMask
    shape : (int, int)
        Height and width of the image.
    config : DecodeConfig
    prompts : Prompts
        What the masks were decoded from.
    painted : collection of int, optional
        Nuclei drawn by hand: their masks do not count, and their pixels in ``labels``
        are kept. A mask that lies mostly under them is a duplicate.
    labels : (H, W) uint32, optional
        Where the painted nuclei are; not written to.

    Returns
    -------
    (H, W) uint32
        0 background, otherwise the ``object_id``.
    """
    decided = decided_objects(prompts)
    result = np.zeros(shape, np.uint32)
    if painted and labels is not None:
        result = painted_pixels(labels, painted)
    placed = placed_objects(prompts)
    candidates = rank_masks(masks, config, decided, placed, painted, result)
    compete(result, drop_duplicates(candidates, config, decided))
    return result


def decided_objects(prompts: Prompts) -> set[int]:
    """Return the ids of nuclei that a person accepted, added or moved."""
    rows = np.isin(prompts.state, [state.value for state in _DECIDED])
    return set(prompts.object_id[rows].tolist())


def placed_objects(prompts: Prompts) -> set[int]:
    """Return the ids of nuclei with a positive that a person added or moved."""
    rows = np.isin(prompts.state, [state.value for state in _PLACED])
    rows &= prompts.sign == POSITIVE
    return set(prompts.object_id[rows].tolist())


def painted_pixels(
    labels: npt.NDArray[np.uint32], painted: Collection[int]
) -> npt.NDArray[np.uint32]:
    """Return a copy of labels of any shape in which only the painted nuclei are."""
    result = labels.copy()
    result[~np.isin(labels, list(painted))] = 0
    return result


def compete(
    labels: npt.NDArray[np.uint32],
    masks: Iterable[ObjectMask],
    origin_yx: tuple[int, int] = (0, 0),
) -> None:
    """Give each pixel that is 0 to the mask surest of it, in place.

    Parameters
    ----------
    labels : (h, w) uint32
        What is not 0 at the start stays.
    masks : iterable of ObjectMask
        Best first: of two equally sure, the earlier gets the pixel.
    origin_yx : (int, int)
        Pixel of the image at ``labels[0, 0]``.
    """
    best = np.where(labels == 0, np.float32(0), np.float32(np.inf))
    for mask in masks:
        there, part = _meeting(mask, origin_yx, labels.shape)
        # a filled hole is the mask's own, unless another mask claims it at all
        logits = np.where(inside(mask), np.maximum(mask.logits, _HOLE_LOGIT), 0)[part]
        wins = logits > best[there]
        labels[there][wins] = mask.object_id
        best[there][wins] = logits[wins]


def rank_masks(
    masks: Iterable[ObjectMask],
    config: DecodeConfig,
    decided: Collection[int],
    placed: Collection[int],
    painted: Collection[int],
    pixels: npt.NDArray[np.uint32],
    origin_yx: tuple[int, int] = (0, 0),
) -> list[ObjectMask]:
    """Return the masks that are not empty, not poor and not painted over, best first.

    Parameters
    ----------
    masks : iterable of ObjectMask
    config : DecodeConfig
    decided : collection of int
        Nuclei that a person set or accepted: never poor.
    placed : collection of int
        Nuclei that a person set: before all others. To accept one must not: it would
        take away a neighbour that was seen beside it.
    painted : collection of int
        Nuclei drawn by hand: they have no mask.
    pixels : (h, w) uint32
        Labels with the painted nuclei alone; it must reach over all of each mask.
    origin_yx : (int, int)
        Pixel of the image at ``pixels[0, 0]``.
    """
    candidates = [
        m
        for m in masks
        if m.object_id not in painted
        and (m.object_id in decided or m.predicted_iou >= config.minimum_iou)
        and (m.logits > 0).any()
    ]
    if painted:
        candidates = [
            m
            for m in candidates
            if m.object_id in decided
            or _COVERED_WEIGHT * _covered(m, pixels, origin_yx)
            <= config.overlap_threshold
        ]
    candidates.sort(
        key=lambda m: (m.object_id in placed, m.predicted_iou, -m.object_id),
        reverse=True,
    )
    return candidates


def drop_duplicates(
    ranked: Sequence[ObjectMask], config: DecodeConfig, decided: Collection[int]
) -> list[ObjectMask]:
    """Return the masks, best first, without those that a better one covers."""
    dropped: set[int] = set()
    for first, second in _overlapping_pairs(ranked):
        if first in dropped or second in dropped or ranked[second].object_id in decided:
            continue
        if overlap(ranked[first], ranked[second]) > config.overlap_threshold:
            dropped.add(second)
    return [m for i, m in enumerate(ranked) if i not in dropped]


def inside(mask: ObjectMask) -> BoolArray:
    """Return the mask in its crop: the largest connected part, holes filled."""
    positive = mask.logits > 0
    parts, count = ndimage.label(positive)
    if count > 1:
        positive = parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1
    return np.asarray(ndimage.binary_fill_holes(positive))


def _meeting(
    mask: ObjectMask, origin_yx: tuple[int, int], shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return where a mask lies in a window of the image, and which part of it."""
    there, part = [], []
    for start, length, origin, size in zip(
        mask.origin_yx, mask.logits.shape, origin_yx, shape, strict=True
    ):
        first = min(max(start, origin), start + length)
        last = max(min(start + length, origin + size), first)
        there.append(slice(first - origin, last - origin))
        part.append(slice(first - start, last - start))
    return (there[0], there[1]), (part[0], part[1])


def _covered(
    mask: ObjectMask, pixels: npt.NDArray[np.uint32], origin_yx: tuple[int, int]
) -> float:
    """Return how much of a mask lies where ``pixels`` are not 0."""
    there, part = _meeting(mask, origin_yx, pixels.shape)
    positive = mask.logits > 0
    return float((positive[part] & (pixels[there] != 0)).sum() / positive.sum())


def _overlapping_pairs(masks: Sequence[ObjectMask]) -> Iterator[tuple[int, int]]:
    """Return (i, j), i < j, of masks whose boxes overlap, in order of i, then j."""
    if not masks:
        return
    origins = np.array([m.origin_yx for m in masks])
    sizes = np.array([m.logits.shape for m in masks])
    ends = origins + sizes
    by_top = np.argsort(origins[:, 0])
    tops = origins[by_top, 0]
    first = np.searchsorted(tops, origins[:, 0] - sizes[:, 0].max())
    last = np.searchsorted(tops, ends[:, 0])
    for i in range(len(masks)):
        near = by_top[first[i] : last[i]]
        near = np.sort(near[near > i])
        meets = (origins[near] < ends[i]) & (ends[near] > origins[i])
        for j in near[meets.all(1)]:
            yield i, int(j)


def overlap(a: ObjectMask, b: ObjectMask) -> float:
    """Return the IoU of two masks, or the weighted covered part of the second.

    The larger of the two counts: a mask inside a better one is a duplicate too.
    """
    top, left = np.maximum(a.origin_yx, b.origin_yx)
    bottom, right = np.minimum(
        np.add(a.origin_yx, a.logits.shape), np.add(b.origin_yx, b.logits.shape)
    )
    if bottom <= top or right <= left:
        return 0.0
    cut_a, cut_b = (
        m.logits[
            top - m.origin_yx[0] : bottom - m.origin_yx[0],
            left - m.origin_yx[1] : right - m.origin_yx[1],
        ]
        > 0
        for m in (a, b)
    )
    shared = float((cut_a & cut_b).sum())
    if shared == 0:
        return 0.0
    area_a, area_b = float((a.logits > 0).sum()), float((b.logits > 0).sum())
    return max(shared / (area_a + area_b - shared), _COVERED_WEIGHT * shared / area_b)
