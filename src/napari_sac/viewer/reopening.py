"""An image that is opened gets the nuclei that were found in it before.

It may have been deleted, or not been there when its session was opened; or a session
has brought back planes of it as images of their own, whose place it takes.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from napari.layers import Image

from napari_sac.core.errors import NapariSacError
from napari_sac.core.session.image import hash_pixels, unnumbered
from napari_sac.viewer.planes import (
    AS_READ,
    ImagePlane,
    current_plane,
    full_resolution,
    is_open,
    plane_geometry,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from napari.layers import Layer

    from napari_sac.core.session.image import ImageReference
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.session import AnnotationSession

_MOST_COMPARED_PIXELS = 4_000_000
"""Of one image that is opened: for more the window would have to wait."""

OTHER_PIXELS = (
    "It has other pixels than before: see whether the nuclei fit, or delete their "
    "layers and find nuclei anew."
)


def know_again(session: AnnotationSession, layer: Layer) -> None:
    """Give an image the nuclei of its planes that have none, or one that stands in.

    Of its own file by name or by pixels; of another one, and for what is shown already,
    by pixels alone. Of a large stack some planes are compared, which all must fit.
    """
    if not isinstance(layer, Image) or layer.metadata.get(AS_READ):
        # what a session brings back knows what it is
        return
    comparison = _Comparison()
    taken: dict[Annotation, ImagePlane] = {}
    stand_ins: dict[Image, ImagePlane] = {}
    differs = False
    for annotation in session.annotations:
        reference, before = session.journal.reference(annotation), annotation.plane
        if reference is None:
            continue
        if before is not None and not before.layer.metadata.get(AS_READ):
            continue
        plane = plane_in(layer, reference)
        gone = before is None and plane is not None
        if plane is None and before is None:
            plane = plane_at(layer, reference)
        if plane is None:
            continue
        same = comparison.of(plane, reference)
        # napari numbers a name that is taken; another name may be another channel
        named = unnumbered(str(layer.name)) == unnumbered(reference.name)
        if same or (gone and named) or (same is None and comparison.fits(reference)):
            taken[annotation] = plane
            differs = differs or same is False
            if before is not None:
                stand_ins[before.layer] = plane
    if taken:
        _take(session, layer, taken, stand_ins)
        told = f"{layer.name} is here again, with its nuclei."
        session.told.emit(f"{told} {OTHER_PIXELS}" if differs else told)
        session.changed.emit()


class _Comparison:
    """What is known of the pixels of one layer, each plane read once."""

    def __init__(self) -> None:
        self._left = _MOST_COMPARED_PIXELS
        self._hashes: dict[object, str | None] = {}
        self._fits: dict[str | None, bool] = {}

    def of(self, plane: ImagePlane, reference: ImageReference) -> bool | None:
        """Return whether a plane has the pixels of a reference, None for too many."""
        key = _key(plane)
        if key not in self._hashes:
            self._left -= plane.shape[0] * plane.shape[1]
            if self._left < 0:
                return None
            self._hashes[key] = _hash(plane)
        same = self._hashes[key] == reference.sha256
        self._fits[reference.path] = same and self._fits.get(reference.path, True)
        return same

    def fits(self, reference: ImageReference) -> bool:
        """Return whether all planes of its file that were compared are the same."""
        return reference.path is not None and self._fits.get(reference.path, False)


def _take(
    session: AnnotationSession,
    layer: Image,
    taken: Mapping[Annotation, ImagePlane],
    stand_ins: Mapping[Image, ImagePlane],
) -> None:
    """Make a layer the image of annotations, in place of what stood in for it."""
    layers = session.viewer.layers
    for annotation in session.remembered:
        before = annotation.plane
        plane = taken.get(annotation)
        if plane is None and before is not None:
            # one that was begun anew, or deleted, and is kept for undo
            plane = stand_ins.get(before.layer)
        if plane is not None:
            session.see(annotation, plane)
            # the file may be another one since
            session.journal.image_changed(annotation)
            session.drawing.place(annotation, plane_geometry(layer))
    # below its nuclei, where napari puts no layer by itself
    others = [*stand_ins, *(x for a in taken for x in a.layers)]
    lowest = min((layers.index(x) for x in others if x in layers), default=len(layers))
    if lowest < layers.index(layer):
        layers.move(layers.index(layer), lowest)
    for other in stand_ins:
        if other in layers:
            layers.remove(other)
    seen = next(iter(taken.values()))
    session.follow(current_plane(layer, session.viewer.dims.point, seen.channels))


def plane_now(
    session: AnnotationSession, plane: ImagePlane, annotation: Annotation | None
) -> ImagePlane | None:
    """Return where what a job has made of a plane belongs; None if its image is gone.

    That is the plane itself, or of an image that a session had brought back the one
    that was opened in its place meanwhile. ``annotation`` is what was known of the
    plane when the job began.
    """
    if is_open(session.viewer, plane):
        return plane
    now = None if annotation is None else annotation.plane
    stood_in = plane.layer not in session.viewer.layers and AS_READ in (
        plane.layer.metadata
    )
    there = now is not None and is_open(session.viewer, now)
    return now if stood_in and there else None


def find_plane(
    layers: Collection[Layer], reference: ImageReference
) -> ImagePlane | None:
    """Return the plane if one of the layers is of the same file.

    Of a file that gives several layers it is the one of the same name.
    """
    planes = (plane_in(layer, reference) for layer in layers)
    found = [plane for plane in planes if plane is not None]
    if len(found) > 1:
        found = [p for p in found if str(p.layer.name) == reference.name]
    return found[0] if len(found) == 1 else None


def find_moved(
    layers: Collection[Layer],
    reference: ImageReference,
    hashes: dict[object, str | None],
) -> ImagePlane | None:
    """Return the plane with the very pixels of an image, whatever file it is from.

    Of many images that are missing each would look at all layers: ``hashes`` is what
    those before have found.
    """
    for layer in layers:
        plane = plane_at(layer, reference)
        if plane is None:
            continue
        key = (layer, *_key(plane))
        if key not in hashes:
            hashes[key] = _hash(plane)
        if hashes[key] == reference.sha256:
            return plane
    return None


def plane_in(layer: Layer, reference: ImageReference) -> ImagePlane | None:
    """Return the plane in a layer, if that is of the file that a reference names."""
    path = file_of(layer)
    if path is None or reference.path is None or Path(path) != Path(reference.path):
        return None
    return plane_at(layer, reference)


def plane_at(layer: Layer, reference: ImageReference) -> ImagePlane | None:
    """Return the plane of a layer that could be what a reference is about.

    It lies at the same position and has the same shape; its pixels are not looked at.
    """
    if not isinstance(layer, Image):
        return None
    plane = ImagePlane(
        layer,
        full_resolution(layer),
        reference.index,
        reference.channel_axis,
        reference.channels,
        reference.stain,
    )
    there = layer.ndim - 2 == len(plane.index) and plane.is_in(plane.data.shape)
    return plane if there and plane.shape == reference.shape else None


def file_of(layer: Layer) -> str | None:
    """Return the file that a layer was read from, if it is known."""
    path = getattr(layer.source, "path", None)
    return None if path is None else str(Path(path).absolute())


def has_pixels(plane: ImagePlane, reference: ImageReference) -> bool:
    """Return whether a plane has the very pixels that a reference is about."""
    return _hash(plane) == reference.sha256


def _key(plane: ImagePlane) -> tuple[object, ...]:
    """Return what tells planes of a layer from each other."""
    return plane.index, plane.channel_axis, plane.channels, plane.stain


def _hash(plane: ImagePlane) -> str | None:
    """Return the hash of the pixels of a plane; None if they cannot be read."""
    with suppress(NapariSacError, OSError):
        return hash_pixels(plane.read())
    return None
