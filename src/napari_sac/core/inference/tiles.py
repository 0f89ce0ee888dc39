"""Cut an image into tiles: each owns a core, and reads a halo around it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from napari_sac.core.types import FloatArray


@dataclass(frozen=True)
class TileAxis:
    """Equal tiles along one axis.

    Parameters
    ----------
    origins : tuple of int
        First pixel that each tile reads.
    edges : tuple of float
        Where ownership passes from a tile to the next; one fewer than ``origins``.
    """

    origins: tuple[int, ...]
    edges: tuple[float, ...]

    def owner(self, positions: FloatArray) -> npt.NDArray[np.int64]:
        """Return the index of the tile that owns each position."""
        return np.searchsorted(self.edges, positions, side="right").astype(np.int64)


def tile_axis(length: int, size: int, halo: int) -> TileAxis:
    """Return tiles of one size that cover ``length`` pixels.

    Each position lies at least ``halo`` pixels inside the tile that owns it, unless it
    is nearer than that to the end of the image.

    Parameters
    ----------
    length, size, halo : int
        Pixels of the image, of a tile, and of the margin; ``2 * halo < size``.

    Examples
    --------
    >>> tile_axis(20, 10, 2)
    TileAxis(origins=(0, 5, 10), edges=(7.5, 12.5))
    """
    if not 0 <= 2 * halo < size:
        raise ValueError(f"a halo of {halo} leaves nothing of a tile of {size} pixels")
    if length <= size:
        return TileAxis((0,), ())
    count = -(-(length - 2 * halo) // (size - 2 * halo))
    origins = tuple(round(x) for x in np.linspace(0, length - size, count))
    edges = tuple((after + before + size) / 2 for before, after in pairwise(origins))
    return TileAxis(origins, edges)
