"""Images at another scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor


def resize_image(image: npt.NDArray[np.uint8], shape: tuple[int, int]) -> Tensor:
    """Return the image as a (3, h, w) uint8 tensor of the given height and width."""
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    if tuple(tensor.shape[1:]) == shape:
        return tensor
    return F.interpolate(tensor[None], shape, mode="bilinear", antialias=True)[0]
