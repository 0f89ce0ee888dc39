"""What an image was stained with, as far as its colours tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_sac.core.types import FloatArray

_BRIGHT = 0.75
"""What the brightest pixels reach: light falls through the slide beside tissue."""

_COLOURED = 0.12
"""Difference between the channels of a pixel that has a colour."""

_STAINED_PART = 0.05
_PURPLE_PART = 0.7
"""Of the stained pixels: green is the weakest. With brown or blue alone it is not."""

_PINK_PART = 0.1
"""Of the purple pixels: redder than blue, which haematoxylin alone is nowhere."""

_BROWN_PART = 0.2
"""Of the stained pixels: red is the strongest and blue the weakest."""

_BLUE_PART = 0.01
"""Of all pixels: nuclei beside the brown. Photographs of brown things have fewer."""

_COLOURED_PART = 0.02
"""Of all pixels; a camera's noise colours fewer of a grey image."""


def has_colours(rgb: FloatArray) -> bool:
    """Return whether pixels are more than shades of grey.

    Parameters
    ----------
    rgb : (N, 3) float
        A sample of the image's pixels, from 0 to 1.
    """
    return len(rgb) > 0 and bool(np.mean(_spread(rgb) > _COLOURED) > _COLOURED_PART)


def looks_like_he(rgb: FloatArray) -> bool:
    """Return whether pixels look like tissue stained with haematoxylin and eosin.

    It is bright, and nearly all that is stained is purple, a part of it pink.

    Parameters
    ----------
    rgb : (N, 3) float
        A sample of the image's pixels, from 0 to 1.
    """
    if len(rgb) == 0:
        return False
    red, green, blue = rgb.T
    stained = _spread(rgb) > _COLOURED
    purple = stained & (green < red) & (green < blue)
    pink = purple & (red > blue)
    return bool(
        np.percentile(rgb.max(axis=1), 95) > _BRIGHT
        and stained.mean() > _STAINED_PART
        and purple.sum() > _PURPLE_PART * stained.sum()
        and pink.sum() > _PINK_PART * purple.sum()
    )


def looks_brown(rgb: FloatArray) -> bool:
    """Return whether pixels look like tissue stained brown (DAB), with blue nuclei.

    It is bright, a part of it is brown, and another is blue.

    Parameters
    ----------
    rgb : (N, 3) float
        A sample of the image's pixels, from 0 to 1.
    """
    if len(rgb) == 0:
        return False
    red, green, blue = rgb.T
    stained = _spread(rgb) > _COLOURED
    brown = stained & (red > green) & (green > blue)
    # pale: a counterstain is
    bluish = (_spread(rgb) > _COLOURED / 2) & (blue > red) & (blue >= green)
    return bool(
        np.percentile(rgb.max(axis=1), 95) > _BRIGHT
        and stained.mean() > _STAINED_PART
        and brown.sum() > _BROWN_PART * stained.sum()
        and bluish.mean() > _BLUE_PART
    )


def _spread(rgb: FloatArray) -> FloatArray:
    return np.asarray(rgb.max(axis=1) - rgb.min(axis=1))
