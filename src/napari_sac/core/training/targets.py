"""What the networks are trained towards, computed once for each image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

if TYPE_CHECKING:
    from napari_sac.core.types import IntArray

_LARGEST_COUNTED = 1 << 24
"""Up to this label to count all is faster than to sort, and takes little memory."""


def distance_to_border(labels: IntArray) -> npt.NDArray[np.float32]:
    """Return each pixel's distance to its nucleus's border, over the nucleus's maximum.

    The edge of the image is no border: a nucleus that it cuts is deepest where it is
    cut, if less than half of it is seen.

    Parameters
    ----------
    labels : (H, W) int
        Instance labels, 0 background.

    Returns
    -------
    (H, W) float32
        In [0, 1]: 0 in the background, 1 at the innermost pixel of each nucleus.
    """
    distance = np.zeros(labels.shape, np.float32)
    for index, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        # a pixel more on each side, where the image goes on
        around = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
        mask = labels[around] == index
        # a nucleus that fills the image has no border to measure from
        inside = mask if mask.all() else ndimage.distance_transform_edt(mask)
        distance[around] += (inside / inside.max()).astype(np.float32)
    return distance


def typical_diameter(labels: IntArray) -> float | None:
    """Return the median diameter of the nuclei as circles, in pixels, or None."""
    if labels.max(initial=0) < _LARGEST_COUNTED:
        return median_diameter(np.bincount(labels.ravel())[1:])
    _, areas = np.unique(labels[labels > 0], return_counts=True)
    return median_diameter(areas)


def median_diameter(areas: IntArray) -> float | None:
    """Return the median diameter of circles of these areas, or None if all are 0."""
    areas = areas[areas > 0]
    return float(2 * np.sqrt(np.median(areas) / np.pi)) if len(areas) else None
