"""What a person does in our layers with napari's tools and our keys.

Here it becomes a call of the session; what it does to the prompts is decided there.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels, Points
from napari.layers.base import ActionType
from psygnal import Signal

from napari_sac.core.types import NEGATIVE, POSITIVE
from napari_sac.viewer import editing, strokes
from napari_sac.viewer import prompts as edits
from napari_sac.viewer.keys import ACTIONS, check_keys, key_text, rebind
from napari_sac.viewer.painting import stroke_box, stroke_window

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from app_model.types import KeyBinding
    from napari.layers import Layer
    from napari.utils.events import Event

    from napari_sac.core.types import FloatArray, Prompts
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.prompts import Rows
    from napari_sac.viewer.session import AnnotationSession

ONE_MASK = (
    "The labels are one mask of all nuclei, so the nucleus under the mouse is not "
    "known. Select its point, or segment in instance mode."
)
_ONE_LABEL = 1
_NEAR = 3.0
"""How far from each other nuclei are that may be meant to be one, in diameters."""

_ADDING = "add"
_ADDING_TOOLS = ("add", "exclude", "include")


class Gestures:
    """Listens to the layers of a session.

    Parameters
    ----------
    session : AnnotationSession

    Attributes
    ----------
    keys : dict of str to str
        The key of each action of ours.
    tool_changed : Signal
        Emitted when the mouse may have got another tool, by whomever.
    """

    tool_changed = Signal()

    def __init__(self, session: AnnotationSession) -> None:
        self._session = session
        self._paused = False
        self._adding = _ADDING
        self._put_away: tuple[Layer | None, Prompts | None, set[int]] = (
            None,
            None,
            set(),
        )
        self._modifiers: frozenset[str] = frozenset()
        self._hover: tuple[Annotation, FloatArray] | None = None
        self._released_at: FloatArray | None = None
        self._bindings: dict[str, KeyBinding | None] = check_keys({})
        # napari asks for the names of these functions, so they cannot be partial
        self._functions: dict[str, Callable[[Layer], None]] = {
            action.name: getattr(self, action.name) for action in ACTIONS
        }
        selection = session.viewer.layers.selection
        selection.events.active.connect(self._on_active)

    @property
    def keys(self) -> dict[str, str]:
        """The key of each action, empty for none."""
        return {name: key_text(binding) for name, binding in self._bindings.items()}

    def set_keys(self, keys: Mapping[str, str], layers: list[Layer]) -> None:
        """Use other keys, in these layers and in those to come.

        Raises
        ------
        KeyTakenError
            If a text is no key, or a key would do two things; nothing was changed.
        """
        bindings = check_keys(keys)
        for layer in layers:
            rebind(layer, self._bindings, bindings, self._functions)
        self._bindings = bindings

    def bind_keys(self, layer: Layer) -> None:
        """Bind our keys in a layer; a layer's keys win over those of the viewer."""
        rebind(layer, {}, self._bindings, self._functions)

    def take_up(self, annotation: Annotation, tool: str) -> bool:
        """Give the mouse a tool, and make the layer that it is for the active one.

        Parameters
        ----------
        annotation : Annotation
        tool : {"add", "exclude", "include", "select", "pan_zoom", "paint"}
            Add nuclei, negatives of nuclei there are or further positives of them,
            select and move points, move the view, or paint a new nucleus.

        Returns
        -------
        bool
            Whether there is such a layer.
        """
        session, labels = self._session, annotation.labels
        if tool == "paint" and labels is None:
            session.drawing.show_labels(annotation)
            labels = annotation.labels
        layer = labels if tool == "paint" else annotation.points
        if layer is None:
            return False
        session.viewer.layers.selection.active = layer
        selected = set() if isinstance(layer, Labels) else set(layer.selected_data)
        # napari gives no tool to a layer that is hidden, and another one when it is
        # shown, be it seen before or not
        if tool != "pan_zoom" and not layer.visible:
            layer.visible = True
        if isinstance(layer, Labels):
            layer.selected_label = (
                edits.next_id(annotation.prompts, annotation.hidden)
                if annotation.has_instances
                else _ONE_LABEL
            )
            layer.brush_size = max(1, round(annotation.diameter / 3))
            layer.mode = tool
        elif tool in _ADDING_TOOLS:
            layer.mode = _ADDING
            if tool != _ADDING:
                # napari forgets them, and they say which nucleus is meant
                layer.selected_data = selected
        else:
            layer.mode = tool
        # behind the mode, which another tool would have set back
        self._add_as(tool)
        return True

    def tool(self, annotation: Annotation) -> str:
        """Return the tool that the mouse has, as `take_up` names it; "" for another."""
        active = self._session.viewer.layers.selection.active
        if active is None:
            return ""
        mode = str(active.mode)
        # not "is": a dock gets the layers in proxies of napari's
        if active == annotation.points:
            tools = {_ADDING: self._adding, "select": mode, "pan_zoom": mode}
        elif active == annotation.labels:
            tools = {"paint": mode, "pan_zoom": mode}
        else:
            tools = {}
        return tools.get(mode, "")

    def watch_points(self, layer: Points) -> None:
        """Listen to points that are added, moved or deleted, and to the features."""
        layer.events.data.connect(self._on_data)
        layer.events.features.connect(self._on_features)
        layer.events.mode.connect(self._on_mode)
        layer.mouse_drag_callbacks.append(self._on_press)
        layer.mouse_drag_callbacks.append(self._on_drag)
        layer.mouse_move_callbacks.append(self._on_hover)

    def watch_labels(self, layer: Labels) -> None:
        """Listen to strokes, and to another array being put in."""
        layer.events.mode.connect(self._on_active)
        layer.events.paint.connect(self._on_paint)
        layer.events.data.connect(self._on_labels_replaced)

    def accept(self, layer: Layer) -> None:
        """Accept the selected prompts, or the one under the mouse."""
        self._edit(layer, self._session.accept)

    def reject(self, layer: Layer) -> None:
        """Reject the selected prompts, or the one under the mouse."""
        self._edit(layer, self._session.reject)

    def negate(self, layer: Layer) -> None:
        """Turn the sign of the selected prompts, or of the one under the mouse."""
        self._edit(layer, self._session.negate)

    def merge(self, layer: Layer) -> None:
        """Make one nucleus of the selected ones.

        In a Labels layer: of the nucleus under the mouse and the one picked as label,
        if they are near each other: a label is picked from the beginning, by nobody.
        """
        annotation = self._session.owner(layer)
        if annotation is not None:
            ids = self._ids_meant(annotation, layer)
            if isinstance(layer, Labels):
                picked = int(layer.selected_label)
                if _are_near(annotation, picked, ids):
                    ids.add(picked)
            self._session.merge(annotation, ids)

    def split(self, layer: Layer) -> None:
        """Make a nucleus of each positive of the selected ones."""
        annotation = self._session.owner(layer)
        if annotation is not None:
            self._session.split(annotation, self._ids_meant(annotation, layer))

    def redraw(self, layer: Layer) -> None:
        """Let the model draw nuclei again that were painted, imported or accepted."""
        annotation = self._session.owner(layer)
        if annotation is not None:
            self._session.redraw(annotation, self._ids_meant(annotation, layer))

    def accept_next(self, layer: Layer) -> None:
        """Accept the nucleus under review, and go to the next."""
        annotation = self._session.owner(layer)
        if annotation is not None:
            self._session.review.accept_and_next(annotation)

    def go_next(self, layer: Layer) -> None:
        """Go to the next nucleus of the review queue."""
        annotation = self._session.owner(layer)
        if annotation is not None:
            self._session.go(annotation, 1)

    def go_previous(self, layer: Layer) -> None:
        """Go to the previous nucleus of the review queue."""
        annotation = self._session.owner(layer)
        if annotation is not None:
            self._session.go(annotation, -1)

    def hold(self, held: Collection[str]) -> None:
        """Show what a click would give with these keys held, where the mouse rests.

        Parameters
        ----------
        held : collection of str
            Of "Shift" and "Control".
        """
        preview = self._session.preview
        if self._hover is not None and preview.follows:
            annotation, yx = self._hover
            sign, joins = self._meaning(held)
            preview.look(annotation, yx, sign, joins=joins)

    def undo(self, layer: Layer) -> None:
        """Undo the last step, whatever it was and in whichever of our layers."""
        del layer
        self._session.undo()

    def redo(self, layer: Layer) -> None:
        """Redo what was undone last."""
        del layer
        self._session.redo()

    @property
    def are_paused(self) -> bool:
        """Whether the session itself is writing to the layers."""
        return self._paused

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not listen: the session itself is writing."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def _on_press(self, layer: Points, event: Event) -> Iterator[None]:
        """Note the keys held down at a click and where it ends: there comes the point.

        napari calls this before its own tool, which adds the point.
        """
        held = [name for name in ("Shift", "Control") if name in event.modifiers]
        self._modifiers = frozenset(held if layer.mode == _ADDING else ())
        self._released_at = None
        annotation = self._session.owner(layer)
        if annotation is not None:
            # the last point never came if somebody else's listener has failed
            annotation.placed_on = None
        yield
        while event.type == "mouse_move":
            yield
        if layer.mode == _ADDING:
            self._released_at = _position(layer, event)

    def _on_drag(self, layer: Points, event: Event) -> Iterator[None]:
        """Foresee what becomes of a point that is dragged, if it is let go here.

        napari calls this before its own tool, which moves the point.
        """
        pressed_at = _position(layer, event)
        yield
        annotation, rows = self._session.owner(layer), sorted(layer.selected_data)
        if annotation is None or layer.mode != "select" or len(rows) != 1:
            return
        grip = pressed_at - layer.data[rows[0]]
        while event.type == "mouse_move" and "Shift" not in event.modifiers:
            place, here = layer.data[rows[0]], _position(layer, event)
            # as napari does, to the last bit: at this move and at the release
            for _ in range(2):
                place = place + (here - place - grip)
            self._session.preview.look_at_move(annotation, rows[0], place)
            yield

    def _on_mode(self, event: Event) -> None:
        """Let a tool that was put away add nuclei again when it comes back.

        Not one that napari takes away for a moment: while Space is held down to pan,
        or the layer is hidden.
        """
        layer: Points | None = event.source
        if layer is None:
            return
        mode = layer.mode
        if mode == "pan_zoom" and self._adding != _ADDING:
            self._session.preview.hide()
            annotation = self._session.owner(layer)
            prompts = None if annotation is None else annotation.prompts
            self._put_away = (layer, prompts, set(layer.selected_data))
            self.tool_changed.emit()
        elif mode != _ADDING:
            self._session.preview.hide()
            self._add_as(_ADDING)
        else:
            self._select_again(layer)
            self.tool_changed.emit()

    def _select_again(self, layer: Points) -> None:
        """Select what was selected when the tool was put away, if it is still that.

        napari forgets the points, and they say which nucleus is meant.
        """
        before, prompts, rows = self._put_away
        annotation = self._session.owner(layer)
        unchanged = annotation is not None and annotation.prompts is prompts
        same = before is layer and unchanged
        if self._adding != _ADDING and same:
            layer.selected_data = rows

    def _on_active(self, event: Event) -> None:
        del event
        self.tool_changed.emit()

    def _add_as(self, tool: str) -> None:
        """Note what napari's tool that adds points adds from now on."""
        self._adding = tool if tool in _ADDING_TOOLS else _ADDING
        self._session.added_sign = NEGATIVE if tool == "exclude" else POSITIVE
        self.tool_changed.emit()

    def _meaning(self, held: Collection[str]) -> tuple[int, bool]:
        """Return what a click adds: of which sign, and whether to a nucleus there is.

        The keys held down come before the tool.
        """
        if "Shift" in held:
            return NEGATIVE, True
        if "Control" in held:
            return POSITIVE, True
        sign = self._session.added_sign
        return sign, sign == NEGATIVE or self._adding == "include"

    def _take_joining(self) -> int | None:
        """Return the sign of a click's point if it joins a nucleus there is."""
        held, self._modifiers = self._modifiers, frozenset()
        sign, joins = self._meaning(held)
        return sign if joins else None

    def _on_hover(self, layer: Points, event: Event) -> None:
        self._modifiers, self._released_at = frozenset(), None
        annotation = self._session.owner(layer)
        if annotation is None:
            return
        if layer.mode != _ADDING:
            self._session.preview.hide()
            return
        yx = _position(layer, event)
        self._hover = (annotation, yx)
        sign, joins = self._meaning(event.modifiers)
        self._session.preview.look(annotation, yx, sign, joins=joins)

    def _on_data(self, event: Event) -> None:
        annotation = self._session.owner(event.source)
        if self._paused or annotation is None:
            return
        if event.action == ActionType.REMOVED:
            rows = np.array(event.data_indices, np.intp)
            editing.delete(self._session, annotation, rows)
            return
        if event.action == ActionType.ADDING and self._released_at is not None:
            place, self._released_at = self._released_at, None
            self._session.preview.hide()
            editing.place(self._session, annotation, place, self._take_joining())
            if not self._session.live.held and not self._session.live.step_waits:
                self._session.masks_placed.emit()
        elif event.action == ActionType.ADDED:
            # the mask itself comes, and the mouse may rest where it is
            self._session.preview.hide()
            editing.finish_placing(self._session, annotation)
            editing.sync(self._session, annotation, self._take_joining())
        elif event.action != ActionType.CHANGING:
            if event.action == ActionType.CHANGED:
                self._session.preview.hide()
            # before a removal too: the rows that it names must be known
            self._session.sync(annotation)

    def _on_features(self, event: Event) -> None:
        annotation = self._session.owner(event.source)
        if not self._paused and annotation is not None:
            editing.take_features(self._session, annotation)

    def _on_paint(self, event: Event) -> None:
        layer = event.source
        annotation = self._session.owner(layer)
        if not self._paused and annotation is not None:
            shape = annotation.state.labels.shape
            box = stroke_box(event.value, (shape[0], shape[1]))
            # where napari drew with another label than ours, it is still to be mended
            mended = annotation.misdrawn is None
            shown = layer.data if mended else annotation.state.labels
            window = stroke_window(event.value, shown, box)
            brush = int(layer.selected_label)
            strokes.take_stroke(self._session, annotation, window, box, brush)

    def _on_labels_replaced(self, event: Event) -> None:
        annotation = self._session.owner(event.source)
        if not self._paused and annotation is not None:
            strokes.take_labels(self._session, annotation)

    def _edit(self, layer: Layer, edit: Callable[[Annotation, Rows], None]) -> None:
        annotation = self._session.owner(layer)
        if annotation is not None:
            edit(annotation, self._rows_meant(annotation, layer))

    def _ids_meant(self, annotation: Annotation, layer: Layer) -> set[int]:
        rows = self._rows_meant(annotation, layer)
        return set(annotation.prompts.object_id[rows].tolist())

    def _rows_meant(self, annotation: Annotation, layer: Layer) -> Rows:
        """Return the selected prompts, or else those of what is under the cursor.

        In a Labels layer, first those of the nucleus that a review has just shown.
        """
        self._session.sync(annotation)
        if isinstance(layer, Points) and layer.selected_data:
            return np.array(sorted(layer.selected_data), np.intp)
        reviewed = self._session.review.meant(annotation)
        if reviewed and isinstance(layer, Labels):
            return np.flatnonzero(annotation.prompts.object_id == reviewed)
        value = layer.get_value(self._session.viewer.cursor.position, world=True)
        if value is None:
            return np.array([], np.intp)
        if isinstance(layer, Labels):
            if not annotation.has_instances:
                self._session.told.emit(ONE_MASK)
                return np.array([], np.intp)
            return np.flatnonzero(annotation.prompts.object_id == int(value))
        return np.array([value], np.intp)


def _are_near(annotation: Annotation, one: int, others: set[int]) -> bool:
    """Return whether a nucleus has a point near one of others."""
    prompts = annotation.prompts
    points, beside = (
        prompts.yx[np.isin(prompts.object_id, list(ids))] for ids in ({one}, others)
    )
    away = np.hypot(*(points[:, None] - beside).transpose(2, 0, 1))
    return bool((away <= _NEAR * annotation.diameter).any())


def _position(layer: Points, event: Event) -> FloatArray:
    """Return where (y, x) the mouse is, in pixels of the image."""
    return np.asarray(layer.world_to_data(event.position), float)[-2:]
