"""What is learned from, and the part of it that is set aside as proof.

Nothing here needs torch, so a dock may import it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sac.core.errors import TrainingDataError
from napari_sac.core.training.reviewed_image import (
    ReviewedImage,
    cut_out,
    digest,
    image_keys,
    learned_nuclei,
    limit_to,
    pixels_sha256,
    pooled_diameter,
    widen,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sac.core.training.lineage import NucleiByImage
    from napari_sac.core.types import IntArray

HELD_OUT_PART = 0.2
"""Part of the reviewed nuclei that is set aside, about."""

_SEVERAL = 4
"""From so many images or regions on, whole ones are set aside: of fewer, one whole one
is much more than the fifth that should be set aside."""

FEWEST_TO_SPLIT = 4
"""Of fewer nuclei none is set aside."""

_ENOUGH_PART = 0.1
"""With less of the nuclei, whole images or regions prove too little."""

_MARGIN = 4.0
"""What stays to be seen around a region that is set aside, in diameters."""

HeldOutKind = Literal["images", "regions", "block", "folder", "none"]


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """What is learned from, and what is set aside to prove that it helped.

    Parameters
    ----------
    training, held_out : tuple of ReviewedImage
    kind : {"images", "regions", "block", "folder", "none"}
        How the held-out part was chosen: whole images, whole reviewed regions, a
        spatial block of each image, a folder that was given, or not at all, because
        there are too few nuclei.
    held_out_is_learned : bool
        Whether nuclei of the held-out part were learned from before.
    """

    training: tuple[ReviewedImage, ...]
    held_out: tuple[ReviewedImage, ...]
    kind: HeldOutKind
    held_out_is_learned: bool = False

    @property
    def diameter(self) -> float:
        """Typical diameter of a nucleus to learn from, in pixels of its image."""
        found = pooled_diameter(self.training)
        if found is None:
            raise TrainingDataError(_NOTHING)
        return found

    def digest(self) -> str:
        """Return a hash of all that is learned from, as adapters note it."""
        return digest(self.training)


_NOTHING = (
    "There is no reviewed nucleus to learn from. Accept, correct or add nuclei, or "
    "draw a reviewed region around some, and start again. Nothing was changed."
)


def split(
    images: Sequence[ReviewedImage], learned: NucleiByImage | None = None
) -> TrainingSet:
    """Return the images with a part set aside, always the same one.

    Whole images if there are four or more, else whole reviewed regions, else of each
    image a block at one end; nuclei that lie on the cut are in neither part. Where
    whole ones would have less than a tenth of the nuclei, the next way is tried. With
    fewer than four nuclei nothing is set aside. What is set aside is learned from
    nowhere: an image that comes twice is one image, and those of one group are set
    aside together.

    Nuclei that were learned from before prove nothing either: where there are others,
    these are set aside.

    Parameters
    ----------
    images : sequence of ReviewedImage
    learned : mapping of str to (N, 2) int64, optional
        What the adapter that is gone on from has learned from, as
        :func:`~napari_sac.core.training.lineage.learned_by` returns it.

    Raises
    ------
    TrainingDataError
        If there is no nucleus at all.
    """
    groups = _grouped(_merged(images))
    if sum(one.count for one in itertools.chain(*groups)) == 0:
        raise TrainingDataError(_NOTHING)
    old = [[learned_nuclei(one, learned or {}) for one in group] for group in groups]
    if not any(len(labels) for labels in itertools.chain(*old)):
        return _split(groups, old)
    found = _split(groups, old)
    if found.held_out:
        return found
    nothing = [[np.empty(0, np.int64)] * len(group) for group in groups]
    found = _split(groups, nothing)
    return replace(found, held_out_is_learned=bool(found.held_out))


def _split(
    groups: Sequence[Sequence[ReviewedImage]], old: Sequence[Sequence[IntArray]]
) -> TrainingSet:
    """Set a part aside that has none of the ``old`` nuclei of each image."""
    counts = [sum(one.count for one in group) for group in groups]
    if sum(counts) < FEWEST_TO_SPLIT:
        return _nothing_aside(groups)
    found = []
    for way in (_split_images, _split_regions, _split_blocks):
        one = way(groups, old)
        if _held_out_count(one) >= max(1, _ENOUGH_PART * sum(counts)):
            return one
        found.append(one)
    return max(found, key=_held_out_count)


def _held_out_count(data: TrainingSet) -> int:
    return sum(one.count for one in data.held_out)


def _split_images(
    groups: Sequence[Sequence[ReviewedImage]], old: Sequence[Sequence[IntArray]]
) -> TrainingSet:
    """Set whole images aside, or groups of them, if there are several."""
    counts = [sum(one.count for one in group) for group in groups]
    new = [not any(len(labels) for labels in of_group) for of_group in old]
    several = sum(count > 0 for count in counts) >= _SEVERAL
    if not several or not any(n and ok for n, ok in zip(counts, new, strict=True)):
        return _nothing_aside(groups)
    chosen = _set_aside(counts, new)
    training = [group for i, group in enumerate(groups) if i not in chosen]
    return TrainingSet(
        tuple(itertools.chain(*training)),
        tuple(itertools.chain(*(groups[i] for i in sorted(chosen)))),
        "images",
    )


def _nothing_aside(groups: Sequence[Sequence[ReviewedImage]]) -> TrainingSet:
    return TrainingSet(tuple(itertools.chain(*groups)), (), "none")


def with_folder(
    images: Sequence[ReviewedImage],
    held_out: Sequence[ReviewedImage],
    learned: NucleiByImage | None = None,
) -> TrainingSet:
    """Return all images to learn from, and others as proof.

    ``learned`` is as for :func:`split`.

    Raises
    ------
    TrainingDataError
        If one of the two has no nucleus, or an image is in both.
    """
    if sum(one.count for one in images) == 0:
        raise TrainingDataError(_NOTHING)
    if sum(one.count for one in held_out) == 0:
        raise TrainingDataError(
            "The images to validate on have no nucleus. Give others, or none: then a "
            "part of the training images is set aside. Nothing was changed."
        )
    keys = _keys_of_all(images)
    both = [one.name for one in held_out if not keys.isdisjoint(image_keys(one))]
    if both:
        raise TrainingDataError(
            f"{len(both)} of the {len(held_out)} images to validate on are among those "
            f"to learn from, {both[0]} for one: that would prove nothing. Move them "
            "out of one of the two folders. Nothing was changed."
        )
    old = any(len(learned_nuclei(one, learned or {})) for one in held_out)
    return TrainingSet(tuple(images), tuple(held_out), "folder", old)


def without_known(
    original: Sequence[ReviewedImage], known: Sequence[ReviewedImage]
) -> tuple[ReviewedImage, ...]:
    """Return the images that are not among others: what is set aside stays unseen.

    One that is seen by another channel or stain is the same.

    Parameters
    ----------
    original : sequence of ReviewedImage
        To learn from beside the others.
    known : sequence of ReviewedImage
        Whole images that are learned from or compared on.
    """
    keys = _keys_of_all(known)
    return tuple(one for one in original if keys.isdisjoint(image_keys(one)))


def _merged(images: Sequence[ReviewedImage]) -> tuple[ReviewedImage, ...]:
    """Return the images, those with the same pixels as one."""
    found: dict[str, ReviewedImage] = {}
    for one in images:
        key = pixels_sha256(one)
        found[key] = _both(found[key], one) if key in found else one
    return tuple(found.values())


def _keys_of_all(images: Sequence[ReviewedImage]) -> set[str]:
    return set(itertools.chain.from_iterable(map(image_keys, images)))


def _both(first: ReviewedImage, second: ReviewedImage) -> ReviewedImage:
    """Return what was reviewed in either; where both were, what the first says."""
    rest = limit_to(second, ~first.known)
    highest = int(first.labels.max(initial=0))
    shift = np.array([0, 0, highest])
    return replace(
        first,
        labels=np.where(rest.labels > 0, rest.labels + highest, first.labels),
        known=first.known | rest.known,
        rejected=np.concatenate([first.rejected, rest.rejected]),
        negatives=np.concatenate([first.negatives, rest.negatives + shift]),
        group=first.group or second.group,
    )


def _grouped(images: Sequence[ReviewedImage]) -> list[list[ReviewedImage]]:
    groups: dict[object, list[ReviewedImage]] = {}
    for i, one in enumerate(images):
        key = (one.group, one.labels.shape) if one.group else i
        groups.setdefault(key, []).append(one)
    return list(groups.values())


def _set_aside(counts: Sequence[int], new: Sequence[bool]) -> set[int]:
    """Return which of some units are set aside, neither the fullest nor the emptiest.

    Parameters
    ----------
    counts : sequence of int
        Nuclei in each.
    new : sequence of bool
        Whether each may be.
    """
    full = [i for i, n in enumerate(counts) if n and new[i]]
    full.sort(key=lambda i: counts[i])
    units = sum(n > 0 for n in counts)
    wanted = min(max(1, round(HELD_OUT_PART * units)), len(full))
    places = np.linspace(0, len(full) - 1, wanted + 2)[1:-1]
    return {full[round(p)] for p in places}


@dataclass(frozen=True, eq=False)
class _Regions:
    """The connected reviewed regions of an image or a group.

    Parameters
    ----------
    parts : (H, W) int32
        The number of the region that each pixel is in, from 1; 0 for none.
    counts : dict of int to int
        Nuclei in each region that has enough to be set aside.
    new : set of int
        Those of them in which no nucleus was learned from before.
    """

    parts: npt.NDArray[np.int32]
    counts: dict[int, int]
    new: set[int]


def _find_regions(group: Sequence[ReviewedImage], old: Sequence[IntArray]) -> _Regions:
    known = np.logical_or.reduce([one.known for one in group])
    parts, number = ndimage.label(known)
    counts = np.zeros(number + 1, np.int64)
    for one in group:
        nuclei = one.labels > 0
        # both in one number: numpy sorts pairs many times more slowly
        base = int(one.labels.max(initial=0)) + 1
        pairs = np.unique(parts[nuclei].astype(np.int64) * base + one.labels[nuclei])
        counts += np.bincount(pairs // base, minlength=number + 1)
    large = np.flatnonzero(counts >= FEWEST_TO_SPLIT).tolist()
    learned = [
        parts[np.isin(one.labels, labels)]
        for one, labels in zip(group, old, strict=True)
    ]
    new = set(large) - set(np.unique(np.concatenate(learned)).tolist())
    return _Regions(parts, {k: int(counts[k]) for k in large}, new)


def _split_regions(
    groups: Sequence[Sequence[ReviewedImage]], old: Sequence[Sequence[IntArray]]
) -> TrainingSet:
    """Set whole regions aside, each cut out of its image, if there are several."""
    regions = [_find_regions(*parts) for parts in zip(groups, old, strict=True)]
    several = sum(len(found.counts) for found in regions) >= _SEVERAL
    if not several or not any(found.new for found in regions):
        return _nothing_aside(groups)
    units = [(i, k) for i, found in enumerate(regions) for k in found.counts]
    chosen = _set_aside(
        [regions[i].counts[k] for i, k in units],
        [k in regions[i].new for i, k in units],
    )
    margin = round(_MARGIN * (pooled_diameter(list(itertools.chain(*groups))) or 0.0))
    training: list[ReviewedImage] = []
    held_out: list[ReviewedImage] = []
    for i, (group, found) in enumerate(zip(groups, regions, strict=True)):
        numbers = [k for j, k in (units[c] for c in sorted(chosen)) if j == i]
        if not numbers:
            training += group
            continue
        aside = np.isin(found.parts, numbers)
        training += [limit_to(one, ~aside) for one in group]
        boxes = ndimage.find_objects(found.parts)
        for k in numbers:
            box = widen(boxes[k - 1], margin, found.parts.shape)
            area = found.parts[box] == k
            held_out += [limit_to(cut_out(one, box), area) for one in group]
    return TrainingSet(
        tuple(training), tuple(one for one in held_out if one.count), "regions"
    )


def _split_blocks(
    groups: Sequence[Sequence[ReviewedImage]], old: Sequence[Sequence[IntArray]]
) -> TrainingSet:
    """Set the end of each image aside that has enough nuclei to share."""
    training: list[ReviewedImage] = []
    held_out: list[ReviewedImage] = []
    for group, labels in zip(groups, old, strict=True):
        if sum(one.count for one in group) < FEWEST_TO_SPLIT:
            training += group
            continue
        kept, aside = _end_with_most_new(group, labels)
        if not any(one.count for one in kept) or not any(one.count for one in aside):
            training += group
            continue
        training += kept
        held_out += [one for one in aside if one.count]
    kind: HeldOutKind = "block" if held_out else "none"
    return TrainingSet(tuple(training), tuple(held_out), kind)


def _end_with_most_new(
    group: Sequence[ReviewedImage], old: Sequence[IntArray]
) -> tuple[list[ReviewedImage], list[ReviewedImage]]:
    """Return images without their end, and that end without its old nuclei.

    It is the far end of the longer side, unless another has more that is new.
    """
    middles = np.concatenate([_middles(one) for one in group if one.count])
    longer = int(np.argmax(np.ptp(middles, axis=0)))
    ends = [(longer, 1), (longer, -1), (1 - longer, 1), (1 - longer, -1)]
    if not any(len(labels) for labels in old):
        ends = ends[:1]
    shape = group[0].labels.shape
    found: list[tuple[list[ReviewedImage], list[ReviewedImage]]] = []
    for axis, sign in ends:
        cut = float(np.quantile(sign * middles[:, axis], 1 - HELD_OUT_PART))
        is_beyond = sign * np.arange(shape[axis]) > cut
        beyond = np.broadcast_to(
            is_beyond[:, None] if axis == 0 else is_beyond[None], shape
        )
        kept = [limit_to(one, ~beyond) for one in group]
        aside = [
            limit_to(one, beyond & ~np.isin(one.labels, labels))
            for one, labels in zip(group, old, strict=True)
        ]
        found.append((kept, aside))
    return max(found, key=lambda parts: sum(one.count for one in parts[1]))


def _middles(one: ReviewedImage) -> npt.NDArray[np.float64]:
    """Return the middle (y, x) of each nucleus."""
    numbers = range(1, int(one.labels.max()) + 1)
    return np.array(ndimage.center_of_mass(one.labels > 0, one.labels, numbers))
