"""What a person reviewed of an image.

Sparse review is the normal case: what nobody looked at is neither nucleus nor
background, and no loss is taken there. Nothing here needs torch, so a dock may import
it.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.draw import disk

from napari_sac.core.datasets.pairs import (
    ImageLabelPair,
    find_pairs,
    find_tables,
    label_files,
    load_pair,
    pair_by_stem,
)
from napari_sac.core.errors import LabelFormatError
from napari_sac.core.inference.instances import decided_objects, rejected_objects
from napari_sac.core.io import normalise_image, read_labels, read_prompts
from napari_sac.core.labels import consecutive_labels, innermost_pixels
from napari_sac.core.names import PROMPTS_FILES
from napari_sac.core.polygons import mask_of, mostly_inside
from napari_sac.core.progress import Progress, ignore_progress
from napari_sac.core.training.targets import (
    median_diameter,
    typical_diameter,
)
from napari_sac.core.types import (
    NEGATIVE,
    POSITIVE,
    AnyArray,
    BoolArray,
    FloatArray,
    IntArray,
    Prompts,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sac.core.config import Stain
    from napari_sac.core.training.lineage import NucleiByImage

RING = 0.5
"""How far around a nucleus the ground is known, in diameters."""

_Box = tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class ReviewedImage:
    """An image, and what a person said about it.

    Parameters
    ----------
    name : str
        Names the image in reports.
    image : (H, W, 3) uint8
        As :func:`~napari_sac.core.io.normalise_image` returns it.
    labels : (H, W) int32
        The reviewed nuclei alone, 1..N.
    known : (H, W) bool
        Where the labels say the truth: loss and scores are taken only there.
    rejected : (R, 2) float64
        Proposals (y, x) that were rejected, and lie on known background.
    negatives : (K, 3) float64
        Negative points that a person set: y, x, and the label of their nucleus.
    group : str
        Images of one group, such as the planes of a stack, may show the same nuclei;
        empty for an image by itself.
    """

    name: str
    image: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]
    known: BoolArray
    rejected: FloatArray = field(default_factory=lambda: np.empty((0, 2)))
    negatives: FloatArray = field(default_factory=lambda: np.empty((0, 3)))
    group: str = ""

    @property
    def count(self) -> int:
        """Number of reviewed nuclei."""
        return len(np.unique(self.labels)) - int((self.labels == 0).any())


def review_image(
    name: str,
    image: npt.NDArray[np.uint8],
    labels: IntArray,
    *,
    prompts: Prompts | None = None,
    regions: Sequence[FloatArray] = (),
    known: BoolArray | None = None,
    group: str = "",
) -> ReviewedImage:
    """Return what of an image's labels may be learned from.

    Parameters
    ----------
    name : str
    image : (H, W, 3) uint8
    labels : (H, W) int
        The ids are the prompts' ``object_id``.
    prompts : Prompts, optional
        Nuclei still ``auto``, proposed or imported, are unreviewed, unless they lie in
        a reviewed region. Those that somebody painted are accepted or added.
        Rejected ones teach the generator, negative ones the mask decoder.
    regions : sequence of (N, 2) float
        Polygons (y, x) in which everything was reviewed.
    known : (H, W) bool, optional
        What was reviewed, instead of all that.
    group : str, optional
        As :class:`ReviewedImage` has it.

    Around nuclei that were accepted, added or moved and have no mask nothing is known.
    Without prompts, regions and ``known``, all of the image is reviewed.

    Raises
    ------
    ValueError
        If the shapes do not fit together.
    """
    shape = labels.shape
    if image.shape != (*shape, 3) or (known is not None and known.shape != shape):
        raise ValueError(f"{name}: image {image.shape}, labels {shape}")
    if prompts is not None:
        # a mask that waits to be taken away
        labels = np.where(np.isin(labels, rejected_objects(prompts)), 0, labels)
    dense, ids = consecutive_labels(labels)
    inside = mask_of(regions, shape)
    if known is not None:
        reviewed, trusted = _mostly_inside(dense, known), known.copy()
    elif prompts is None and not regions:
        reviewed, trusted = np.ones(len(ids) + 1, bool), np.ones(shape, bool)
    else:
        decided = set() if prompts is None else decided_objects(prompts)
        reviewed = _mostly_inside(dense, inside)
        reviewed[1:] |= np.isin(ids, list(decided))
        trusted = inside | _rings(dense, reviewed)
    reviewed[0] = True
    trusted[dense > 0] = reviewed[dense[dense > 0]]
    unreviewed = ~reviewed[dense]
    # its outline is as unsure as itself
    unsure = ndimage.binary_dilation(unreviewed, iterations=2) & (dense == 0)
    if prompts is not None:
        unsure |= _around_unmasked(dense, ids, prompts)
    kept, _ = consecutive_labels(np.where(unreviewed, 0, dense))
    result = ReviewedImage(name, image, kept, trusted & ~unsure, group=group)
    if prompts is None:
        return result
    return _with_points(result, dense, ids, prompts, unsure)


def _around_unmasked(
    dense: npt.NDArray[np.int32], ids: IntArray, prompts: Prompts
) -> BoolArray:
    """Return the surroundings of nuclei that a person wants and that have no mask.

    Where and how large they are is not known, only that they are no background.
    """
    wanted = prompts.usable
    radius = typical_diameter(dense)
    if radius is None:
        # nothing was segmented yet: nothing tells how far a nucleus reaches
        return np.full(dense.shape, bool(wanted.any()))
    wanted &= np.isin(prompts.object_id, list(decided_objects(prompts)))
    wanted &= ~np.isin(prompts.object_id, ids)
    found = np.zeros(dense.shape, bool)
    for y, x in prompts.yx[wanted]:
        found[disk((y, x), radius, shape=dense.shape)] = True
    found &= dense == 0
    return found


def _mostly_inside(dense: npt.NDArray[np.int32], mask: BoolArray) -> BoolArray:
    """Return for each label, and 0, whether more than half of it lies in a mask."""
    found = np.zeros(int(dense.max(initial=0)) + 1, bool)
    found[mostly_inside(dense, mask)] = True
    return found


def _rings(dense: npt.NDArray[np.int32], reviewed: BoolArray) -> BoolArray:
    """Return reviewed nuclei with the ground around them that is nobody else's."""
    diameter = typical_diameter(dense)
    own = (dense > 0) & reviewed[dense]
    if diameter is None or not own.any():
        return np.zeros(dense.shape, bool)
    away = ndimage.distance_transform_edt(~own)
    other = (dense > 0) & ~reviewed[dense]
    near = away <= RING * diameter
    if other.any():
        near &= away < ndimage.distance_transform_edt(~other)
    return np.asarray(near)


def _with_points(
    one: ReviewedImage,
    dense: npt.NDArray[np.int32],
    ids: IntArray,
    prompts: Prompts,
    unsure: BoolArray,
) -> ReviewedImage:
    """Return the image with the rejected proposals and the negative points.

    What is unsure may be nucleus: a point that was rejected there says nothing.
    """
    radius = RING * (typical_diameter(dense) or 0.0)
    known = one.known.copy()
    rejected = []
    for y, x in prompts.yx[prompts.rejected & (prompts.sign == POSITIVE)]:
        pixel = _pixel((y, x), dense.shape)
        # one that was rejected inside a nucleus was a duplicate, not background
        if pixel is None or dense[pixel] or unsure[pixel]:
            continue
        around = disk((y, x), max(radius, 2.0), shape=dense.shape)
        known[around] |= (dense[around] == 0) & ~unsure[around]
        rejected.append((y, x))
    negatives = []
    rows = (prompts.sign == NEGATIVE) & prompts.placed
    nuclei = one.labels > 0
    # of each nucleus by its id; nuclei that were not reviewed have no label
    new = np.zeros(len(ids) + 1, np.int32)
    new[dense[nuclei]] = one.labels[nuclei]
    label_of = dict(zip(ids.tolist(), new[1:].tolist(), strict=True))
    for (y, x), k in zip(prompts.yx[rows], prompts.object_id[rows], strict=True):
        label = label_of.get(int(k), 0)
        if label:
            negatives.append((y, x, label))
    return replace(
        one,
        known=known,
        rejected=np.array(rejected).reshape(-1, 2),
        negatives=np.array(negatives, np.float64).reshape(-1, 3),
    )


def _pixel(yx: tuple[float, float], shape: tuple[int, ...]) -> tuple[int, int] | None:
    y, x = round(yx[0]), round(yx[1])
    return (y, x) if 0 <= y < shape[0] and 0 <= x < shape[1] else None


def read_reviewed(
    images: str | Path,
    labels: str | Path,
    *,
    reviewed: str | Path | None = None,
    prompts: str | Path | None = None,
    channels: Sequence[int] | None = None,
    stain: Stain | None = None,
    progress: Progress = ignore_progress,
) -> tuple[ReviewedImage, ...]:
    """Return the image and label pairs of two folders.

    Parameters
    ----------
    images, labels : str or Path
        Folders; files pair by stem.
    reviewed : str or Path, optional
        Folder of masks of the same names: reviewed where they are not 0.
    prompts : str or Path, optional
        Folder of ``STEM_prompts.csv``, as ``segment`` and the dock write them, one for
        each image.
    channels, stain : optional
        What of the pixels is looked at, as
        :func:`~napari_sac.core.io.normalise_image` has it.
    progress : Progress, optional
        Told before each pair.

    Raises
    ------
    NapariSacError
        ``ImageFormatError`` or ``LabelFormatError``, naming the file.
    """
    pairs = find_pairs(images, labels)
    tables = {} if prompts is None else _prompt_tables(pairs, Path(prompts))
    masks = {}
    if reviewed is not None:
        files = [pair.image for pair in pairs]
        found = pair_by_stem(files, label_files(reviewed), ("image", "reviewed mask"))
        masks = {image.stem: mask for image, mask in found}
    result = []
    for i, pair in enumerate(pairs):
        progress(f"reading {pair.name}", i, len(pairs))
        loaded = load_pair(pair, separate=channels is not None)
        known = None
        if pair.name in masks:
            known = read_labels(masks[pair.name]) > 0
            if known.shape != loaded.labels.shape:
                raise LabelFormatError(
                    f"{masks[pair.name]} does not fit {pair.image.name}: they differ "
                    "in size. Export the mask at the size of the image."
                )
        result.append(
            review_image(
                pair.name,
                normalise_image(loaded.image, channels, stain=stain),
                loaded.labels,
                prompts=read_prompts(tables[pair.name]) if tables else None,
                known=known,
                # in a session or the window it may be seen by another channel or stain
                group=os.path.abspath(pair.image),
            )
        )
    return tuple(result)


def _prompt_tables(pairs: Sequence[ImageLabelPair], folder: Path) -> dict[str, Path]:
    """Return the table of prompts of each image, by the image's name."""
    tables = {}
    found = find_tables(folder, [pair.name for pair in pairs], PROMPTS_FILES)
    for pair, file in zip(pairs, found, strict=True):
        if file is None:
            names = [f"{pair.name}{ending}" for ending in PROMPTS_FILES]
            # without it every mask would count as right, and all else as background
            raise LabelFormatError(
                f"There is no table of prompts for {pair.image.name}: {folder} has "
                f"neither {' nor '.join(names)}. Nothing was changed; choose the "
                "folder that segment or the dock wrote, or move the image away."
            )
        tables[pair.name] = file
    return tables


def digest(images: Sequence[ReviewedImage]) -> str:
    """Return a hash of images, of their labels and points, and of what is known."""
    sha256 = hashlib.sha256()
    for one in images:
        # runs without points keep the hash that they were begun with
        points = [given for given in (one.rejected, one.negatives) if len(given)]
        arrays: list[AnyArray] = [one.image, one.labels, one.known, *points]
        for array in arrays:
            sha256.update(f"{array.shape}".encode())
            sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()


def pixels_sha256(one: ReviewedImage) -> str:
    """Return the SHA-256 of an image's pixels, as 64 hexadecimal digits."""
    sha256 = hashlib.sha256(f"{one.image.shape}".encode())
    sha256.update(np.ascontiguousarray(one.image).data)
    return sha256.hexdigest()


def image_keys(one: ReviewedImage) -> tuple[str, ...]:
    """Return what an image is known by: hashes of its pixels, and of its group.

    Those of a group are of one shape, seen by other channels or stains, or neighbours.
    """
    pixels = pixels_sha256(one)
    if not one.group:
        return (pixels,)
    place = f"{one.group}\n{one.labels.shape}"
    # no path: adapters are handed on
    return pixels, hashlib.sha256(place.encode(errors="surrogatepass")).hexdigest()


def middles_of(labels: IntArray) -> npt.NDArray[np.int64]:
    """Return the innermost pixel (N, 2), (y, x), of each nucleus."""
    # most likely to be in it still, when its outline has been corrected
    return innermost_pixels(labels, edge_is_border=False)


def learned_nuclei(one: ReviewedImage, learned: NucleiByImage) -> IntArray:
    """Return the labels of the nuclei in which one lies that was learned from.

    Its outline may have been corrected since.
    """
    found = [learned[key] for key in image_keys(one) if key in learned]
    if not found:
        return np.empty(0, np.int64)
    pixels = np.concatenate(found)
    inside = ((pixels >= 0) & (pixels < one.labels.shape)).all(1)
    labels = np.unique(one.labels[tuple(pixels[inside].T)])
    return labels[labels > 0].astype(np.int64)


def pooled_diameter(images: Sequence[ReviewedImage]) -> float | None:
    """Return the median diameter of the nuclei of all images together, or None."""
    areas = [np.bincount(one.labels.ravel())[1:] for one in images]
    return median_diameter(np.concatenate([np.empty(0, np.int64), *areas]))


def limit_to(one: ReviewedImage, area: BoolArray) -> ReviewedImage:
    """Return the image reviewed only in an area; nuclei on its edge are unknown."""
    outside = np.unique(one.labels[~area])
    cut = np.isin(one.labels, outside[outside > 0])
    known = one.known & area & ~cut
    inside = np.array([_holds(area, p) for p in one.rejected[:, :2]], bool)
    labels, ids = consecutive_labels(np.where(known, one.labels, 0))
    new = {int(k): i + 1 for i, k in enumerate(ids)}
    negatives = [(y, x, new[int(k)]) for y, x, k in one.negatives if int(k) in new]
    return replace(
        one,
        labels=labels,
        known=known,
        rejected=one.rejected[inside],
        negatives=np.array(negatives, np.float64).reshape(-1, 3),
    )


def _holds(area: BoolArray, yx: FloatArray) -> bool:
    pixel = _pixel((float(yx[0]), float(yx[1])), area.shape)
    return pixel is not None and bool(area[pixel])


def crop_to_known(one: ReviewedImage, margin: int) -> ReviewedImage:
    """Return the image cut to what is known, with a margin to see around it."""
    found = ndimage.find_objects(one.known.astype(np.int32))
    return cut_out(one, widen(found[0], margin, one.known.shape)) if found else one


def widen(box: _Box, margin: int, shape: tuple[int, ...]) -> _Box:
    """Return a box with a margin on each side, as far as the image reaches."""
    rows, columns = (
        slice(max(0, s.start - margin), min(n, s.stop + margin))
        for s, n in zip(box, shape, strict=True)
    )
    return rows, columns


def cut_out(one: ReviewedImage, box: _Box) -> ReviewedImage:
    """Return what of the image is in a box."""
    corner = np.array([s.start for s in box])
    return replace(
        one,
        image=one.image[box],
        labels=one.labels[box],
        known=one.known[box],
        rejected=one.rejected - corner,
        negatives=one.negatives - np.array([*corner, 0]),
    )
