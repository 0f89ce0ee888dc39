"""What is known about the nuclei of one plane of one image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_sac.core.types import ObjectMask, Prompts

if TYPE_CHECKING:
    from napari.layers import Labels, Layer, Points

    from napari_sac.core.inference.embedding import Embedding
    from napari_sac.viewer.planes import ImagePlane


@dataclass(eq=False)
class Annotation:
    """What is known about one plane of one image.

    Parameters
    ----------
    plane : ImagePlane or None
        None when the image was deleted; what lies on it can still be corrected.
    diameter : float
        Typical nucleus diameter in pixels, as found or given.
    threshold : float
        Proposals with a lower score are hidden.
    points : Points or None
        Our layer of prompts; None when the user has deleted it.
    labels : Labels or None
        Our layer of labels; None until there is one, or when it was deleted.
    prompts : Prompts
        Row by row what ``points`` shows.
    hidden : Prompts
        Proposals below the score threshold.
    masks : dict of int to ObjectMask
        The masks of the last segmentation.
    embedding : Embedding or None
        The embedding of the last segmentation, if there is memory for it.
    recomputed : int
        How many nuclei the last segmentation had to decode.
    seconds : dict of str to float
        How long each stage took when it was last done.
    """

    plane: ImagePlane | None
    diameter: float
    threshold: float
    points: Points | None = None
    labels: Labels | None = None
    prompts: Prompts = field(default_factory=Prompts.empty)
    hidden: Prompts = field(default_factory=Prompts.empty)
    masks: dict[int, ObjectMask] = field(default_factory=dict)
    embedding: Embedding | None = None
    recomputed: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def is_about(self, plane: ImagePlane) -> bool:
        """Return whether this is about the nuclei of that plane."""
        mine = self.plane
        if mine is None:
            return False
        return mine.layer is plane.layer and mine.position == plane.position

    def owns(self, layer: Layer) -> bool:
        """Return whether that layer shows these prompts or labels."""
        return layer is self.points or layer is self.labels

    def set_visible(self, visible: bool) -> None:
        """Show or hide both layers."""
        for layer in (self.points, self.labels):
            if layer is not None:
                layer.visible = visible
