"""The embedding: SAM's view of an image, computed once and passed as a value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_sac.core.inference.generator_maps import (
    GENERATOR_DIAMETER,
    ForegroundLogits,
    as_logits,
    generator_maps,
    maps_key,
    memory_of_maps,
)
from napari_sac.core.inference.keys import result_key
from napari_sac.core.inference.memory import require_memory
from napari_sac.core.inference.resampling import resize_image, resized_shape
from napari_sac.core.inference.tiles import TileAxis, tile_axis
from napari_sac.core.progress import Progress, ignore_progress

if TYPE_CHECKING:
    from napari_sac.core.models.registry import Model

HALO_PART = 5 / 32
"""Margin of each tile, as a part of its side: of ``sac_tiny`` 1.6 nuclei."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """The image encoder's output for every tile of an image.

    Parameters
    ----------
    key : str
        Identifies pixels, model and scale: equal keys, equal embeddings.
    model_key : str
        Of the model whose image encoder it is from.
    image_shape : (int, int)
        Height and width of the image, in its own pixels.
    scale : float
        Pixels of the encoder's input to a pixel of the image.
    rows, columns : TileAxis
        The tiles, in pixels of the encoder's input.
    features : (rows x columns, C, g, g) float tensor
        On the CPU, in row-major order.
    foreground : ForegroundLogits
        What the prompt generator takes for nucleus.
    """

    key: str
    model_key: str
    image_shape: tuple[int, int]
    scale: float
    rows: TileAxis
    columns: TileAxis
    features: Tensor
    foreground: ForegroundLogits

    def to_input(self, yx: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return image positions (N, 2) in pixels of the encoder's input."""
        return (yx + 0.5) * self.scale - 0.5

    def to_image(self, input_yx: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return positions (N, 2) of the encoder's input in pixels of the image."""
        return (input_yx + 0.5) / self.scale - 0.5

    def owners(self, input_yx: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return the index of the tile that owns each position (N, 2) of the input."""
        row = self.rows.owner(input_yx[:, 0])
        return row * len(self.columns.origins) + self.columns.owner(input_yx[:, 1])

    def tile_origins(self) -> npt.NDArray[np.int64]:
        """Return the first pixel (y, x) of each tile (N, 2) in the encoder's input."""
        return np.array(
            [(y, x) for y in self.rows.origins for x in self.columns.origins], np.int64
        )


def embedding_key(image: npt.NDArray[np.uint8], model_key: str, scale: float) -> str:
    """Return the key of what :func:`embed_image` would compute."""
    return result_key(image, model_key, scale, "embedding")


def embed_image(
    image: npt.NDArray[np.uint8],
    model: Model,
    *,
    scale: float,
    foreground: ForegroundLogits | None = None,
    progress: Progress = ignore_progress,
) -> Embedding:
    """Return the embedding of an image at a scale.

    Parameters
    ----------
    image : (H, W, 3) uint8
        As :func:`~napari_sac.core.io.normalise_image` returns it.
    model : Model
    scale : float
        Pixels of the encoder's input to a pixel of the image.
    foreground : ForegroundLogits, optional
        Spares looking for it again if it is what the model's generator gives for this
        image at this scale, as it is after :func:`find_proposals` with the same
        diameter.
    progress : Progress, optional
        Told once for each batch of tiles.

    Raises
    ------
    ImageFormatError
        If that needs more memory than there is.
    """
    architecture = model.spec.architecture
    size = architecture.image_size
    halo = round(HALO_PART * size)
    height, width = image.shape[:2]
    rows, columns = (
        tile_axis(n, size, halo) for n in resized_shape((height, width), scale)
    )
    count = len(rows.origins) * len(columns.origins)
    shape = (count, architecture.prompt_dim, *(architecture.grid_size,) * 2)
    finer = scale * GENERATOR_DIAMETER / model.spec.nucleus_diameter
    wanted = maps_key(image, model.key, finer)
    is_seen = foreground is not None and foreground.key == wanted
    require_memory(
        4 * math.prod(shape)
        + (0 if is_seen else memory_of_maps((height, width), finer)),
        f"look at {height:,} x {width:,} pixels with nuclei of "
        f"{model.spec.nucleus_diameter / scale:.0f} pixels",
    )
    resized = resize_image(image, scale)
    features = torch.empty(shape)
    batch = max(1, model.device.batch_pixels // size**2)
    origins = [(y, x) for y in rows.origins for x in columns.origins]
    progress("embedding", 0, count)
    for start in range(0, count, batch):
        tiles = [_cut(resized, y, x, size) for y, x in origins[start : start + batch]]
        features[start : start + batch] = _encode(torch.stack(tiles), model)
        progress("embedding", min(start + batch, count), count)
    if foreground is None or not is_seen:
        maps = generator_maps(image, model, finer, progress=progress)
        foreground = as_logits(maps)
    return Embedding(
        key=embedding_key(image, model.key, scale),
        model_key=model.key,
        image_shape=(image.shape[0], image.shape[1]),
        scale=scale,
        rows=rows,
        columns=columns,
        features=features,
        foreground=foreground,
    )


def _cut(resized: Tensor, y: int, x: int, size: int) -> Tensor:
    tile = resized[:, y : y + size, x : x + size]
    return F.pad(
        tile.float(),
        (0, size - tile.shape[2], 0, size - tile.shape[1]),
        value=torch.nan,
    )


def _encode(tiles: Tensor, model: Model) -> Tensor:
    """Encode tiles (T, 3, S, S) in [0, 255]; NaN is outside the image."""
    device = model.device.torch_device
    pixels = (tiles.to(device) - model.sam.pixel_mean) / model.sam.pixel_std
    with torch.inference_mode(), model.device.autocast():
        features: Tensor = model.sam.image_encoder(pixels.nan_to_num(0.0))
    return features.float().cpu()
