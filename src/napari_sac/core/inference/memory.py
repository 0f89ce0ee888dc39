"""What a large image takes of memory is known before it is taken."""

from __future__ import annotations

from napari_sac.core.device import available_memory
from napari_sac.core.errors import ImageFormatError


def require_memory(needed: float, doing: str) -> None:
    """Raise before the system would end the whole program.

    Parameters
    ----------
    needed : float
        Bytes.
    doing : str
        What for, to go on after "to".

    Raises
    ------
    ImageFormatError
        If so many are not free.
    """
    free = available_memory()
    if needed > free:
        raise ImageFormatError(
            f"To {doing} takes about {needed / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are free. Nothing was changed. Crop the region of "
            "interest, close other programs, or give a larger diameter: small nuclei "
            "are looked at in more pixels."
        )
