"""Images at another scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor


_LEAST, _MOST = 0.15, 6.0


def scale_to(wanted: float, diameter: float) -> float:
    """Return the scale at which nuclei of one diameter get another, within bounds.

    Beyond 0.15 and 6 there is nothing to see, or too much to compute.

    Raises
    ------
    ValueError
        If the diameter is no number above 0.
    """
    if not 0 < diameter < np.inf:
        raise ValueError(f"a diameter must be a number above 0, got {diameter}")
    return float(np.clip(wanted / diameter, _LEAST, _MOST))


def resized_shape(shape: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return height and width of what :func:`resize_image` gives."""
    height, width = (max(1, round(n * scale)) for n in shape)
    return height, width


def resize_image(image: npt.NDArray[np.uint8], scale: float) -> Tensor:
    """Return the image as a (3, h, w) uint8 tensor, ``scale`` times as fine.

    Height and width are rounded, and the scale stays what it is: the middle of pixel i
    lies at ``(i + 0.5) / scale - 0.5`` of the image, to its last pixel.

    Raises
    ------
    ValueError
        If it is not (H, W, 3) uint8: other values would be taken for these in silence.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"an image must be (H, W, 3) uint8, as normalise_image returns it, got "
            f"{image.shape} {image.dtype}"
        )
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    if scale == 1:
        return tensor
    shape = resized_shape((image.shape[0], image.shape[1]), scale)
    # torch.nn.functional.interpolate takes a shape or a scale, and for a shape another
    # scale than was meant
    resized: Tensor = torch.ops.aten._upsample_bilinear2d_aa(
        tensor[None], shape, False, scale, scale
    )[0]
    return resized
