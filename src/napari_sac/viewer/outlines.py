"""Nuclei as outlines in one colour, so that both they and the image are seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from napari.utils.colormaps import CyclicLabelColormap

from napari_sac.core.staining import has_colours
from napari_sac.viewer.planes import sample_colours

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.utils.colormaps.colormap import LabelColormapBase

    from napari_sac.viewer.annotation import Annotation

COLOUR = "#39FF14"
"""Far from the pixels at the borders of nuclei, to the colour-blind too.

CIEDE2000, 5th percentile, the worst of no and three kinds of colour blindness: 35 on
H&E, 37 on fluorescence; yellow is at 24, cyan at 12, magenta at 8.
"""

WIDTH = 2
"""In pixels of the image, inside the nucleus."""

MOST_PIXELS = 16_000_000
"""Of an image whose nuclei are outlined unasked: napari searches all pixels for
outlines whenever it draws the whole layer, 50 to 80 ns each."""


@dataclass(frozen=True, eq=False)
class _Look:
    """How a layer looked when its nuclei were filled."""

    colormap: LabelColormapBase
    opacity: float


class OutlineSwitch:
    """Switches layers of labels between filled nuclei and outlines.

    Attributes
    ----------
    wanted : bool or None
        What a person has chosen for all; None as long as nobody has.
    """

    def __init__(self) -> None:
        self.wanted: bool | None = None
        self._filled: WeakKeyDictionary[Labels, _Look] = WeakKeyDictionary()

    def suits(self, annotation: Annotation) -> bool:
        """Return whether outlines suit an annotation, until a person says otherwise.

        In an image with colours of its own, those of filled nuclei hide what they are
        about. In a large one the window would wait for outlines.
        """
        if self.wanted is not None:
            return self.wanted
        if annotation.state.labels.size > MOST_PIXELS:
            return False
        plane = annotation.plane
        return plane is not None and has_colours(sample_colours(plane.layer))

    def apply(self, layer: Labels, outlined: bool) -> None:
        """Show the nuclei of a layer as outlines, or filled.

        The labels stay as they are, so that picking and painting do. A cycle of one
        colour costs no more than napari's own: a direct colormap would be compiled for
        seconds at first, and once more at the first stroke.
        """
        known = self._filled.get(layer)
        if outlined and known is None:
            self._filled[layer] = _Look(layer.colormap, layer.opacity)
            # first the colours: napari searches all pixels for outlines each time
            layer.colormap = _one_colour()
            layer.opacity = 1.0
            layer.contour = WIDTH
        elif not outlined and known is not None:
            del self._filled[layer]
            layer.contour = 0
            layer.opacity = known.opacity
            layer.colormap = known.colormap


def _one_colour() -> CyclicLabelColormap:
    return CyclicLabelColormap(colors=["transparent", COLOUR])
