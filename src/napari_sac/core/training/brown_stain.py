"""Make labelled tissue look as if it were stained brown, for there is none labelled.

Immunohistochemistry with DAB (3,3'-diaminobenzidine) colours what an antibody binds to
brown: cytoplasm, membranes, or nuclei themselves; the other nuclei are pale blue. Here
the absorption of an image's nuclei is kept, its other colours are taken away, and a
random brown is laid over it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.segmentation import find_boundaries, watershed

from napari_sac.core.training.targets import typical_diameter

if TYPE_CHECKING:
    from napari_sac.core.types import IntArray

Plane = npt.NDArray[np.float32]

_HAEMATOXYLIN = (0.65, 0.70, 0.29)
_DAB = (0.27, 0.57, 0.78)
"""How much red, green and blue the stains absorb (Ruifrok and Johnston 2001)."""

_COLOUR_SPREAD = 0.045
_LARGEST_DIAMETER = 64.0
_ANY_DIAMETER = 24.0


@dataclass(frozen=True, eq=False)
class _Tissue:
    """What brown is laid on: planes (H, W).

    ``nuclear`` is how dark the nuclei are, about 1 where they are darkest, and
    ``ground`` how dark what lies between them is, by the same measure. ``inside`` is 1
    in nuclei and falls to 0 at their borders.
    """

    nuclear: Plane
    ground: Plane
    inside: Plane
    labels: IntArray
    diameter: float


def stain_brown(
    image: npt.NDArray[np.uint8], labels: IntArray, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Return the image as if its tissue were stained with DAB and haematoxylin.

    Parameters
    ----------
    image : (H, W, 3) uint8
        Stained tissue, darker than its ground, or grey fluorescence, brighter than it.
    labels : (H, W) int
        Its nuclei, 0 background.
    rng : numpy.random.Generator
        It decides what is brown, how much, and in which hue.

    Returns
    -------
    (H, W, 3) uint8

    References
    ----------
    The colours of stains: A. C. Ruifrok and D. A. Johnston, *Quantification of
    histochemical staining by color deconvolution*, Anal. Quant. Cytol. Histol. 23
    (2001). What is brown is our choice.
    """
    tissue = _read_tissue(image, labels, rng)
    blue = rng.uniform(0.25, 1.1) * tissue.nuclear
    blue += rng.uniform(0.0, 0.35) * tissue.ground
    brown = np.zeros_like(blue)
    kind = rng.choice(["between", "nuclei", "both", "none"], p=[0.5, 0.25, 0.15, 0.1])
    if kind in ("between", "both"):
        brown += _brown_between_nuclei(tissue, rng)
    if kind in ("nuclei", "both"):
        in_nuclei, kept = _brown_nuclei(tissue, rng)
        brown += in_nuclei
        blue *= kept
    haze = rng.uniform(0, 0.12) * (1 + 0.5 * _noise(blue.shape, tissue.diameter, rng))
    absorbed = np.multiply.outer(blue, _colour(_HAEMATOXYLIN, rng))
    absorbed += np.multiply.outer(brown + haze.clip(0), _colour(_DAB, rng))
    white = rng.uniform(225, 252) * (1 + rng.normal(0, 0.01, 3))
    light = white * np.exp(-1.7 * absorbed)
    light += rng.normal(0, rng.uniform(0, 3), light.shape)
    return np.asarray(light.round().clip(0, 255).astype(np.uint8))


def _read_tissue(
    image: npt.NDArray[np.uint8], labels: IntArray, rng: np.random.Generator
) -> _Tissue:
    grey = bool((image == image[..., :1]).all())
    if grey:
        dark = image[..., 0].astype(np.float32)
        if labels.any() and dark[labels > 0].mean() < dark.mean():
            dark = 255 - dark
    else:
        # of the usual stains haematoxylin alone absorbs red
        red = image[..., 0].astype(np.float32)
        white = max(1.0, float(np.percentile(red, 99)))
        dark = -np.log((red + 4) / (white + 4))
    dark = dark - np.percentile(dark, 2)
    dark /= max(float(np.percentile(dark[labels > 0], 90)), 1e-3) if labels.any() else 1
    dark = dark.clip(0, 1.6)
    diameter = min(typical_diameter(labels) or _ANY_DIAMETER, _LARGEST_DIAMETER)
    inside = ndimage.gaussian_filter((labels > 0).astype(np.float32), 0.03 * diameter)
    if grey:
        # the inside of fluorescent nuclei is smooth, and their ground is empty
        dark = dark ** rng.uniform(0.4, 0.8)
        dark *= 1 + 0.25 * _noise(labels.shape, 0.12 * diameter, rng)
        ground = (0.5 + 0.4 * _noise(labels.shape, 0.4 * diameter, rng)).clip(0)
        ground = ground * (1 - inside)
    else:
        ground = dark * (1 - inside)
    return _Tissue(
        (dark * inside).clip(0).astype(np.float32),
        ground.astype(np.float32),
        inside,
        labels,
        diameter,
    )


def _brown_between_nuclei(tissue: _Tissue, rng: np.random.Generator) -> Plane:
    """Return brown cytoplasm and membranes in a part of the image."""
    shape, diameter = tissue.labels.shape, tissue.diameter
    one = _noise(shape, rng.uniform(1, 3) * diameter, rng) > 0
    grain = np.where(
        one, _streaks(shape, diameter, rng), _streaks(shape, diameter, rng)
    )
    grain = rng.uniform(0, 1) * grain + _noise(shape, 0.15 * diameter, rng)
    cytoplasm = rng.uniform(0.2, 1.4) * np.exp(rng.uniform(0.1, 0.4) * grain)
    # a section is thicker than a nucleus: some brown lies over and under it
    through = rng.uniform(0.1, 0.75)
    cytoplasm *= 1 - (1 - through) * tissue.inside
    membranes = rng.uniform(0, 1.6) * _membranes(tissue, rng)
    where = _stained_part(shape, diameter, rng)
    return np.asarray((cytoplasm + membranes) * where, np.float32)


def _membranes(tissue: _Tissue, rng: np.random.Generator) -> Plane:
    """Return 1 along the middle lines between neighbouring nuclei, 0 elsewhere."""
    if not tissue.labels.any():
        return np.zeros(tissue.labels.shape, np.float32)
    away = ndimage.distance_transform_edt(tissue.labels == 0)
    # a bent ruler: membranes are not straight
    away += 0.15 * tissue.diameter * _noise(away.shape, 0.4 * tissue.diameter, rng)
    cells = watershed(away, tissue.labels)
    lines = find_boundaries(cells, mode="inner").astype(np.float32)
    width = tissue.diameter * rng.uniform(0.03, 0.08)
    blurred = ndimage.gaussian_filter(lines, max(0.7, width))
    near = np.exp(-away / tissue.diameter).clip(0, 1)
    return np.asarray(near * blurred / max(float(blurred.max()), 1e-6), np.float32)


def _brown_nuclei(tissue: _Tissue, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Return brown in a part of the nuclei, and how much of their blue is left."""
    count = int(tissue.labels.max(initial=0))
    positive = rng.random(count + 1) < rng.uniform(0.1, 1.0)
    positive[0] = False
    strength = np.where(positive, rng.uniform(0.4, 1.8, count + 1), 0)
    of_pixel = strength[tissue.labels].astype(np.float32)
    soft = ndimage.gaussian_filter(of_pixel, 0.03 * tissue.diameter)
    texture = 0.4 + 0.6 * tissue.nuclear
    hidden = ndimage.gaussian_filter((of_pixel > 0).astype(np.float32), 1)
    return soft * texture, 1 - rng.uniform(0.3, 1.0) * hidden


def _stained_part(
    shape: tuple[int, ...], diameter: float, rng: np.random.Generator
) -> Plane:
    """Return 1 where tissue is stained and 0 elsewhere; the border may be blurred."""
    wide = _noise(shape, rng.uniform(2, 6) * diameter, rng)
    level = np.quantile(wide, rng.choice([0, rng.uniform(0, 0.8)]))
    steep = rng.uniform(2, 12)
    return np.asarray(1 / (1 + np.exp(-steep * (wide - level))), np.float32)


def _streaks(
    shape: tuple[int, ...], diameter: float, rng: np.random.Generator
) -> Plane:
    """Return noise of mean 0 and deviation 1 that is drawn out in one direction."""
    length, width = rng.uniform(0.2, 1.2) * diameter, rng.uniform(0.03, 0.1) * diameter
    side = int(1.5 * max(shape)) + 4
    noise = rng.normal(size=(side, side))
    drawn = ndimage.gaussian_filter(noise, (length, max(0.6, width)), mode="wrap")
    turned = ndimage.rotate(drawn, rng.uniform(0, 180), reshape=False, order=1)
    top, left = ((side - n) // 2 for n in shape)
    return _standardised(turned[top : top + shape[0], left : left + shape[1]])


def _noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> Plane:
    """Return smooth noise of mean 0 and deviation 1."""
    return _standardised(ndimage.gaussian_filter(rng.normal(size=shape), sigma))


def _standardised(values: npt.NDArray[np.float64]) -> Plane:
    spread = max(float(values.std()), 1e-6)
    return np.asarray((values - values.mean()) / spread, np.float32)


def _colour(
    absorption: tuple[float, float, float], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Return a hue near that of a stain."""
    hue = np.clip(absorption + rng.normal(0, _COLOUR_SPREAD, 3), 0.05, None)
    return np.asarray(hue / np.linalg.norm(hue))
