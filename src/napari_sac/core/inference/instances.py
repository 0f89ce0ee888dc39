"""Put the masks of single nuclei together into instance labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sac.core.types import (
    POSITIVE,
    BoolArray,
    IntArray,
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


def assemble_labels(
    masks: Iterable[ObjectMask],
    shape: tuple[int, int],
    config: DecodeConfig,
    *,
    prompts: Prompts,
    painted: Collection[int] = frozenset(),
    labels: npt.NDArray[np.uint32] | None = None,
    stale: Collection[int] = frozenset(),
) -> npt.NDArray[np.uint32]:
    """Return instance labels in which each pixel belongs to the mask surest of it.

    Masks that the model itself thinks poor, and duplicates of a better one, are left
    out, unless a person set or accepted their prompt. A nucleus that a person has
    accepted keeps the pixels that it has, and gets no others; where it has none it
    gets those that lie nearer to its point than to their owner's.

    To assemble again with what was returned, and the same masks and prompts, changes
    nothing.

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
        Where the painted and the accepted nuclei are; not written to.
    stale : collection of int, optional
        Nuclei whose points have changed since ``labels`` was drawn: accepted or not,
        they are drawn again.

    Returns
    -------
    (H, W) uint32
        0 background, otherwise the ``object_id``.
    """
    decided = decided_objects(prompts)
    before = np.zeros(shape, np.uint32) if labels is None else labels
    kept = protected_objects(prompts, before) - set(stale)
    kept -= set(painted)
    result = only_pixels_of(before, {*painted, *kept})
    kept &= set(np.unique(result[result != 0]).tolist())
    candidates = rank_masks(
        masks,
        config,
        decided,
        placed_objects(prompts),
        painted,
        only_pixels_of(before, painted),
    )
    shown = drop_duplicates(candidates, config, decided)
    free = [m for m in shown if m.object_id not in kept]
    compete(result, free)
    show_unseen(result, free, prompts)
    return result


def decided_objects(prompts: Prompts) -> set[int]:
    """Return the ids of nuclei that a person accepted, added or moved."""
    rows = prompts.placed | (prompts.state == PromptState.ACCEPTED.value)
    return set(prompts.object_id[rows].tolist())


def rejected_objects(prompts: Prompts) -> IntArray:
    """Return the ids of nuclei whose positives were all rejected."""
    rejected = prompts.rejected & (prompts.sign == POSITIVE)
    return np.setdiff1d(prompts.object_id[rejected], prompts.object_id[prompts.usable])


def placed_objects(prompts: Prompts) -> set[int]:
    """Return the ids of nuclei with a positive that a person added or moved."""
    return set(placed_positives(prompts).object_id.tolist())


def accepted_objects(prompts: Prompts) -> set[int]:
    """Return the ids of nuclei that a person has accepted, and touched no further."""
    accepted = prompts.state == PromptState.ACCEPTED.value
    others = set(prompts.object_id[~accepted].tolist())
    return set(prompts.object_id[accepted].tolist()) - others


def protected_objects(prompts: Prompts, labels: npt.NDArray[np.uint32]) -> set[int]:
    """Return the accepted nuclei of which no one else may take the pixels they have.

    Those in which a person has set the point of another nucleus are not among them:
    whoever splits a nucleus wants it to change.

    Parameters
    ----------
    prompts : Prompts
    labels : (H, W) uint32
    """
    return accepted_objects(prompts) - objects_at(placed_positives(prompts), labels)


def placed_positives(prompts: Prompts) -> Prompts:
    """Return the positives that a person added or moved."""
    return prompts.select(prompts.placed & (prompts.sign == POSITIVE))


def objects_at(prompts: Prompts, labels: npt.NDArray[np.uint32]) -> set[int]:
    """Return the nuclei in whose pixels these prompts lie."""
    places = np.rint(prompts.yx).astype(np.intp)
    y, x = places[((places >= 0) & (places < labels.shape)).all(axis=1)].T
    return set(labels[y, x].tolist()) - {0}


def only_pixels_of(
    labels: npt.NDArray[np.uint32], ids: Collection[int]
) -> npt.NDArray[np.uint32]:
    """Return a copy of labels of any shape in which only these nuclei are."""
    if not ids:
        return np.zeros_like(labels)
    return np.where(np.isin(labels, list(ids)), labels, np.uint32(0))


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


def show_unseen(
    labels: npt.NDArray[np.uint32],
    masks: Iterable[ObjectMask],
    prompts: Prompts,
    origin_yx: tuple[int, int] = (0, 0),
) -> None:
    """Give accepted nuclei that surer masks hide a part of these, in place.

    Such a nucleus gets the pixels of its mask that are nearer to its point than to a
    point of the nucleus that has them, so that no one loses all it has. What was
    painted or accepted gives nothing.

    Parameters
    ----------
    labels : (h, w) uint32
        It must reach over all of the mask of each accepted nucleus in ``masks``.
    masks : iterable of ObjectMask
        Those that have just competed, best first.
    prompts : Prompts
    origin_yx : (int, int)
        Pixel of the image at ``labels[0, 0]``.
    """
    masks = list(masks)
    accepted = accepted_objects(prompts)
    giving = {m.object_id for m in masks} - accepted
    # sorted once: to look through all for each nucleus takes long where many hide
    usable = prompts.select(prompts.usable)
    usable = usable.select(np.argsort(usable.object_id, kind="stable"))
    for mask in masks:
        if mask.object_id not in accepted:
            continue
        there, part = _meeting(mask, origin_yx, labels.shape)
        window = labels[there]
        if (window == mask.object_id).any():
            continue
        rows, columns = np.nonzero(inside(mask)[part])
        owners = window[rows, columns]
        first = np.add(origin_yx, (there[0].start, there[1].start))
        pixels = np.stack([rows, columns], axis=1) + first
        own = _distances(usable, mask.object_id, pixels)
        for owner in set(owners.tolist()) & giving:
            wins = (owners == owner) & (own < _distances(usable, owner, pixels))
            window[rows[wins], columns[wins]] = mask.object_id


def _distances(
    usable: Prompts, object_id: int, pixels: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return how far (N,) each pixel (N, 2) is from a positive of a nucleus.

    The prompts are in order of ``object_id``.
    """
    first, last = np.searchsorted(usable.object_id, [object_id, object_id + 1])
    offsets = pixels[:, None] - usable.yx[first:last]
    return np.asarray(np.sqrt((offsets**2).sum(axis=2)).min(axis=1))


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
    """Return the mask in its crop, with holes filled."""
    positive = mask.logits > 0
    # binary_fill_holes takes longer, and most masks have no hole
    empty = np.ones(np.add(positive.shape, 2), bool)
    empty[1:-1, 1:-1] = ~positive
    outside, count = ndimage.label(empty)
    if count == 1:
        return positive
    return np.asarray((outside != outside[0, 0])[1:-1, 1:-1])


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
