"""Keys of results: equal keys, equal results."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


def result_key(
    image: npt.NDArray[np.uint8], model_key: str, scale: float, what: str
) -> str:
    """Return what identifies a result.

    Parameters
    ----------
    image : (H, W, 3) uint8
    model_key : str
        Of the model that makes it.
    scale : float
        Pixels that the model sees to a pixel of the image.
    what : str
        Which of its results it is.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(np.ascontiguousarray(image).data)
    digest.update(f"{image.shape}|{model_key}|{scale:.9g}|{what}".encode())
    return digest.hexdigest()
