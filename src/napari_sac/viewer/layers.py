"""The layers that we make: their names, how they look, and how they are written.

They may be built in a worker's thread, which loads what napari needs for them; once
they are in a viewer they are touched on its thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Points
from napari.utils.colormaps.standardize_color import transform_color

from napari_sac.core.types import POSITIVE, AnyArray, IntArray, Prompts
from napari_sac.viewer.planes import ImagePlane, plane_geometry
from napari_sac.viewer.prompts import (
    SIGN_SYMBOLS,
    STATE_COLOURS,
    features_table,
    point_size,
)

if TYPE_CHECKING:
    import numpy.typing as npt

SESSION_KEY = "napari-sac"
"""Where our layers carry their session, in ``layer.metadata``."""

BORDER_WIDTH = 0.3
"""Width of a point's ring, as a part of its size."""

# Napari's canvas pixels: points stay visible when the whole field is in view.
_CANVAS_SIZES = (8, 10000)


@dataclass(frozen=True, eq=False)
class LabelChange:
    """Pixels of a Labels layer that get other labels.

    Parameters
    ----------
    indices : tuple of two (N,) int arrays
        Rows and columns.
    values : (N,) uint32
    """

    indices: tuple[npt.NDArray[np.intp], ...]
    values: npt.NDArray[np.uint32]


def prompts_name(plane: ImagePlane) -> str:
    """Return the name of the Points layer of an image."""
    return f"nuclei prompts [{_plane_name(plane)}]"


def labels_name(plane: ImagePlane) -> str:
    """Return the name of the Labels layer of an image."""
    return f"nuclei [{_plane_name(plane)}]"


def build_points(plane: ImagePlane, prompts: Prompts, diameter: float) -> Points:
    """Return a Points layer with the prompts, where the plane lies."""
    return Points(
        prompts.yx,
        name=prompts_name(plane),
        features=features_table(prompts),
        # not "state" and a cycle: that fails when an emptied layer gets a point
        border_color=_colours(prompts) if len(prompts) else "white",
        # a wide ring: napari draws nothing but the border of points that are small
        border_width=BORDER_WIDTH,
        face_color="black",
        symbol=_symbols(prompts) or SIGN_SYMBOLS[POSITIVE],
        size=point_size(diameter),
        canvas_size_limits=_CANVAS_SIZES,
        **plane_geometry(plane.layer),
    )


def write_points(
    layer: Points, prompts: Prompts, diameter: float, *, positions: bool = True
) -> None:
    """Make the layer show these prompts.

    Parameters
    ----------
    layer : Points
    prompts : Prompts
    diameter : float
        Typical nucleus diameter in pixels of the image.
    positions : bool
        Whether to write the positions too. They must not be written while napari is
        changing them itself.
    """
    if positions:
        layer.selected_data = set()
        layer.data = prompts.yx.copy()
    layer.features = features_table(prompts)
    if len(prompts):
        layer.border_color = _colours(prompts)
        layer.symbol = _symbols(prompts)
        layer.size = point_size(diameter)
    layer.current_size = point_size(diameter)


def build_labels(plane: ImagePlane, labels: IntArray) -> Labels:
    """Return a Labels layer of (H, W) labels, where the plane lies."""
    return Labels(
        np.asarray(labels, np.uint32),
        name=labels_name(plane),
        **plane_geometry(plane.layer),
    )


def fits(data: Any, labels: IntArray) -> bool:
    """Return whether labels can be written into the pixels of a Labels layer."""
    return (
        isinstance(data, np.ndarray)
        and data.shape == labels.shape
        and np.can_cast(np.min_scalar_type(int(labels.max(initial=0))), data.dtype)
    )


def find_change(before: AnyArray, after: IntArray) -> LabelChange:
    """Return the pixels whose label differs between two arrays (H, W)."""
    indices = np.nonzero(before != after)
    return LabelChange(indices, after[indices].astype(np.uint32))


def write_change(layer: Labels, change: LabelChange) -> None:
    """Write changed labels as one step of the layer's own undo history."""
    if len(change.values):
        layer.data_setitem(change.indices, change.values.astype(layer.data.dtype))


def _symbols(prompts: Prompts) -> list[str]:
    return [SIGN_SYMBOLS[int(sign)] for sign in prompts.sign]


def _colours(prompts: Prompts) -> npt.NDArray[np.float64]:
    """Return the colour (N, 4) of each prompt, by its state."""
    colours = np.zeros((len(prompts), 4))
    for state, colour in STATE_COLOURS.items():
        colours[prompts.state == state.value] = transform_color(colour)[0]
    return colours


def _plane_name(plane: ImagePlane) -> str:
    if not plane.position:
        return str(plane.layer.name)
    return f"{plane.layer.name}, plane {', '.join(map(str, plane.position))}"
