"""What the prompt generator says of a whole image: its two maps, tile by tile."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from napari_sac.core.inference.keys import result_key
from napari_sac.core.inference.resampling import resize_image
from napari_sac.core.models.prompt_generator import GENERATOR_STRIDE, generator_input
from napari_sac.core.progress import Progress, ignore_progress

if TYPE_CHECKING:
    from torch import Tensor

    from napari_sac.core.models.registry import Model

GENERATOR_DIAMETER = 24.0
"""Nucleus diameter, in pixels of its input, that the generator was trained at."""

_TILE = 1024

_BYTES_A_PIXEL, _BYTES_A_PIXEL_OF_A_TILE = 24, 600
"""Of memory, for maps and what is read off them, and while the generator looks at a
tile with its halo; no less than ``benchmarks/memory.py`` measures."""

_MIRRORS = ((), (2,), (3,), (2, 3))
"""Axes along which an image (B, 3, h, w) is turned round; those of its maps too."""

SUREST = 3.0
"""Logits beyond it say no more: a click must be able to overrule the generator."""


@dataclass(frozen=True, eq=False)
class GeneratorMaps:
    """The prompt generator's output for a whole image.

    Parameters
    ----------
    foreground : (h, w) float32
        Probability of nucleus.
    distance : (h, w) float32
        Distance to the border over its maximum in the nucleus, in [0, 1].
    scale : float
        Pixels of the maps to a pixel of the image.
    key : str
        Identifies pixels, model and scale, as :func:`maps_key` does; empty if nobody
        knows them.
    """

    foreground: npt.NDArray[np.float32]
    distance: npt.NDArray[np.float32]
    scale: float
    key: str = ""


@dataclass(frozen=True, eq=False)
class ForegroundLogits:
    """The generator's foreground as logits, to be read at pixels of the image.

    Parameters
    ----------
    logits : (h, w) float16
        In [-3, 3].
    scale : float
        Samples to a pixel of the image.
    key : str
        That of the maps.
    """

    logits: npt.NDArray[np.float16]
    scale: float
    key: str = ""

    def at(
        self, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Return the logits (P, m, n), between samples linearly.

        Parameters
        ----------
        rows : (P, m) int
            Pixels of the image; those outside of it read as the nearest inside.
        columns : (P, n) int
        """
        axes = [
            _neighbours(index, self.scale, count)
            for index, count in zip((rows, columns), self.logits.shape, strict=True)
        ]
        (top, bottom, y), (left, right, x) = axes
        top, bottom, y = top[:, :, None], bottom[:, :, None], y[:, :, None]
        left, right, x = left[:, None], right[:, None], x[:, None]
        upper = self.logits[top, left] * (1 - x) + self.logits[top, right] * x
        lower = self.logits[bottom, left] * (1 - x) + self.logits[bottom, right] * x
        return np.asarray(upper * (1 - y) + lower * y)

    def windows(
        self, start: npt.NDArray[np.int64], count: int
    ) -> npt.NDArray[np.float32]:
        """Return the logits of square windows (P, count, count).

        Parameters
        ----------
        start : (P, 2) int
            First pixel (y, x) of each in the image.
        count : int
            Side in pixels.
        """
        steps = np.arange(count)
        return self.at(start[:, :1] + steps, start[:, 1:] + steps)


def _neighbours(
    index: npt.NDArray[np.int64], scale: float, count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the samples before and after each pixel, and how near the second is."""
    place = np.clip((index + 0.5) * scale - 0.5, 0, count - 1)
    before = np.floor(place).astype(np.int64)
    after = np.minimum(before + 1, count - 1)
    return before, after, (place - before).astype(np.float32)


def as_logits(maps: GeneratorMaps) -> ForegroundLogits:
    """Return the foreground of maps as decoding adds it to masks."""
    low = 1 / (1 + np.exp(SUREST))
    sure = np.clip(maps.foreground, low, 1 - low)
    logits = np.log(sure / (1 - sure)).astype(np.float16)
    return ForegroundLogits(logits, maps.scale, maps.key)


def memory_of_maps(shape: tuple[int, int], scale: float) -> float:
    """Return how many bytes it takes to find the nuclei of an image.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the image.
    scale : float
        Pixels of the maps to a pixel of the image.
    """
    pixels = shape[0] * shape[1] * scale**2
    tile = min(pixels, (1.25 * _TILE) ** 2)
    return _BYTES_A_PIXEL * pixels + _BYTES_A_PIXEL_OF_A_TILE * tile


def maps_key(
    image: npt.NDArray[np.uint8],
    model_key: str,
    scale: float,
    *,
    mirrored: bool = True,
) -> str:
    """Return the key of what :func:`generator_maps` would compute."""
    looks = "four looks" if mirrored else "one look"
    return result_key(image, model_key, scale, looks)


def generator_maps(
    image: npt.NDArray[np.uint8],
    model: Model,
    scale: float,
    *,
    mirrored: bool = True,
    progress: Progress = ignore_progress,
) -> GeneratorMaps:
    """Return the generator's maps of the image at a scale, tile by tile.

    Each tile reads a halo of the generator's receptive field, so that the tiles change
    nothing.

    Parameters
    ----------
    image : (H, W, 3) uint8
    model : Model
    scale : float
        Pixels of the maps to a pixel of the image.
    mirrored : bool
        Whether the generator also sees the image mirrored in y, in x and in both, and
        the mean of the four counts: four times as long, and right more often (measured:
        decision 0024).
    progress : Progress, optional
    """
    resized = resize_image(image, scale)
    height, width = resized.shape[1:]
    halo = model.generator.receptive_radius()
    result = np.zeros((2, height, width), np.float32)
    corners = [(y, x) for y in range(0, height, _TILE) for x in range(0, width, _TILE)]
    mirrors = _MIRRORS if mirrored else _MIRRORS[:1]
    looks = list(itertools.product(corners, mirrors))
    for done, ((y, x), axes) in enumerate(looks):
        progress("finding nuclei", done, len(looks))
        top, left = max(0, y - halo), max(0, x - halo)
        region = resized[:, top : y + _TILE + halo, left : x + _TILE + halo]
        maps = _generate(region, model, axes)
        bottom, right = min(y + _TILE, height), min(x + _TILE, width)
        result[:, y:bottom, x:right] += maps[
            :, y - top : bottom - top, x - left : right - left
        ]
    result /= len(mirrors)
    progress("finding nuclei", len(looks), len(looks))
    key = maps_key(image, model.key, scale, mirrored=mirrored)
    return GeneratorMaps(result[0], result[1], scale, key)


def _generate(
    region: Tensor, model: Model, axes: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """Return both maps (2, h, w) of a region (3, h, w) uint8 of the resized image.

    The generator sees it turned round along ``axes``.
    """
    height, width = region.shape[1:]
    pad = (0, -width % GENERATOR_STRIDE, 0, -height % GENERATOR_STRIDE)
    pixels = F.pad(generator_input(region), pad)[None].flip(axes)
    device = model.device.torch_device
    with torch.inference_mode():
        maps = model.generator(pixels.to(device, memory_format=torch.channels_last))
        maps = maps.sigmoid().float().flip(axes)
    return np.asarray(maps[0].cpu().numpy())
