"""Shapes as gestures: boxes that prompt, lassos that select, reviewed regions.

Both layers are napari's Shapes. What is drawn in the layer of tools is taken up and
goes; what is drawn in the layer of reviewed regions stays, and is a decision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers.base import ActionType

from napari_sac.core.polygons import mask_of, mostly_inside
from napari_sac.core.session.changes import same_polygons
from napari_sac.core.types import POSITIVE
from napari_sac.viewer.layers import build_shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt
    from napari.layers import Layer, Shapes
    from napari.utils.events import Event

    from napari_sac.core.types import BoolArray, FloatArray, Prompts
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.session import AnnotationSession

_TOOLS_COLOUR = "#56B4E9"
_REVIEWED_COLOUR = "#009E73"

_SMALLEST_BOX = 2.0
"""In pixels of the image: a smaller one is a click that slipped."""
_CURVE_POINTS = 64
_ELLIPSE = "ellipse"
_LINE = "line"
_CLOSED = ("rectangle", "ellipse", "polygon")

TOOLS_HINT = (
    "Draw a rectangle around a nucleus that was missed; or take napari's lasso or "
    "polygon, and draw around points to select them."
)
REVIEWED_HINT = (
    "Draw a rectangle where all nuclei are right and none is missing: they are "
    "accepted, and the ground between them counts as background. napari's polygon and "
    "lasso draw other shapes."
)
NO_AREA = (
    "A line encloses nothing, so it was taken away. Draw a rectangle, or a closed line."
)


class Regions:
    """Listens to the Shapes layers of a session.

    Parameters
    ----------
    session : AnnotationSession
    """

    def __init__(self, session: AnnotationSession) -> None:
        self._session = session
        self._paused = False

    def show_tools(self, annotation: Annotation) -> Shapes:
        """Show the layer of boxes and lassos, ready to draw a box; say how."""
        if annotation.tools is None:
            name = f"boxes and lassos [{annotation.name}]"
            layer = build_shapes(name, annotation.geometry, _TOOLS_COLOUR)
            layer.events.data.connect(self._on_tool)
            annotation.tools = layer
            self._session.drawing.adopt(annotation, layer)
        return self._take_up(annotation.tools, TOOLS_HINT)

    def show_reviewed(self, annotation: Annotation) -> Shapes:
        """Show the layer of reviewed regions, ready to draw one; say how."""
        return self._take_up(self.restore_reviewed(annotation), REVIEWED_HINT)

    def restore_reviewed(self, annotation: Annotation) -> Shapes:
        """Show the layer of reviewed regions; the mouse keeps its tool."""
        if annotation.regions is None:
            name = f"reviewed regions [{annotation.name}]"
            layer = build_shapes(name, annotation.geometry, _REVIEWED_COLOUR)
            annotation.regions = layer
            self.draw_reviewed(annotation)
            layer.events.data.connect(self._on_region)
            self._session.drawing.adopt(annotation, layer)
        return annotation.regions

    def draw_reviewed(self, annotation: Annotation) -> None:
        """Make the layer of reviewed regions show what was decided."""
        layer = annotation.regions
        if layer is None or (
            are_closed(layer) and same_polygons(polygons(layer), annotation.reviewed)
        ):
            return
        before, self._paused = self._paused, True
        _empty(layer)
        if annotation.reviewed:
            layer.add_polygons([p.copy() for p in annotation.reviewed])
        self._paused = before

    def _take_up(self, layer: Shapes, hint: str) -> Shapes:
        self._session.viewer.layers.selection.active = layer
        # nobody can draw in a layer that is hidden
        layer.visible = True
        layer.mode = "add_rectangle"
        self._session.told.emit(hint)
        return layer

    def _on_tool(self, event: Event) -> None:
        layer, annotation = event.source, self._session.owner(event.source)
        if self._paused or annotation is None or event.action != ActionType.ADDED:
            return
        if layer.nshapes == 0:
            return
        kind, outlines = str(layer.shape_type[-1]), polygons(layer)
        before, self._paused = self._paused, True
        _empty(layer)
        self._paused = before
        if not outlines:
            self._session.told.emit(NO_AREA)
        elif np.ptp(outlines[-1], axis=0).min() < _SMALLEST_BOX:
            return
        elif kind == "rectangle":
            self._session.add_box(annotation, outlines[-1])
        else:
            self._select(annotation, outlines[-1])

    def _select(self, annotation: Annotation, outline: FloatArray) -> None:
        """Select the prompts in a lasso, ready for the keys that accept or reject."""
        layer = annotation.points
        if layer is None:
            return
        self._session.sync(annotation)
        chosen = np.flatnonzero(inside_polygon(annotation.prompts.yx, outline))
        self._activate_points(layer)
        layer.selected_data = set(chosen.tolist())

    def _activate_points(self, layer: Layer) -> None:
        self._session.viewer.layers.selection.active = layer
        if not layer.visible:
            layer.visible = True
        # in the mode for adding, a selection would be cleared
        layer.mode = "select"

    def _on_region(self, event: Event) -> None:
        layer, annotation = event.source, self._session.owner(event.source)
        finished = (ActionType.ADDED, ActionType.CHANGED, ActionType.REMOVED)
        if self._paused or annotation is None or event.action not in finished:
            return
        drawn = polygons(layer)
        if len(drawn) < layer.nshapes:
            self._session.told.emit(NO_AREA)
        if not same_polygons(drawn, annotation.reviewed):
            self._session.set_reviewed(annotation, drawn)
        # what was drawn open is shown as it counts: closed, or not at all
        self.draw_reviewed(annotation)


def are_closed(layer: Shapes) -> bool:
    """Return whether all shapes are areas, and are drawn so."""
    return all(str(kind) in _CLOSED for kind in layer.shape_type)


def polygons(layer: Shapes) -> tuple[npt.NDArray[np.float64], ...]:
    """Return the outlines (N, 2) of the shapes that enclose something.

    An ellipse becomes a polygon of many corners; a path of three corners is closed.
    """
    outlines = []
    for kind, data in zip(layer.shape_type, layer.data, strict=True):
        corners = np.array(data, np.float64)[:, -2:]
        if str(kind) == _LINE:
            continue
        if str(kind) == _ELLIPSE:
            corners = _ellipse(corners)
        if len(corners) >= 3:
            outlines.append(corners)
    return tuple(outlines)


def inside_polygon(points: FloatArray, polygon: FloatArray) -> BoolArray:
    """Return which points (N, 2) lie in a polygon (M, 2), by the even-odd rule."""
    inside = np.zeros(len(points), bool)
    y, x = points.T
    for (y0, x0), (y1, x1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > y) != (y1 > y)
        inside ^= crosses & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
    return inside


def nuclei_inside(prompts: Prompts, polygons: Iterable[FloatArray]) -> set[int]:
    """Return the ids of nuclei that have a positive point in one of the polygons."""
    inside = np.zeros(len(prompts), bool)
    for polygon in polygons:
        inside |= inside_polygon(prompts.yx, polygon)
    return set(prompts.object_id[inside & (prompts.sign == POSITIVE)].tolist())


def labels_inside(
    labels: npt.NDArray[np.uint32], polygons: Sequence[FloatArray], reach: int
) -> set[int]:
    """Return the labels (H, W) that lie mostly in polygons.

    Of them only the pixels within ``reach`` of the polygons' box count: to look at all
    of a large image would take long.
    """
    corners = np.concatenate(polygons)
    first = np.floor(corners.min(axis=0)).astype(int) - reach
    last = np.ceil(corners.max(axis=0)).astype(int) + reach + 1
    first, last = (np.clip(corner, 0, labels.shape) for corner in (first, last))
    near = labels[first[0] : last[0], first[1] : last[1]]
    mask = mask_of([one - first for one in polygons], near.shape)
    return set(mostly_inside(near, mask).tolist())


def _empty(layer: Shapes) -> None:
    layer.selected_data = set()
    # with the tool for paths or polygons, napari would end the drawing that it is
    # telling of a second time, and fail
    tool, layer.mode = layer.mode, "select"
    layer.remove(list(range(layer.nshapes)))
    layer.mode = tool


def _ellipse(corners: FloatArray) -> npt.NDArray[np.float64]:
    """Return the outline of an ellipse, given the corners (4, 2) of its box."""
    centre = corners.mean(axis=0)
    first, second = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    angle = np.linspace(0, 2 * np.pi, _CURVE_POINTS, endpoint=False)[:, None]
    return np.asarray(centre + np.cos(angle) * first + np.sin(angle) * second)
