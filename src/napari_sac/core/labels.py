"""Labels of an image: numbered without gaps, and where each is innermost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sac.core.progress import Progress, ignore_progress

if TYPE_CHECKING:
    from napari_sac.core.types import IntArray

_REPORTED_EVERY = 1000


def consecutive_labels(labels: IntArray) -> tuple[npt.NDArray[np.int32], IntArray]:
    """Return labels 1 to N, and the number that each of them had.

    Parameters
    ----------
    labels : (H, W) integer array
        0 background.

    Returns
    -------
    dense : (H, W) int32
        0 background, 1 to N in order of the labels' numbers.
    ids : (N,) integer array
        Label ``k`` of ``dense`` had the number ``ids[k - 1]``.
    """
    # a dock is open sooner without it
    import pandas as pd

    # by hashing: to sort the pixels, as numpy.unique does, takes 40 times as long
    native = np.ravel(labels).astype(labels.dtype.newbyteorder("="), copy=False)
    codes, ids = pd.factorize(native, sort=True)
    first = 1 if len(ids) and ids[0] == 0 else 0
    dense = codes.astype(np.int32).reshape(labels.shape)
    dense += 1 - first
    return dense, ids[first:]


def innermost_pixels(
    labels: IntArray,
    *,
    edge_is_border: bool,
    progress: Progress = ignore_progress,
) -> npt.NDArray[np.int64]:
    """Return the pixel of each nucleus that is farthest from its border.

    Parameters
    ----------
    labels : (H, W) integer array
        0 background; with few gaps between the numbers, as :func:`consecutive_labels`
        returns them. A label may have several parts.
    edge_is_border : bool
        Whether a nucleus ends at the edge of the image. Else one that it cuts is
        innermost where it is cut, if less than half of it is seen.
    progress : Progress, optional

    Returns
    -------
    (N, 2) int64
        (y, x), in order of the labels. Of several that are equally far it is the first.
    """
    boxes = ndimage.find_objects(labels)
    # beyond the image, where it ends there
    outside = 1 if edge_is_border else 0
    height, width = labels.shape
    pixels = []
    for k, box in enumerate(boxes, start=1):
        if k % _REPORTED_EVERY == 0:
            progress("looking at the labels", k, len(boxes))
        if box is None:
            continue
        rows, columns = box
        top = max(rows.start - 1, -outside)
        left = max(columns.start - 1, -outside)
        bottom = min(rows.stop + 1, height + outside)
        right = min(columns.stop + 1, width + outside)
        region = np.zeros((bottom - top, right - left), bool)
        inner = region[
            rows.start - top : rows.stop - top,
            columns.start - left : columns.stop - left,
        ]
        inner[:] = labels[box] == k
        # one that fills the image has no border to measure from
        depth = region if region.all() else ndimage.distance_transform_edt(region)
        y, x = np.unravel_index(np.argmax(depth), region.shape)
        pixels.append((y + top, x + left))
    return np.array(pixels, np.int64).reshape(-1, 2)
