"""New labels of a whole plane, made ready beside the window.

To find what they change, and to make a layer of them, takes the window seconds in an
image of a hundred million pixels; to see whether it was found for the labels that there
are takes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sac.core.session.pixels import PixelChange
from napari_sac.viewer.layers import build_labels, labels_name, load_tools, plane_name
from napari_sac.viewer.planes import plane_geometry

if TYPE_CHECKING:
    import numpy.typing as npt
    from napari.layers import Labels

    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.planes import ImagePlane


@dataclass(frozen=True, eq=False)
class KnownLabels:
    """The labels that a plane has when a job begins; by default it has none.

    Parameters
    ----------
    labels : (H, W) uint32 or None
        No copy: steps may write into them while the job reads them.
    writes : int
        How often that was done before, by which it is known whether it was.
    shown : bool
        Whether a layer shows them.
    """

    labels: npt.NDArray[np.uint32] | None = None
    writes: int = 0
    shown: bool = False

    @classmethod
    def of(cls, annotation: Annotation) -> KnownLabels:
        """Return the labels of an annotation as they are now."""
        labels, shown = annotation.state.labels, annotation.labels is not None
        return cls(labels, annotation.writes, shown)

    def are_those_of(self, annotation: Annotation) -> bool:
        """Return whether an annotation has these labels, and none wrote into them."""
        same = self.labels is None or self.labels is annotation.state.labels
        return same and self.writes == annotation.writes


@dataclass(frozen=True, eq=False)
class FreshLabels:
    """New labels of a plane, and what they change.

    Parameters
    ----------
    labels : (H, W) uint32
        Contiguous; they may become those of the session, which writes into them.
    known : KnownLabels
        Those from before.
    pixels : PixelChange
        From those to these. Worthless if they were written to meanwhile.
    layer : Labels or None
        That shows a copy of them, where no layer showed those from before.
    """

    labels: npt.NDArray[np.uint32]
    known: KnownLabels
    pixels: PixelChange
    layer: Labels | None = None

    @classmethod
    def after(
        cls, known: KnownLabels, labels: npt.NDArray[np.uint32], plane: ImagePlane
    ) -> FreshLabels:
        """Return labels (H, W) of a plane made ready; for a worker's thread."""
        labels = np.ascontiguousarray(labels, np.uint32)
        before = known.labels
        if before is None:
            before = np.zeros(labels.shape, np.uint32)
        pixels = PixelChange.between(before, labels)
        load_tools()
        layer = None
        if not known.shown:
            geometry = plane_geometry(plane.layer)
            layer = build_labels(labels, labels_name(plane_name(plane)), geometry)
        return cls(labels, known, pixels, layer)

    def pixels_in(self, annotation: Annotation) -> PixelChange:
        """Return what they change in an annotation; found anew if that is needed."""
        if self.known.are_those_of(annotation):
            return self.pixels
        return PixelChange.between(annotation.state.labels, self.labels)
