"""Which image a session is about: enough to find its pixels again and to know them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sac.core.config import STAINS
from napari_sac.core.errors import ImageFormatError, SessionError
from napari_sac.core.io import (
    DECODE_ERRORS,
    HIGHEST_COMPRESSION,
    MAX_PIXELS,
    TIFF_SUFFIXES,
    normalise_image,
    read_image,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_sac.core.config import Stain
    from napari_sac.core.types import AnyArray

MAX_TEXT = 4096
"""Most characters in a name or path of an image."""

_MAX_AXES = 16
_MAX_PLANE_BYTES = 16 << 30


@dataclass(frozen=True)
class ImageReference:
    """One plane of an image.

    Parameters
    ----------
    path : str or None
        The file; None for an image that never had one.
    name : str
        As the layer was called.
    sha256 : str
        Of the plane's pixels, (H, W, 3) uint8 as
        :func:`~napari_sac.core.io.normalise_image` returns them.
    shape : (int, int)
        Height and width.
    index : tuple of int
        Position along the axes before the last two; empty for a 2-D image.
    channel_axis : int or None
        Which of those axes holds channels.
    channels : tuple of int
        The channels along that axis that show nuclei; empty for the plane as shown.
    stain : str or None
        The stain of an RGB plane that is looked at alone, one of
        :data:`~napari_sac.core.config.STAINS`; None for the plane as shown.
    kept : bool
        Whether the session holds the pixels itself, as ``image-N.tif``.
    """

    path: str | None
    name: str
    sha256: str
    shape: tuple[int, int]
    index: tuple[int, ...] = ()
    channel_axis: int | None = None
    channels: tuple[int, ...] = ()
    stain: Stain | None = None
    kept: bool = False

    @property
    def position(self) -> tuple[int, ...]:
        """The index without chosen channels: at one position lie the same nuclei."""
        return position_of(self.index, self.channel_axis, self.channels)

    def is_plane_of(self, other: ImageReference) -> bool:
        """Return whether another reference is about the same plane of one image."""
        places = ((r.path, r.position, r.shape) for r in (self, other))
        if len(set(places)) > 1:
            return False
        if self.sha256 == other.sha256:
            return True
        # other channels or another stain; a file may also give several layers
        return self.path is not None and unnumbered(self.name) == unnumbered(other.name)

    def to_json(self) -> str:
        """Return the reference as a JSON object."""
        values = asdict(self)
        if self.stain is None:
            # as before there were stains: an older version can read it
            del values["stain"]
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> ImageReference:
        """Return the reference that :meth:`to_json` wrote.

        Raises
        ------
        ValueError
            If it is not one, or has impossible values.
        """
        read = json.loads(text)
        if not isinstance(read, dict):
            raise ValueError("not an image reference")
        values: dict[str, Any] = {"stain": None, **read}
        if set(values) != set(cls.__annotations__):
            raise ValueError("not an image reference")
        for name in ("shape", "index", "channels"):
            values[name] = _whole_numbers(values[name])
        result = cls(**values)
        texts = (result.path or "", result.name, result.sha256)
        axis = result.channel_axis
        if (
            any(not isinstance(t, str) or len(t) > MAX_TEXT for t in texts)
            or len(result.shape) != 2
            or min(result.shape) < 1
            or result.shape[0] * result.shape[1] > MAX_PIXELS
            or not isinstance(result.kept, bool)
            or result.stain not in (None, *STAINS)
            or not (axis is None or (type(axis) is int and 0 <= axis < _MAX_AXES))
        ):
            raise ValueError("an image reference with impossible values")
        return result


def position_of(
    index: tuple[int, ...], channel_axis: int | None, channels: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the index of a plane without its channels, if some were chosen."""
    if channel_axis is None or not channels:
        return index
    return index[:channel_axis] + index[channel_axis + 1 :]


def unnumbered(name: str) -> str:
    """Return the name of a layer without the number that napari gives the second."""
    return re.sub(r" \[\d+\]$", "", name)


def hash_pixels(pixels: npt.NDArray[np.uint8]) -> str:
    """Return the SHA-256 of the bytes of (H, W, 3) uint8 pixels."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def load_pixels(
    reference: ImageReference, kept: Path, beside: Path
) -> tuple[npt.NDArray[np.uint8], Path]:
    """Return the pixels that a reference is about, and where they were.

    Parameters
    ----------
    reference : ImageReference
    kept : Path
        Where the session would keep them itself.
    beside : Path
        Folder that is searched for the file, if it is no longer where it was.

    Returns
    -------
    (H, W, 3) uint8, and Path
        The file that they were read from.

    Raises
    ------
    SessionError
        If the image is missing, cannot be read without napari, or is another one.
    """
    if reference.kept:
        places = [kept]
    else:
        path = reference.path or ""
        # a session may come from a computer that writes paths in another way
        name = re.split(r"[\\/]", path)[-1]
        places = [Path(path), beside / name] if name else []
    reasons = []
    for place in dict.fromkeys(places):
        # pathlib raises where one may not look
        if not os.path.isfile(place):
            continue
        try:
            pixels = read_image(place) if reference.kept else _read(place, reference)
        except ImageFormatError as error:
            reasons.append(str(error))
            continue
        fits = pixels.dtype == np.uint8 and pixels.shape == (*reference.shape, 3)
        if fits and hash_pixels(pixels) == reference.sha256:
            return pixels, place
        reasons.append(f"{place} holds other pixels than the session is about.")
    why = " ".join(reasons) or f"It is not at {reference.path or kept}."
    raise SessionError(
        f"The image {reference.name!r:.200} of the session cannot be used. {why} Put "
        f"the image back, or put it into {beside}."
    )


def _read(file: Path, reference: ImageReference) -> npt.NDArray[np.uint8]:
    stain = reference.stain
    if not reference.index:
        return normalise_image(read_image(file), stain=stain)
    axis = reference.channel_axis
    if axis is None or not reference.channels:
        (plane,) = _read_planes(file, [reference.index])
        return normalise_image(plane, stain=stain)
    if axis >= len(reference.index):
        raise ImageFormatError(f"{file} has no channels {reference.channels}.")
    before, after = reference.index[:axis], reference.index[axis + 1 :]
    planes = _read_planes(file, [(*before, c, *after) for c in reference.channels])
    return normalise_image(np.stack(planes, axis=-1), range(len(planes)))


def _read_planes(file: Path, indices: Sequence[tuple[int, ...]]) -> list[AnyArray]:
    """Return some planes of a TIFF, read without the others."""
    import tifffile
    import zarr

    if file.suffix.lower() not in TIFF_SUFFIXES:
        raise ImageFormatError(f"{file} is a stack, but no TIFF.")
    try:
        with (
            tifffile.TiffFile(file) as tiff,
            tiff.series[0].aszarr(level=0) as store,
        ):
            stack = zarr.open_array(store, mode="r")
            size = math.prod(stack.shape[len(indices[0]) :]) * stack.dtype.itemsize
            packed = HIGHEST_COMPRESSION * file.stat().st_size
            if size * len(indices) > min(_MAX_PLANE_BYTES, packed):
                raise ImageFormatError(
                    f"{file} claims {size:,} bytes a plane, too many to read."
                )
            for index in indices:
                inside = (0 <= i < n for i, n in zip(index, stack.shape, strict=False))
                if len(index) > stack.ndim - 2 or not all(inside):
                    raise ImageFormatError(f"{file} has no plane {index}.")
            return [np.asarray(stack[index]) for index in indices]
    except DECODE_ERRORS as error:
        raise ImageFormatError(
            f"{file} could not be read as a stack ({error})."
        ) from error


def _whole_numbers(values: Any) -> tuple[int, ...]:
    if (
        not isinstance(values, list)
        or len(values) > _MAX_AXES
        or any(type(v) is not int or v < 0 for v in values)
    ):
        raise ValueError("not a list of whole numbers")
    return tuple(values)
