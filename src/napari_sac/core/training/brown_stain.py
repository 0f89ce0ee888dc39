"""Make labelled tissue look as if it were stained brown, for there is none labelled.

Immunohistochemistry with DAB (3,3'-diaminobenzidine) colours what an antibody binds to
brown: cytoplasm, membranes, or nuclei themselves; the other nuclei are pale blue. Here
the absorption of an image's nuclei is kept, its other colours are taken away, and a
random brown is laid over it.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from skimage.segmentation import expand_labels, find_boundaries, watershed

from napari_sac.core.training.targets import typical_diameter

if TYPE_CHECKING:
    from napari_sac.core.types import IntArray

Plane = npt.NDArray[np.float32]

_HAEMATOXYLIN = (0.65, 0.70, 0.29)
_DAB = (0.27, 0.57, 0.78)
"""How much red, green and blue the stains absorb (Ruifrok and Johnston 2001)."""

_COLOUR_SPREAD = 0.045
_WITH_HOLES = 0.25
_WITH_CRUMBS = 0.4
_UNSHARP = 0.6
_COMPRESSED = 0.5
"""In which part of the images there is that."""
_FAINTEST = 0.18
"""How dark the darkest of a nucleus is at least: what nobody sees is not learned."""
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
    shape, diameter = labels.shape, tissue.diameter
    blue = _blue(tissue, rng)
    brown = np.zeros_like(blue)
    kind = rng.choice(["between", "nuclei", "both", "none"], p=[0.5, 0.25, 0.15, 0.1])
    if kind in ("between", "both"):
        brown += _brown_between_nuclei(tissue, rng)
    if kind in ("nuclei", "both"):
        in_nuclei, kept = _brown_nuclei(tissue, rng)
        brown += in_nuclei
        blue *= kept
    brown += (rng.uniform(0, 0.12) * (1 + 0.5 * _noise(shape, diameter, rng))).clip(0)
    if rng.random() < _WITH_HOLES:
        left, rim = _holes(tissue, rng)
        blue, brown = blue * left, brown * left
        (blue if rng.random() < 0.5 else brown)[...] += rim
    if rng.random() < _WITH_CRUMBS:
        (blue if rng.random() < 0.3 else brown)[...] += _crumbs(tissue, rng)
    absorbed = np.multiply.outer(blue, _colour(_HAEMATOXYLIN, rng))
    absorbed += np.multiply.outer(brown, _colour(_DAB, rng))
    white = rng.uniform(225, 252) * (1 + rng.normal(0, 0.01, 3))
    light = white * np.exp(-1.7 * absorbed)
    if rng.random() < _UNSHARP:
        sigma = rng.uniform(0.01, 0.09) * diameter
        light = ndimage.gaussian_filter(light, (sigma, sigma, 0))
    light += rng.normal(0, rng.uniform(0, 3), light.shape)
    seen = np.asarray(light.round().clip(0, 255).astype(np.uint8))
    return _compressed(seen, rng) if rng.random() < _COMPRESSED else seen


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


def _blue(tissue: _Tissue, rng: np.random.Generator) -> Plane:
    """Return how dark haematoxylin is, in nuclei and between them."""
    strength = rng.uniform(0.25, 1.1)
    if rng.random() < 0.5:
        # as the image has it: nothing but its own look says where nuclei end
        between = rng.uniform(0.3, 1.0) * strength
    else:
        between = rng.uniform(0.0, 0.35)
    kept = 1 - rng.uniform(0, max(0.0, 1 - _FAINTEST / strength)) * _some(tissue, rng)
    blue = kept * (strength * tissue.nuclear + between * tissue.ground)
    if rng.random() < 0.5:
        # fibres of the stroma, pale blue
        fibres = _streaks(blue.shape, tissue.diameter, rng)
        fibres += 0.5 * _noise(blue.shape, 0.3 * tissue.diameter, rng)
        blue += rng.uniform(0.02, 0.15) * fibres.clip(0)
    return np.asarray(blue, np.float32)


def _some(tissue: _Tissue, rng: np.random.Generator) -> Plane:
    """Return 1 in a random part of the nuclei, with soft borders, and 0 elsewhere."""
    count = int(tissue.labels.max(initial=0))
    chosen = rng.random(count + 1) < rng.uniform(0, 1)
    chosen[0] = False
    # a little wider than they are, or a rim would stay dark
    wider = expand_labels(tissue.labels, 0.2 * tissue.diameter)
    some = chosen[wider].astype(np.float32)
    return np.asarray(ndimage.gaussian_filter(some, 0.05 * tissue.diameter))


def _holes(tissue: _Tissue, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Return how much tissue is left where it is torn or a duct is cut, and the rim."""
    diameter = tissue.diameter
    away = ndimage.distance_transform_edt(tissue.labels == 0) / diameter
    rough = _noise(away.shape, rng.uniform(0.5, 2) * diameter, rng)
    # nuclei keep clear of it, for a label without a nucleus teaches nothing
    depth = np.minimum(away - 0.3, 0.4 * (rough - rng.uniform(0.2, 1.2)))
    left = 1 / (1 + np.exp(30 * depth))
    rim = rng.uniform(0, 0.6) * np.exp(-((depth / 0.06) ** 2))
    rim *= (0.5 + _noise(away.shape, 0.2 * diameter, rng)).clip(0)
    return np.asarray(left, np.float32), np.asarray(rim, np.float32)


def _crumbs(tissue: _Tissue, rng: np.random.Generator) -> Plane:
    """Return small dark spots between nuclei: dirt and grains of stain."""
    shape, diameter = tissue.labels.shape, tissue.diameter
    fine = _noise(shape, rng.uniform(0.04, 0.15) * diameter, rng)
    where = _noise(shape, rng.uniform(1, 3) * diameter, rng) > rng.uniform(-0.5, 1)
    spots = (fine - rng.uniform(2, 2.8)).clip(0, 0.5) * where * (1 - tissue.inside)
    return np.asarray(rng.uniform(0.5, 2.5) * spots, np.float32)


def _brown_between_nuclei(tissue: _Tissue, rng: np.random.Generator) -> Plane:
    """Return brown cytoplasm and membranes in a part of the image."""
    shape, diameter = tissue.labels.shape, tissue.diameter
    # streaks run in two directions, here the one and there the other
    one = 1 / (1 + np.exp(-4 * _noise(shape, rng.uniform(1, 3) * diameter, rng)))
    grain = one * _streaks(shape, diameter, rng)
    grain += (1 - one) * _streaks(shape, diameter, rng)
    grain = rng.uniform(0, 1) * grain + _noise(shape, 0.15 * diameter, rng)
    strength = rng.uniform(0.2, 1.6)
    cytoplasm = strength * np.exp(rng.uniform(0.1, 0.4) * grain)
    # a section is thicker than a nucleus: some brown lies over and under it
    through = rng.uniform(0.1, 0.75 / max(1.0, strength))
    # and its border is not where the label's is
    soft = rng.uniform(0.02, 0.12) * diameter
    inside = ndimage.gaussian_filter((tissue.labels > 0).astype(np.float32), soft)
    inside += 0.15 * _noise(shape, 0.2 * diameter, rng) * (inside > 0.05)
    cytoplasm *= 1 - (1 - through) * inside.clip(0, 1)
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


def _compressed(
    image: npt.NDArray[np.uint8], rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Return the image as JPEG leaves it, as most scanned slides are stored."""
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=int(rng.integers(55, 92)))
    # a copy, for Pillow's own pixels cannot be written to
    return np.array(Image.open(file).convert("RGB"))


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
