"""Prompts from what other tools and people made: labels, points, boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_sac.core.errors import LabelFormatError
from napari_sac.core.labels import consecutive_labels, innermost_pixels
from napari_sac.core.progress import Progress, ignore_progress
from napari_sac.core.types import FloatArray, IntArray, Prompts, PromptState

if TYPE_CHECKING:
    from napari_sac.core.inference.live import Box


def prompts_from_labels(
    labels: IntArray, progress: Progress = ignore_progress
) -> Prompts:
    """Return one positive for each label, where it is farthest from the label's edge.

    Parameters
    ----------
    labels : (H, W) integer array
        0 background; a label may have several parts.
    progress : Progress, optional

    Returns
    -------
    Prompts
        In order of the labels, which are the ``object_id``; score 1, state ``auto``.
    """
    dense, ids = consecutive_labels(labels)
    # in the middle of what is seen of a nucleus, not at the edge of the image
    pixels = innermost_pixels(dense, edge_is_border=True, progress=progress)
    return Prompts.from_points(pixels.astype(np.float64), object_id=ids)


def prompts_from_points(yx: npt.ArrayLike) -> Prompts:
    """Return a nucleus for each of the points (N, 2), as if a person had added them."""
    return Prompts.from_points(yx, state=PromptState.ADDED.value)


def check_inside(yx: FloatArray, shape: tuple[int, ...]) -> None:
    """Check that points (N, 2) lie in an image of that shape.

    Raises
    ------
    LabelFormatError
        If one of them does not.
    """
    pixels = np.rint(yx)
    # not a number is outside too
    outside = np.asarray(~((pixels >= 0) & (pixels < shape)).all(1))
    if outside.any():
        y, x = yx[outside][0]
        raise LabelFormatError(
            f"{int(outside.sum())} of {len(outside)} points lie outside of the image "
            f"of {shape[0]} x {shape[1]} pixels, the first at y {y:g}, x {x:g}. Check "
            "that they are in pixels, and belong to this image."
        )


def prompts_from_box(box: Box, object_id: int) -> Prompts:
    """Return the point that stands for a box drawn around one nucleus.

    Parameters
    ----------
    box : (int, int, int, int)
        First row and column, and the ones after the last: y0, x0, y1, x1.
    object_id : int

    Returns
    -------
    Prompts
        One positive in the middle: measured better than with negatives around it.
    """
    y0, x0, y1, x1 = box
    # of the pixels, whose centres are at whole numbers
    middle = ((y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2)
    return Prompts.from_points(
        middle, object_id=object_id, state=PromptState.ADDED.value
    )
