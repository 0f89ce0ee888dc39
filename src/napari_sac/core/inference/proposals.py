"""Proposals: the point prompts that the prompt generator's maps suggest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.measure import label as label_components
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from napari_sac.core.config import ProposalConfig
from napari_sac.core.inference.generator_maps import (
    GENERATOR_DIAMETER,
    GeneratorMaps,
    generator_maps,
    memory_of_maps,
)
from napari_sac.core.inference.memory import require_memory
from napari_sac.core.inference.resampling import scale_to
from napari_sac.core.progress import Progress, ignore_progress
from napari_sac.core.types import NEGATIVE, POSITIVE, Prompts, PromptState

if TYPE_CHECKING:
    from napari_sac.core.models.registry import Model

LOWEST_FOREGROUND = 0.25
"""Components whose probability never passes the threshold are kept down to this one,
with a low score, so that lowering the score threshold can bring them back."""

_PART = 1024
"""Components that begin in a square of this side are cut into nuclei together."""
_SMOOTHED = 5
"""Pixels that the Gaussian of the distance map reads beside a component, and one."""

_SURVEY, _SAMPLES, _PLACES = 512, 9, 8
"""Side of the samples in which a large image is measured, how many they are, and in how
many rows and columns they are looked for."""

_NEXT_TO_NOTHING = 1e-3
"""Part of the pixels; one nucleus of 20 pixels in 512 x 512 covers a little more."""
_MEDIAN_BY_PIXELS = 1.10
"""Median diameter by pixels over that by nuclei: the median of DSB 2018's training
images with three nuclei or more."""


@dataclass(frozen=True, eq=False)
class Proposals:
    """What the generator found in an image.

    Parameters
    ----------
    prompts : Prompts
        Every proposal, also those below ``ProposalConfig.score_threshold``.
    diameter : float
        Typical nucleus diameter in pixels of the image, found or given.
    maps : GeneratorMaps
        What the prompts were read off.
    """

    prompts: Prompts
    diameter: float
    maps: GeneratorMaps

    def above(self, score_threshold: float) -> Prompts:
        """Return the prompts of the nuclei whose score is at least the threshold."""
        return self.prompts.select(self.prompts.score >= score_threshold)


def find_proposals(
    image: npt.NDArray[np.uint8],
    model: Model,
    config: ProposalConfig,
    *,
    diameter: float | None = None,
    progress: Progress = ignore_progress,
) -> Proposals:
    """Return a point prompt for every nucleus that the generator sees.

    Parameters
    ----------
    image : (H, W, 3) uint8
        As :func:`~napari_sac.core.io.normalise_image` returns it.
    model : Model
    config : ProposalConfig
    diameter : float, optional
        Typical nucleus diameter in pixels; estimated from the image if not given.
    progress : Progress, optional

    Raises
    ------
    ImageFormatError
        If that needs more memory than there is.

    References
    ----------
    The centroid-based and the probability-based selection of Segment Any Cell
    (arXiv 2401.13220); how the peaks are picked is our choice.
    """
    if diameter is None:
        diameter = estimate_diameter(image, model, config, progress=progress)
    scale = scale_to(GENERATOR_DIAMETER, diameter)
    height, width = image.shape[:2]
    require_memory(
        memory_of_maps((height, width), scale),
        f"look for nuclei of {diameter:.0f} pixels in {height:,} x {width:,} pixels",
    )
    maps = generator_maps(image, model, scale, progress=progress)
    if config.strategy == "centroid":
        prompts = _centroids(maps, config, progress)
    else:
        prompts = _probable_points(maps)
    return Proposals(prompts, diameter, maps)


def estimate_diameter(
    image: npt.NDArray[np.uint8],
    model: Model,
    config: ProposalConfig | None = None,
    *,
    progress: Progress = ignore_progress,
) -> float:
    """Return the typical nucleus diameter in pixels of the image.

    The generator looks at the image, or at up to nine samples of a large one. It
    measures well what is half to twice the size it knows best; if it finds nothing of
    that size, it looks again at another scale.

    Where it finds no nuclei at all, the result is the size it knows best.
    """
    config = config or ProposalConfig()
    samples = _sample_regions(image)
    others = [0.5, 2.0, 0.25, 4.0]
    progress("measuring nuclei", 0, len(others) + 2)
    near = _measure(samples, model, config, 1.0)
    found, scale = near.diameter, 1.0
    if near.covered < _NEXT_TO_NOTHING:
        found = _large_nuclei(samples, model, config, near) or found
    for turn, default in enumerate(others, start=1):
        if found and 0.5 <= found * scale / GENERATOR_DIAMETER <= 2:
            break
        before = scale
        scale = default if found is None else scale_to(GENERATOR_DIAMETER, found)
        if scale == before:
            # as far as one can go
            break
        progress("measuring nuclei", turn, len(others) + 2)
        found = _measure(samples, model, config, scale).diameter or found
    progress("measuring nuclei", len(others) + 1, len(others) + 2)
    if found is None:
        return GENERATOR_DIAMETER
    # once more at the scale that this asks for, where the generator sees best
    scale = scale_to(GENERATOR_DIAMETER, found)
    return _measure(samples, model, config, scale).diameter or found


class _Measured(NamedTuple):
    """The typical diameter in image pixels, None of nothing, and the part covered."""

    diameter: float | None
    covered: float


def _large_nuclei(
    samples: list[npt.NDArray[np.uint8]],
    model: Model,
    config: ProposalConfig,
    near: _Measured,
) -> float | None:
    """Return the diameter of nuclei that are seen from further off only, or None.

    ``near`` is next to nothing. In large nuclei the generator sees specks of noise, and
    would go after those, to the finest scale of all.
    """
    for scale in (0.5, 0.25):
        far = _measure(samples, model, config, scale)
        if far.covered >= max(_NEXT_TO_NOTHING, 10 * near.covered):
            return far.diameter
    return None


def _measure(
    samples: list[npt.NDArray[np.uint8]],
    model: Model,
    config: ProposalConfig,
    scale: float,
) -> _Measured:
    """Measure the nuclei that are found at one scale.

    The diameter is the geometric mean of two medians: of the nuclei, which specks of
    dirt can pull down, and of their pixels, which a few large nuclei can pull up.
    """
    regions = [
        generator_labels(generator_maps(sample, model, scale, mirrored=False), config)
        for sample in samples
    ]
    together = np.concatenate([np.bincount(part.ravel())[1:] for part in regions])
    together = np.sort(together[together > 0])
    if len(together) == 0:
        return _Measured(None, 0.0)
    by_pixels = together[np.searchsorted(np.cumsum(together), together.sum() / 2)]
    by_nuclei = np.median(together)
    diameters = 2 * np.sqrt(np.array([by_nuclei, by_pixels]) / np.pi)
    return _Measured(
        float(np.sqrt(np.prod(diameters) / _MEDIAN_BY_PIXELS) / scale),
        float(together.sum() / sum(part.size for part in regions)),
    )


def _sample_regions(image: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    """Return the image, or of a large one the samples that have most in them.

    At its borders there often is nothing: glass, or background.
    """
    height, width = image.shape[:2]
    if height * width <= 4 * _SURVEY**2:
        return [image]
    tops, lefts = (
        np.linspace(0, max(0, n - _SURVEY), min(_PLACES, -(-n // _SURVEY))).astype(int)
        for n in (height, width)
    )
    places = [image[y : y + _SURVEY, x : x + _SURVEY] for y in tops for x in lefts]
    return sorted(places, key=_texture, reverse=True)[:_SAMPLES]


def _texture(pixels: npt.NDArray[np.uint8]) -> float:
    """Return how much there is to see: steps between means of a few pixels.

    Noise has few of them, and one large step, as from tissue to glass, counts little.
    """
    means = ndimage.uniform_filter(pixels.mean(-1), 4)[::4, ::4]
    return float(sum(np.abs(np.diff(means, axis=k)).sum() for k in (0, 1)))


def generator_labels(
    maps: GeneratorMaps, config: ProposalConfig
) -> npt.NDArray[np.int32]:
    """Return the watershed of the maps: what the generator sees without the model.

    Returns
    -------
    (h, w) int32
        At the maps' scale, 0 background.
    """
    mask = maps.foreground >= config.foreground_threshold
    return _split(mask, maps.distance, config)


def _split(
    mask: npt.NDArray[np.bool_],
    distance: npt.NDArray[np.float32],
    config: ProposalConfig,
) -> npt.NDArray[np.int32]:
    """Return the components of ``mask``, cut between peaks of the distance map."""
    smooth = ndimage.gaussian_filter(distance, 1.0)
    smooth[~mask] = 0
    # picking by prominence, and one peak at least for each component: measured better
    # than plain local maxima, which find too many
    peaks = h_maxima(smooth, max(config.prominence, 1e-3)).astype(bool) & mask
    components = label_components(mask)
    missing = np.ones(components.max() + 1, bool)
    missing[components[peaks]] = False
    missing[0] = False
    markers = label_components(peaks | missing[components])
    regions: npt.NDArray[np.int32] = watershed(-smooth, markers, mask=mask)
    smallest = config.minimum_area * np.pi / 4 * GENERATOR_DIAMETER**2
    small = np.bincount(regions.ravel()) < smallest
    regions[small[regions]] = 0
    return regions


def _centroids(
    maps: GeneratorMaps, config: ProposalConfig, progress: Progress
) -> Prompts:
    """Return one positive in the middle of each nucleus.

    Part by part: to cut a whole slide at once takes several times the memory.
    """
    components = _components(maps, config)
    boxes = ndimage.find_objects(components)
    # a component is whole in the part where it begins, so parts change nothing
    parts: dict[tuple[int, int], list[int]] = {}
    for number, box in enumerate(boxes, start=1):
        begins = (box[0].start // _PART, box[1].start // _PART)
        parts.setdefault(begins, []).append(number)
    points, scores = [np.empty((0, 2))], [np.empty(0)]
    for done, numbers in enumerate(parts.values()):
        progress("setting points", done, len(parts))
        part = _around([boxes[n - 1] for n in numbers], maps.foreground.shape)
        wanted = np.zeros(len(boxes) + 1, bool)
        wanted[numbers] = True
        distance = maps.distance[part]
        regions = _split(wanted[components[part]], distance, config)
        ids = np.unique(regions[regions > 0])
        if len(ids) == 0:
            continue
        smooth = ndimage.gaussian_filter(distance, 1.0)
        places = np.array(ndimage.maximum_position(smooth, regions, ids), np.float64)
        certainty = ndimage.mean(maps.foreground[part], regions, ids)
        depth = ndimage.maximum(smooth, regions, ids)
        points.append(places + [side.start for side in part])
        scores.append(np.clip(certainty * np.minimum(1, depth / 0.7), 0, 1))
    return _as_prompts(np.concatenate(points), np.concatenate(scores), maps.scale)


def _components(maps: GeneratorMaps, config: ProposalConfig) -> npt.NDArray[np.int32]:
    """Return what may be nuclei as connected components (h, w), 0 background."""
    eight = np.ones((3, 3), bool)
    sure = maps.foreground >= config.foreground_threshold
    lowest = min(LOWEST_FOREGROUND, config.foreground_threshold)
    components, count = ndimage.label(maps.foreground >= lowest, eight)
    passed = np.zeros(count + 1, bool)
    passed[components[sure]] = True
    # what is less sure counts only where nothing of its component is sure
    components[passed[components] & ~sure] = 0
    result: npt.NDArray[np.int32] = ndimage.label(components, eight)[0]
    return result


def _around(
    boxes: list[tuple[slice, slice]], shape: tuple[int, ...]
) -> tuple[slice, slice]:
    """Return the box around boxes, with what smoothing reads beside them."""
    top, left = (min(box[i].start for box in boxes) for i in (0, 1))
    bottom, right = (max(box[i].stop for box in boxes) for i in (0, 1))
    return (
        slice(max(0, top - _SMOOTHED), min(shape[0], bottom + _SMOOTHED)),
        slice(max(0, left - _SMOOTHED), min(shape[1], right + _SMOOTHED)),
    )


def _probable_points(maps: GeneratorMaps) -> Prompts:
    """Return the maxima of the foreground, each with a negative in sure background."""
    smooth = ndimage.gaussian_filter(maps.foreground, GENERATOR_DIAMETER / 8)
    points = peak_local_max(
        smooth,
        min_distance=round(GENERATOR_DIAMETER / 3),
        threshold_abs=LOWEST_FOREGROUND,
        exclude_border=False,
    )
    if len(points) == 0:
        return Prompts.empty()
    score = np.clip(smooth[tuple(points.T)], 0, 1)
    positives = _as_prompts(points.astype(np.float64), score, maps.scale)
    # of the smooth map: a negative right at a border would say little
    background = smooth < 0.1
    if not background.any():
        return positives
    nearest = ndimage.distance_transform_edt(
        ~background, return_distances=False, return_indices=True
    )
    away = np.stack([axis[tuple(points.T)] for axis in nearest], axis=1).astype(
        np.float64
    )
    near = ((away - points) ** 2).sum(1) < (2 * GENERATOR_DIAMETER) ** 2
    negatives = _as_prompts(away, score, maps.scale, sign=NEGATIVE).select(near)
    return Prompts.concatenate([positives, negatives])


def _as_prompts(
    points: npt.NDArray[np.float64],
    score: npt.NDArray[np.floating],
    scale: float,
    *,
    sign: int = POSITIVE,
) -> Prompts:
    """Return prompts at positions of the maps, in pixels of the image."""
    return Prompts.from_points(
        (points + 0.5) / scale - 0.5,
        sign=sign,
        score=score,
        state=PromptState.AUTO.value,
    )
