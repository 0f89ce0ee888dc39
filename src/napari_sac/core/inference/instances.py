"""Put the masks of single nuclei together into instance labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sac.core.types import BoolArray, ObjectMask, Prompts, PromptState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from napari_sac.core.config import DecodeConfig

_HOLE_LOGIT = 1e-6

_COVERED_WEIGHT = 0.8
"""How much the covered part of a mask counts beside IoU: a little of a nucleus that
looks out from under a better mask does not save it."""

_DECIDED = (PromptState.ACCEPTED, PromptState.ADDED, PromptState.MOVED)


def assemble_labels(
    masks: Iterable[ObjectMask],
    shape: tuple[int, int],
    config: DecodeConfig,
    *,
    prompts: Prompts,
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

    Returns
    -------
    (H, W) uint32
        0 background, otherwise the ``object_id``.
    """
    decided = decided_objects(prompts)
    kept = keep_masks(list(masks), config, decided)
    labels = np.zeros(shape, np.uint32)
    best = np.zeros(shape, np.float32)
    for mask in kept:
        window = _window(mask)
        # a filled hole is the mask's own, unless another mask claims it at all
        logits = np.where(inside(mask), np.maximum(mask.logits, _HOLE_LOGIT), 0)
        wins = logits > best[window]
        labels[window][wins] = mask.object_id
        best[window][wins] = logits[wins]
    return labels


def decided_objects(prompts: Prompts) -> set[int]:
    """Return the ids of nuclei that a person accepted, added or moved."""
    rows = np.isin(prompts.state, [state.value for state in _DECIDED])
    return set(prompts.object_id[rows].tolist())


def keep_masks(
    masks: Sequence[ObjectMask], config: DecodeConfig, decided: set[int]
) -> list[ObjectMask]:
    """Return the masks that are not empty, not poor and not duplicates, best first."""
    candidates = [
        m
        for m in masks
        if (m.logits > 0).any()
        and (m.object_id in decided or m.predicted_iou >= config.minimum_iou)
    ]
    candidates.sort(
        key=lambda m: (m.object_id in decided, m.predicted_iou, -m.object_id),
        reverse=True,
    )
    dropped: set[int] = set()
    for first, second in _overlapping_pairs(candidates):
        if (
            first in dropped
            or second in dropped
            or candidates[second].object_id in decided
        ):
            continue
        if _overlap(candidates[first], candidates[second]) > config.overlap_threshold:
            dropped.add(second)
    return [m for i, m in enumerate(candidates) if i not in dropped]


def inside(mask: ObjectMask) -> BoolArray:
    """Return the mask in its crop: the largest connected part, holes filled."""
    positive = mask.logits > 0
    parts, count = ndimage.label(positive)
    if count > 1:
        positive = parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1
    return np.asarray(ndimage.binary_fill_holes(positive))


def _window(mask: ObjectMask) -> tuple[slice, slice]:
    (y, x), (height, width) = mask.origin_yx, mask.logits.shape
    return slice(y, y + height), slice(x, x + width)


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


def _overlap(a: ObjectMask, b: ObjectMask) -> float:
    """Return the IoU of two masks, or the weighted covered part of the second.

    The larger of the two counts: a mask inside a better one is a duplicate too.
    """
    top, left = np.maximum(a.origin_yx, b.origin_yx)
    bottom, right = np.minimum(
        np.add(a.origin_yx, a.logits.shape), np.add(b.origin_yx, b.logits.shape)
    )
    cut_a, cut_b = (
        m.logits[
            top - m.origin_yx[0] : bottom - m.origin_yx[0],
            left - m.origin_yx[1] : right - m.origin_yx[1],
        ]
        > 0
        for m in (a, b)
    )
    shared = float((cut_a & cut_b).sum())
    area_a, area_b = float((a.logits > 0).sum()), float((b.logits > 0).sum())
    return max(shared / (area_a + area_b - shared), _COVERED_WEIGHT * shared / area_b)
