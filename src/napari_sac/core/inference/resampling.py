"""Images at another scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor


_LEAST, _MOST = 0.15, 6.0


def scale_to(wanted: float, diameter: float) -> float:
    """Return the scale at which nuclei of one diameter get another, within bounds.

    Beyond 0.15 and 6 there is nothing to see, or too much to compute.
    """
    return float(np.clip(wanted / diameter, _LEAST, _MOST))


def resize_image(image: npt.NDArray[np.uint8], shape: tuple[int, int]) -> Tensor:
    """Return the image as a (3, h, w) uint8 tensor of the given height and width."""
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    if tuple(tensor.shape[1:]) == shape:
        return tensor
    return F.interpolate(tensor[None], shape, mode="bilinear", antialias=True)[0]
