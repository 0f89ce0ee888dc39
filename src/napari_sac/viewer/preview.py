"""The hover preview: the mask that a click would give, while the mouse moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels

from napari_sac.core.types import POSITIVE
from napari_sac.viewer import prompts as edits
from napari_sac.viewer.editing import nucleus_at
from napari_sac.viewer.layers import keep_no_history
from napari_sac.viewer.live import Edit, PreviewRequest

if TYPE_CHECKING:
    import numpy.typing as npt
    from napari.layers import Layer
    from napari.utils.events import Event

    from napari_sac.core.types import FloatArray, ObjectMask, Prompts
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.live import LiveResult
    from napari_sac.viewer.session import AnnotationSession

NAME = "nuclei preview"

_COLOUR = "#56B4E9"
_WINDOW = 256
"""Side of the part of the plane that the layer covers, in pixels. To move the layer, or
to give it another shape, takes napari ten times as long as to write pixels into it."""
_OPACITY = 0.5


class HoverPreview:
    """Shows the mask that a click would give where the mouse is.

    Parameters
    ----------
    session : AnnotationSession

    Attributes
    ----------
    enabled : bool
    layer : Labels or None
        What shows the mask; it holds nothing that is kept.
    """

    def __init__(self, session: AnnotationSession) -> None:
        self._session = session
        self._enabled = True
        self._asked: tuple[Any, ...] | None = None
        self._shown: FloatArray | None = None
        self._window: tuple[int, int, int] | None = None
        self.layer: Labels | None = None
        session.viewer.events.mouse_over_canvas.connect(self._on_mouse_over)

    @property
    def enabled(self) -> bool:
        """Whether the mouse is followed."""
        return self._enabled

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        self._enabled = enabled
        if not enabled:
            self.hide()

    @property
    def follows(self) -> bool:
        """Whether the mouse is where a click would give something."""
        return self._asked is not None

    def look(
        self, annotation: Annotation, yx: FloatArray, sign: int, *, joins: bool
    ) -> None:
        """Ask for the mask of a click at (y, x), in pixels of the image.

        Parameters
        ----------
        annotation : Annotation
        yx : (2,) float
        sign : {POSITIVE, NEGATIVE}
        joins : bool
            Whether the point would belong to a nucleus there is.
        """
        # computing an embedding for it would block what was really asked for
        if not self._enabled or annotation.embedding is None:
            return
        height, width = annotation.state.labels.shape
        inside = (-0.5 <= yx[0] < height - 0.5) and (-0.5 <= yx[1] < width - 0.5)
        owner = nucleus_at(annotation, yx) if joins else None
        if not inside or (sign != POSITIVE and owner is None):
            self.hide()
            return
        asked = (annotation.number, *yx.tolist(), sign, owner, annotation.prompts)
        if self._asked == asked:
            return
        request = self.foresee(annotation, yx, sign, owner)
        if request is None:
            return
        self._asked = asked
        if self._is_far(annotation, yx):
            # on a busy computer the new one may take a while
            self._clear()
        self._session.live.ask_preview(request)

    def look_at_move(self, annotation: Annotation, row: int, yx: FloatArray) -> None:
        """Ask for the mask of a prompt that is being dragged, where it is now.

        Parameters
        ----------
        annotation : Annotation
        row : int
            Of the prompts.
        yx : (2,) float
            Where it would lie, in pixels of the image, if it was let go.
        """
        if not self._enabled or annotation.embedding is None:
            return
        prompts = annotation.prompts
        asked = (annotation.number, *yx.tolist(), row, None, prompts)
        if row >= len(prompts) or self._asked == asked:
            return
        place = np.asarray(yx, np.float64)[None]
        after = edits.move(prompts, np.array([row], np.intp), place)
        request = self._request(annotation, yx, after, int(after.object_id[row]))
        if request is not None:
            self._asked = asked
            self._session.live.ask_preview(request)

    def foresee(
        self,
        annotation: Annotation,
        yx: FloatArray,
        sign: int = POSITIVE,
        owner: int | None = None,
    ) -> PreviewRequest | None:
        """Return what to compute for a click at (y, x); None if nothing can be.

        Parameters
        ----------
        annotation : Annotation
        yx : (2,) float
        sign : {POSITIVE, NEGATIVE}
        owner : int, optional
            The nucleus that would get the point; a new one by default.
        """
        state = annotation.state
        new_id = edits.next_id(state.prompts, state.hidden)
        place = np.asarray(yx, np.float64)[None]
        if owner is None:
            after = edits.add(state.prompts, place, sign, new_id)
        else:
            after = edits.add_to(state.prompts, place, sign, owner)
        object_id = new_id if owner is None else owner
        return self._request(annotation, yx, after, object_id)

    def _request(
        self,
        annotation: Annotation,
        yx: FloatArray,
        after: Prompts,
        object_id: int,
    ) -> PreviewRequest | None:
        scene, state = self._session.scene(annotation), annotation.state
        if scene is None or scene.embedding is None:
            return None
        if state.settings.decode.mode != "instance":
            return None
        return PreviewRequest(
            annotation=annotation.number,
            scene=scene,
            yx=(float(yx[0]), float(yx[1])),
            edit=Edit(state.prompts, after),
            object_id=object_id,
            labels=state.labels,
            masks=dict(annotation.masks),
            painted=state.painted,
            changes=self._session.steps.changes,
            unsure=annotation.unsure,
        )

    def show(self, annotation: Annotation, result: LiveResult) -> None:
        """Show a mask, if the mouse is still there."""
        request, mask = result.request, result.mask
        if self._asked is None or mask is None:
            return
        if not isinstance(request, PreviewRequest):
            return
        if self._asked[1:3] == request.yx:
            self._draw(annotation, mask)
            self._shown = np.array(request.yx)

    def hide(self) -> None:
        """Show nothing; the mouse is elsewhere."""
        self._asked = None
        self._session.live.ask_preview(None)
        self._clear()

    def forget(self, layer: Layer) -> None:
        """Note that a layer was removed."""
        if layer is self.layer:
            self.layer = self._window = None

    def _on_mouse_over(self, event: Event) -> None:
        # napari tells nobody that the mouse moves when it is over the dock
        if not event.value:
            self.hide()

    def _clear(self) -> None:
        self._shown = None
        if self.layer is not None:
            # not "visible", for which napari draws all layers again
            self.layer.opacity = 0.0

    def _is_far(self, annotation: Annotation, yx: FloatArray) -> bool:
        """Return whether the mouse has left the nucleus whose mask is shown."""
        shown = self._shown
        return shown is not None and bool(
            np.linalg.norm(yx - shown) > annotation.diameter / 2
        )

    def _draw(self, annotation: Annotation, mask: ObjectMask) -> None:
        from napari_sac.core.inference.instances import inside

        pixels = inside(mask)
        origin = self._origin(annotation, mask.origin_yx, pixels.shape)
        window = np.zeros(self._size(annotation, pixels.shape), np.uint8)
        y, x = np.subtract(mask.origin_yx, origin)
        if self._window is not None and self._window[0] != annotation.number:
            # images differ in scale, which a layer gets when it is made
            self.remove()
        window[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
        if self.layer is None:
            self.layer = self._add(annotation, window)
        elif self.layer.data.shape != window.shape:
            self.layer.data = window
        else:
            changed = np.nonzero(self.layer.data != window)
            if len(changed[0]):
                self.layer.data_setitem(changed, window[changed])
        _place(self.layer, annotation, origin)
        self._window = (annotation.number, *origin)
        if self.layer.opacity != _OPACITY:
            self.layer.opacity = _OPACITY

    def remove(self) -> None:
        """Remove the layer; it is made anew when it is needed."""
        if self.layer is not None and self.layer in self._session.viewer.layers:
            self._session.viewer.layers.remove(self.layer)
        self.layer = self._window = None

    def _size(self, annotation: Annotation, mask: tuple[int, ...]) -> tuple[int, int]:
        """Return the shape of the window for a mask of some shape."""
        height, width = annotation.state.labels.shape
        return max(min(height, _WINDOW), mask[0]), max(min(width, _WINDOW), mask[1])

    def _origin(
        self, annotation: Annotation, first: tuple[int, int], mask: tuple[int, ...]
    ) -> tuple[int, int]:
        """Return the first pixel of the window: that of now, if the mask is in it."""
        size = self._size(annotation, mask)
        if self.layer is not None and self._window is not None:
            number, *now = self._window
            away = np.subtract(first, now)
            fits = (away >= 0).all() and (away + mask <= size).all()
            if number == annotation.number and self.layer.data.shape == size and fits:
                return now[0], now[1]
        middle = np.add(first, mask) - np.floor_divide(np.add(size, mask), 2)
        most = np.subtract(annotation.state.labels.shape, size)
        y, x = np.clip(middle, 0, np.maximum(most, 0)).tolist()
        return y, x

    def _add(self, annotation: Annotation, pixels: npt.NDArray[np.uint8]) -> Labels:
        from napari.utils.colormaps import DirectLabelColormap

        colours = {None: "transparent", 0: "transparent", 1: _COLOUR}
        layer = Labels(
            pixels,
            name=NAME,
            opacity=_OPACITY,
            colormap=DirectLabelColormap(color_dict=colours),
            **annotation.geometry,
        )
        layer.editable = False
        keep_no_history(layer)
        layers = self._session.viewer.layers
        selected = set(layers.selection)
        active = layers.selection.active
        place = len(layers)
        if annotation.points is not None and annotation.points in layers:
            place = layers.index(annotation.points)
        layers.insert(place, layer)
        layers.selection = selected
        layers.selection.active = active
        return layer


def _place(layer: Labels, annotation: Annotation, origin_yx: tuple[int, int]) -> None:
    """Put a layer with part of the plane where that part lies."""
    whole = annotation.points if annotation.labels is None else annotation.labels
    if whole is None:
        return
    world = whole.data_to_world(np.asarray(origin_yx, float))
    # translate acts before the affine, which both layers have
    before_affine = np.linalg.solve(np.asarray(whole.affine), [*world[-2:], 1.0])
    if not np.array_equal(layer.translate, before_affine[:2]):
        layer.translate = before_affine[:2]
