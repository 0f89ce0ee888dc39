"""What part of the image is on the screen, and how a nucleus gets there.

Lengths on the screen are in napari's canvas pixels; the rest is in its world units.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from napari_sac.core.types import POSITIVE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_sac.viewer.annotation import Annotation

SMALLEST = 40.0
"""Canvas pixels: a nucleus that is shorter is too small to judge."""

ENLARGED = 80.0
"""Canvas pixels of a nucleus that was too small: the next one need not be enlarged."""

_SAME_VIEW = 1e-3
"""Relative: napari reads its camera back from what is drawn."""

_REACH = 2.0
"""Diameters around the points of a nucleus in which its pixels are looked for."""


@dataclass(frozen=True, eq=False)
class ViewBox:
    """A part of the plane that is shown.

    Parameters
    ----------
    low, high : (2,) float
        Corners (y, x).
    """

    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]

    @property
    def middle(self) -> npt.NDArray[np.float64]:
        """The middle (y, x)."""
        return np.asarray((self.low + self.high) / 2)

    @property
    def size(self) -> npt.NDArray[np.float64]:
        """Height and width."""
        return np.asarray(self.high - self.low)

    def holds(self, yx: npt.NDArray[np.float64]) -> bool:
        """Return whether a place (y, x) lies inside."""
        return bool((self.low <= yx).all() and (yx <= self.high).all())


def is_fitted(viewer: ViewerModel) -> bool:
    """Return whether the view is as napari fits it to the layers there are."""
    if not viewer.layers:
        return False
    camera = viewer.scene.camera
    center, zoom = tuple(camera.center), camera.zoom
    viewer.reset_view(reset_camera_angle=False)
    fitted = np.allclose(
        (*center[-2:], zoom), (*camera.center[-2:], camera.zoom), rtol=_SAME_VIEW
    )
    camera.center, camera.zoom = center, zoom
    return bool(fitted)


def view_box(viewer: ViewerModel) -> ViewBox:
    """Return what is on the screen, as long as the view is two-dimensional."""
    camera = viewer.scene.camera
    half = in_order(viewer, viewer.canvas.size) / camera.zoom / 2
    middle = in_order(viewer, camera.center[-2:])
    return ViewBox(middle - half, middle + half)


def in_order(
    viewer: ViewerModel, pair: Sequence[float] | npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return what is down and right on the screen as (y, x), or the other way round.

    napari's camera counts in the order in which axes are shown, which may be
    transposed.
    """
    down, right = viewer.dims.displayed[-2:]
    values = np.array(pair, float)
    return values[::-1] if down > right else values


def nucleus_box(annotation: Annotation, object_id: int) -> ViewBox | None:
    """Return where a nucleus lies: its pixels, or its points if it has none near them.

    None if there is no such nucleus, or no layer shows its points.
    """
    layer, prompts = annotation.points, annotation.prompts
    rows = np.flatnonzero(prompts.object_id == object_id)
    if layer is None or len(rows) == 0:
        return None
    positive = rows[prompts.sign[rows] == POSITIVE]
    points = prompts.yx[positive if len(positive) else rows]
    labels, reach = annotation.state.labels, _REACH * annotation.diameter
    low = np.clip(np.floor(points.min(axis=0) - reach), 0, labels.shape).astype(int)
    high = np.clip(np.ceil(points.max(axis=0) + reach), 0, labels.shape).astype(int)
    pixels = np.argwhere(labels[low[0] : high[0], low[1] : high[1]] == object_id)
    if len(pixels):
        first, last = low + pixels.min(axis=0) - 0.5, low + pixels.max(axis=0) + 0.5
    else:
        radius = annotation.diameter / 2
        first, last = points.min(axis=0) - radius, points.max(axis=0) + radius
    return _in_world(layer, first, last)


def is_in_view(viewer: ViewerModel, annotation: Annotation, object_id: int) -> bool:
    """Return whether the middle of a nucleus is on the screen.

    True too for one that cannot be shown: it is not there any more.
    """
    box = nucleus_box(annotation, object_id)
    return box is None or view_box(viewer).holds(box.middle)


def bring_into_view(
    viewer: ViewerModel, annotation: Annotation, object_id: int
) -> None:
    """Show a nucleus in the middle; near the border of the image, as near as may be.

    It is enlarged if it is too small to judge, as a nucleus of the usual size would be,
    and never made smaller: a speck alone on the screen could not be judged either.
    """
    box = nucleus_box(annotation, object_id)
    if box is None:
        return
    camera, longest = viewer.scene.camera, float(box.size.max())
    if annotation.points is not None:
        usual = annotation.diameter * np.abs(annotation.points.scale[-2:]).max()
        longest = max(longest, float(usual))
    if 0 < longest * camera.zoom < SMALLEST:
        camera.zoom = ENLARGED / longest
    middle = box.middle
    layer = annotation.labels if annotation.plane is None else annotation.plane.layer
    if layer is not None:
        middle = _beside_nothing(middle, view_box(viewer).size, layer)
    shown = in_order(viewer, middle)
    camera.center = (*tuple(camera.center)[:-2], *shown.tolist())


def _beside_nothing(
    middle: npt.NDArray[np.float64], size: npt.NDArray[np.float64], layer: Layer
) -> npt.NDArray[np.float64]:
    """Move the middle of a view of this size so that it shows less beside a layer."""
    first, last = layer.extent.world[:, -2:]
    lowest, highest = first + size / 2, last - size / 2
    # an image that is narrower than the screen lies in the middle of it
    return np.where(
        lowest <= highest, np.clip(middle, lowest, highest), (first + last) / 2
    )


def _in_world(layer: Layer, low: npt.ArrayLike, high: npt.ArrayLike) -> ViewBox:
    """Return the box around a box of pixels, which may be turned by the layer."""
    pairs = zip(np.asarray(low, float), np.asarray(high, float), strict=True)
    corners = [layer.data_to_world(corner)[-2:] for corner in product(*pairs)]
    return ViewBox(np.min(corners, axis=0), np.max(corners, axis=0))
