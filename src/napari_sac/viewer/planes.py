"""The plane of an image layer that is segmented: which pixels, and where they lie.

A layer may be two-dimensional, a stack, multichannel or multiscale; what leaves here is
always one plane of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sac.core.errors import ImageFormatError, NapariSacError
from napari_sac.core.io import (
    DECODE_ERRORS,
    MAX_PIXELS,
    is_pixel_size,
    normalise_image,
)
from napari_sac.core.session.image import position_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer

    from napari_sac.core.config import Stain
    from napari_sac.core.types import AnyArray, FloatArray

_CHANNEL_LABELS = ("c", "ch", "channel", "channels")
_MOST_CHANNELS = 16
_FEW_CHANNELS = 4
"""Beside an axis that is longer: planes or times."""

IMAGE_FILE = "napari-sac image"
"""In the metadata of a layer: the file of pixels that a session brought back."""

IMAGE_ORIGIN = "napari-sac origin"
"""In the metadata of such a layer: the same for all planes of one image."""

PLACING = ("scale", "translate", "rotate", "shear", "affine")
"""The events of a layer that tell where it lies."""

AS_READ = "napari-sac pixels"
"""In the metadata of a layer: whether its pixels are as every model reads them."""


@dataclass(frozen=True, eq=False)
class ImagePlane:
    """One plane of an image layer, not read yet.

    Parameters
    ----------
    layer : napari.layers.Image
    data : array-like
        The pixels of the layer at full resolution; numpy, dask or zarr.
    index : tuple of int
        Position along the axes before the last two; empty for a 2-D image.
    channel_axis : int or None
        Which of those axes holds channels.
    channels : tuple of int
        The channels along that axis that show nuclei; empty for the plane as shown.
    stain : str or None
        The stain that is looked at alone, if the layer is RGB; None for the plane as
        shown.
    """

    layer: Image
    data: Any
    index: tuple[int, ...]
    channel_axis: int | None = None
    channels: tuple[int, ...] = ()
    stain: Stain | None = None

    @property
    def position(self) -> tuple[int, ...]:
        """The index without chosen channels: at one position lie the same nuclei."""
        return position_of(self.index, self.channel_axis, self.channels)

    def shows_as(self, other: ImagePlane) -> bool:
        """Return whether another plane at this position has the same pixels."""
        same = (self.channels, self.stain) == (other.channels, other.stain)
        return same and self.data is other.data

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        rows = len(self.index)
        return int(self.data.shape[rows]), int(self.data.shape[rows + 1])

    def is_in(self, shape: tuple[int, ...]) -> bool:
        """Return whether pixels of a shape have this plane, and its channels."""
        if len(shape) < len(self.index) + 2:
            return False
        channels = 0 if self.channel_axis is None else shape[self.channel_axis]
        return all(i < n for i, n in zip(self.index, shape, strict=False)) and all(
            channel < channels for channel in self.channels
        )

    def read(self) -> npt.NDArray[np.uint8]:
        """Return the pixels as every model reads them.

        Returns
        -------
        (H, W, 3) uint8
            As :func:`~napari_sac.core.io.normalise_image` returns them.

        Raises
        ------
        ImageFormatError
            If the plane has no pixels, too many, or values that are not intensities;
            if a file behind it cannot be read, or its last axis holds channels.
        """
        if self.has_channels_last:
            raise ImageFormatError(
                f"The last axis of {self.layer.name}, {self.data.shape}, looks like "
                "channels, and napari takes the last two axes for the picture. Nothing "
                "was changed; move the channels to the front: in napari's console, "
                "viewer.add_image(np.moveaxis(DATA, -1, 0))."
            )
        height, width = self.shape
        if height * width > MAX_PIXELS:
            raise ImageFormatError(
                f"{self.layer.name} is {height:,} x {width:,} pixels, more than fit in "
                "memory at once. Nothing was changed; crop the region of interest."
            )
        if self.layer.metadata.get(AS_READ) and self.stain is None:
            # to stretch intensities again would change them
            return np.array(self._values(...))
        if self.channel_axis is None or not self.channels:
            return normalise_image(self._values(self.index), stain=self.stain)
        planes = [self._values(self._at(c)) for c in self.channels]
        return normalise_image(
            np.stack(planes, axis=-1), channels=range(len(self.channels))
        )

    def _values(self, key: Any) -> AnyArray:
        """Return a part of the data; dask and zarr read files only now."""
        try:
            return np.asarray(self.data[key])
        except (NapariSacError, MemoryError):
            raise
        except DECODE_ERRORS as error:
            raise ImageFormatError(
                f"{self.layer.name} could not be read ({error or type(error).__name__})"
                ". Nothing was changed; check that its file or drive is still there."
            ) from error

    @property
    def has_channels_last(self) -> bool:
        """Whether what napari shows is no picture, for the last axis holds channels."""
        shape = self.data.shape
        if self.layer.rgb or len(shape) < 3:
            return False
        label = str(self.layer.axis_labels[-1]).lower()
        if not label.lstrip("-").isdigit():
            return label in _CHANNEL_LABELS
        # nobody labelled it: a picture is seldom that thin
        thin = shape[-1] <= _MOST_CHANNELS and min(shape[-3:-1]) > 4 * _MOST_CHANNELS
        return bool(thin)

    def _at(self, channel: int) -> tuple[int, ...]:
        index = list(self.index)
        index[self.channel_axis or 0] = channel
        return tuple(index)


def current_plane(
    layer: Image,
    point: Sequence[float],
    channels: tuple[int, ...] = (),
    stain: Stain | None = None,
) -> ImagePlane:
    """Return the plane of the layer that a viewer shows.

    Parameters
    ----------
    layer : napari.layers.Image
    point : sequence of float
        Where the viewer's sliders stand, in world coordinates: ``viewer.dims.point``.
    channels : tuple of int, optional
        Channels that show nuclei, if the layer has an axis of channels.
    stain : str, optional
        The stain to look at alone, if the layer is RGB.
    """
    data = full_resolution(layer)
    before = layer.ndim - 2
    world = np.zeros(layer.ndim)
    known = np.asarray(point, float)[-layer.ndim :]
    world[layer.ndim - len(known) :] = known
    place = np.rint(np.asarray(layer.world_to_data(world))[:before]).astype(int)
    limits = np.asarray(data.shape[:before]) - 1
    index = tuple(int(i) for i in np.clip(place, 0, np.maximum(limits, 0)))
    stain = stain if layer.rgb else None
    return ImagePlane(layer, data, index, channel_axis(layer), channels, stain)


def full_resolution(layer: Image | Labels) -> Any:
    """Return the pixels that a layer has now, array-like, at full resolution."""
    return layer.data[0] if layer.multiscale else layer.data


def is_open(viewer: ViewerModel, plane: ImagePlane) -> bool:
    """Return whether a viewer has the image of a plane still, with the same pixels."""
    layer = plane.layer
    return layer in viewer.layers and plane.data is full_resolution(layer)


def is_turned(viewer: ViewerModel, layer: Image) -> bool:
    """Return whether a viewer shows other axes of a layer than its planes, or 3D."""
    if viewer.dims.ndisplay != 2:
        return bool(layer.ndim > 2)
    first = viewer.dims.ndim - layer.ndim
    planes = (first + layer.ndim - 2, first + layer.ndim - 1)
    shown: list[int] = sorted(viewer.dims.displayed)
    return shown != sorted(planes)


def look_at_plane(viewer: ViewerModel, plane: ImagePlane) -> None:
    """Move a viewer's sliders to where it shows a plane of one of its images."""
    layer, axes = plane.layer, len(plane.index)
    place = layer.data_to_world([*plane.index, *(0.0,) * (layer.ndim - axes)])
    first = viewer.dims.ndim - layer.ndim
    viewer.dims.set_point(range(first, first + axes), place[:axes])


def channel_axis(layer: Image) -> int | None:
    """Return which axis of the layer holds channels, or None.

    It is the one labelled so; without labels, the only leading axis if it is short, or
    of two the one that is much the shorter. Axes of RGB do not count.
    """
    labelled = _labelled_channels(layer)
    if labelled is not None or not are_axes_unnamed(layer):
        return labelled
    leading = full_resolution(layer).shape[: layer.ndim - 2]
    if len(leading) == 1:
        return 0 if leading[0] <= _MOST_CHANNELS else None
    short = [axis for axis, n in enumerate(leading) if 1 < n <= _FEW_CHANNELS]
    return short[0] if len(leading) == 2 and len(short) == 1 else None


def are_axes_unnamed(layer: Image) -> bool:
    """Return whether nobody has said what the axes of an image are.

    napari numbers them then: -3, -2, -1. Those of RGB, and of a picture of two axes,
    are no question.
    """
    first = str(layer.axis_labels[0]).lstrip("-")
    return not layer.rgb and layer.ndim > 2 and first.isdigit()


def _labelled_channels(layer: Image) -> int | None:
    if layer.rgb:
        return None
    labels = [str(label).lower() for label in layer.axis_labels[: layer.ndim - 2]]
    found = (axis for axis, label in enumerate(labels) if label in _CHANNEL_LABELS)
    return next(found, None)


def channel_count(layer: Image) -> int:
    """Return how many channels there are to choose from; 0 where there is no choice."""
    axis = channel_axis(layer)
    if axis is None:
        return 0
    return int(full_resolution(layer).shape[axis])


def plane_geometry(layer: Image) -> dict[str, Any]:
    """Return the arguments that put a 2-D layer where the planes of an image lie."""
    geometry: dict[str, Any] = {
        "scale": tuple(layer.scale[-2:]),
        "translate": tuple(layer.translate[-2:]),
        "units": tuple(layer.units[-2:]),
        "axis_labels": tuple(layer.axis_labels[-2:]),
    }
    rotate, shear = np.asarray(layer.rotate), np.asarray(layer.shear)
    # a stack that is turned out of its planes has none that 2-D layers could lie in
    if not rotate[:-2, -2:].any():
        geometry["rotate"] = rotate[-2:, -2:]
    if shear.ndim == 1:
        # of the last two axes against each other
        geometry["shear"] = shear[-1:]
    elif not shear[:-2, -2:].any():
        geometry["shear"] = shear[-2:, -2:]
    geometry["affine"] = np.asarray(layer.affine)[-3:, -3:]
    return geometry


def pixel_size(layer: Layer) -> tuple[float, float] | None:
    """Return height and width of a pixel in micrometres.

    None where nobody has said, or where they cannot be those of a pixel.
    """
    size = []
    for scale, unit in zip(layer.scale[-2:], layer.units[-2:], strict=True):
        if not unit.is_compatible_with("micrometer"):
            return None
        size.append(abs(float((scale * unit).to("micrometer").magnitude)))
    return (size[0], size[1]) if is_pixel_size(size) else None


def sample_colours(layer: Image) -> FloatArray:
    """Return the colours (N, 3), from 0 to 1, of a few pixels that an RGB layer shows.

    They are those of napari's thumbnail, which is there already, however large the
    image is. None, (0, 3), of other layers.
    """
    if not layer.rgb:
        return np.zeros((0, 3))
    pixels = np.asarray(layer.thumbnail).reshape(-1, 4)
    # beside an image that is not square there is nothing
    return np.asarray(pixels[pixels[:, 3] > 0, :3] / 255.0)
