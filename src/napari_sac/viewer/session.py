"""The annotation session: what was found and decided in one viewer.

What the methods do is in modules of their own: :mod:`~napari_sac.viewer.editing` for
decisions and points, ``strokes`` for the brush, ``results`` for what models found,
``exchange`` for files, and ``reopening`` for images that are opened again. Each change
is one of the session's ``steps``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
from napari.layers import Image
from psygnal import Signal

from napari_sac.core.config import DEFAULT_MODEL, DecodeConfig
from napari_sac.core.session.history import History
from napari_sac.core.session.recovery import is_unsaved
from napari_sac.core.session.state import AnnotationState, Settings
from napari_sac.core.types import POSITIVE, Prompts
from napari_sac.viewer import adapters, editing, exchange, results
from napari_sac.viewer.annotation import Annotation
from napari_sac.viewer.drawing import Drawing
from napari_sac.viewer.effort import Effort
from napari_sac.viewer.gestures import Gestures
from napari_sac.viewer.inference import ModelChoice
from napari_sac.viewer.journaling import SessionJournal
from napari_sac.viewer.layers import SESSION_KEY, plane_name
from napari_sac.viewer.live import LiveQueue, Scene
from napari_sac.viewer.planes import (
    AS_READ,
    current_plane,
    full_resolution,
    plane_geometry,
)
from napari_sac.viewer.preview import HoverPreview
from napari_sac.viewer.regions import Regions
from napari_sac.viewer.relabelling import KnownLabels
from napari_sac.viewer.reopening import know_again
from napari_sac.viewer.review import Review
from napari_sac.viewer.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from napari.components import ViewerModel
    from napari.layers import Layer
    from napari.utils.events import Event

    from napari_sac.core.config import Stain
    from napari_sac.core.session.history import Step
    from napari_sac.core.session.journal import Journal
    from napari_sac.core.types import FloatArray
    from napari_sac.viewer.inference import Found, LoadedModel, Segmented
    from napari_sac.viewer.live import LiveResult
    from napari_sac.viewer.planes import ImagePlane
    from napari_sac.viewer.prompts import Rows

DEFAULT_CACHE_BYTES = 2 << 30


class AnnotationSession:
    """Everything that was found and decided in one viewer.

    Parameters
    ----------
    viewer : ViewerModel

    Attributes
    ----------
    changed : Signal
        Emitted after any change, on the viewer's thread.
    live_requested : Signal
        Emitted when ``live`` has something to decode.
    masks_placed : Signal
        The labels of a step are drawn, and its points are about to be, which takes
        longer: time to show the labels.
    journal_failed : Signal(str)
        Emitted once when the journal cannot be written; a sentence for the user.
    open_requested : Signal(Path)
        Emitted for a session folder that was dropped in, for who can read it beside the
        window.
    told : Signal(str)
        A sentence for the user about what was just done, or why nothing was.
    adapters_changed : Signal
        To be emitted by who adds, renames or deletes an adapter: lists are read again.
    model_chosen : Signal(str, str)
        Model, and adapter or an empty text, whenever another one is to be used.
    annotations : list of Annotation
        One for each plane that has layers of ours, the last used one last.
    loaded : LoadedModel or None
        The model used last.
    chosen_model : tuple of (str, str or None)
        The model to use next, and the name or folder of its adapter.
    previous_model : tuple of (str, str or None), or None
        What was chosen before that; None if nothing was.
    device : str
        Where to run a model that is not loaded yet.
    decode_config : DecodeConfig
        How the masks of a plane are made that was not segmented yet.
    seen_as : mapping of Image to (tuple of int, str or None)
        The channels and the stain of an image that a person looks at.
    added_sign : int
        Sign of the points that are added by napari's tool.
    cache_bytes : int
        Memory for the embeddings of all annotations together.
    steps : Steps
        The one way to change what is known.
    drawing, gestures : Drawing, Gestures
        What our layers show, and what a person does in them.
    live, preview, regions, review, journal, effort
        The queue of masks, the hover preview, boxes and regions, the review, the disk,
        the time and the steps that it all took.
    """

    # a dock without layers has a session too, which a session dropped in must find
    _alive: ClassVar[WeakSet[AnnotationSession]] = WeakSet()

    changed = Signal()
    live_requested = Signal()
    masks_placed = Signal()
    journal_failed = Signal(str)
    open_requested = Signal(Path)
    told = Signal(str)
    adapters_changed = Signal()
    model_chosen = Signal(str, str)

    def __init__(self, viewer: ViewerModel) -> None:
        # what comes through napari's proxy is wrapped too, and never "is" a layer
        self.viewer = _unwrapped(viewer)
        self.annotations: list[Annotation] = []
        self.loaded: LoadedModel | None = None
        self.chosen_model: tuple[str, str | None] = (DEFAULT_MODEL, None)
        self.previous_model: tuple[str, str | None] | None = None
        self.device = "auto"
        self.decode_config = DecodeConfig()
        self.seen_as: WeakKeyDictionary[Image, tuple[tuple[int, ...], Stain | None]] = (
            WeakKeyDictionary()
        )
        self.added_sign = POSITIVE
        self.cache_bytes = DEFAULT_CACHE_BYTES
        self.live = LiveQueue(self)
        self.preview = HoverPreview(self)
        self.regions = Regions(self)
        self.review = Review(self)
        self.journal = SessionJournal(self.journal_failed.emit)
        self.effort = Effort()
        self._numbered: dict[int, Annotation] = {}
        self.gestures = Gestures(self)
        self.drawing = Drawing(self)
        self.steps = Steps(self)
        self.adapters_changed.connect(self._on_adapters_changed)
        self.viewer.dims.events.point.connect(self._on_sliders)
        inserted = self.viewer.layers.events.inserted
        # when the viewer's sliders know the layer
        inserted.connect(self._on_layer_inserted, position="last")
        for layer in self.viewer.layers:
            if isinstance(layer, Image):
                self._watch_image(layer)
        self._alive.add(self)

    @classmethod
    def of(cls, viewer: ViewerModel) -> AnnotationSession:
        """Return the session of a viewer; a new one if it has none.

        The layers carry their session, so it outlives the dock that made them.
        """
        for layer in viewer.layers:
            session = layer.metadata.get(SESSION_KEY)
            # a copy of a layer carries the session too, which does not know the copy
            if isinstance(session, cls) and session.owner(layer) is not None:
                return session
        same = _unwrapped(viewer)
        alive = (s for s in cls._alive if s.viewer is same)
        return next(alive, None) or cls(viewer)

    # -- which annotation -------------------------------------------------------

    def find(self, plane: ImagePlane) -> Annotation | None:
        """Return what is known about a plane that has prompts, as used last."""
        mine = (a for a in self.annotations if a.is_about(plane))
        found = [a for a in mine if a.points is not None]
        if len(found) > 1:
            # the other one was begun anew, and that was undone
            found = [a for a in found if not a.state.is_empty] or found
        return found[-1] if found else None

    @property
    def remembered(self) -> tuple[Annotation, ...]:
        """All annotations that the history knows, also those without a layer."""
        return tuple(self._numbered.values())

    def numbered(self, number: int) -> Annotation | None:
        """Return the annotation that the history knows by a number."""
        return self._numbered.get(number)

    def owner(self, layer: Layer) -> Annotation | None:
        """Return the annotation that a layer of ours belongs to."""
        return next((a for a in self.annotations if a.owns(layer)), None)

    def follow(self, plane: ImagePlane) -> None:
        """Of the layers about one image, show those about this plane only.

        They are two-dimensional, so napari would lay them over every plane. The layer
        that keys go to is one of this plane too.
        """
        active = self.viewer.layers.selection.active
        left, here = None, None
        for annotation in self.annotations:
            if annotation.plane is None or annotation.plane.layer is not plane.layer:
                continue
            if annotation.is_about(plane):
                here = annotation
                annotation.come_back()
            else:
                left = annotation if active and annotation.owns(active) else left
                annotation.go_away()
        if left is not None and active is not None:
            same = None if here is None else here.counterpart(left, active)
            self.viewer.layers.selection.active = same or plane.layer

    def _on_sliders(self) -> None:
        """Let the layers about every image follow the sliders, also without a dock."""
        planes = (a.plane for a in self.annotations if a.plane is not None)
        # of one image, what was used last says which channels are looked at
        for layer, plane in {plane.layer: plane for plane in planes}.items():
            if layer in self.viewer.layers:
                point = self.viewer.dims.point
                self.follow(current_plane(layer, point, plane.channels))

    def is_shown(self, annotation: Annotation) -> bool:
        """Return whether the viewer's sliders stand where an annotation lies."""
        plane = annotation.plane
        if plane is None or plane.layer not in self.viewer.layers:
            return True
        point = self.viewer.dims.point
        return annotation.is_about(current_plane(plane.layer, point, plane.channels))

    def about(self, plane: ImagePlane) -> Annotation:
        """Return the annotation of a plane; a new, empty one if there is none."""
        annotation = self._remembered_about(plane)
        if annotation is None:
            empty = np.zeros(plane.shape, np.uint32)
            annotation = Annotation(
                1 + max(self._numbered, default=0),
                plane,
                AnnotationState(
                    Prompts.empty(),
                    Prompts.empty(),
                    empty,
                    settings=self.fresh_settings(),
                ),
                plane_geometry(plane.layer),
                plane_name(plane),
            )
            self._numbered[annotation.number] = annotation
        if annotation not in self.annotations:
            self.annotations.append(annotation)
            self.follow(
                current_plane(plane.layer, self.viewer.dims.point, plane.channels)
            )
        self.see(annotation, plane)
        return annotation

    def known_labels(self, plane: ImagePlane) -> KnownLabels:
        """Return the labels that a plane has, for a job that makes others of it."""
        annotation = self._remembered_about(plane)
        return KnownLabels() if annotation is None else KnownLabels.of(annotation)

    def _remembered_about(self, plane: ImagePlane) -> Annotation | None:
        others = (a for a in self._numbered.values() if a.is_about(plane))
        return self.find(plane) or next(others, None)

    def see(self, annotation: Annotation, plane: ImagePlane) -> None:
        """Look at an annotation's plane, which may have another stain or channels."""
        before, annotation.plane = annotation.plane, plane
        if before is not None and not before.shows_as(plane):
            # other pixels at the same place
            annotation.forget_pixels()
            self.journal.image_changed(annotation)

    def _on_image_data(self, event: Event) -> None:
        """Look at the pixels that an image has got in place of its own."""
        layer = event.source
        channels: tuple[int, ...] | None = None
        self.journal.exchanged.add(layer)
        layer.metadata.pop(AS_READ, None)
        for annotation in self.remembered:
            plane = annotation.plane
            if plane is None or plane.layer is not layer:
                continue
            channels = plane.channels
            now = replace(plane, data=full_resolution(layer))
            same = now.data.ndim == plane.data.ndim and now.is_in(now.data.shape)
            if same and now.shape == annotation.state.labels.shape:
                self.see(annotation, now)
        if channels is not None:
            self.follow(current_plane(layer, self.viewer.dims.point, channels))
            self.changed.emit()

    def _watch_image(self, layer: Image) -> None:
        layer.events.data.connect(self._on_image_data)
        for name in plane_geometry(layer):
            getattr(layer.events, name).connect(self._on_image_placed)

    def _on_image_placed(self, event: Event) -> None:
        """Let nuclei follow an image that is scaled or moved."""
        for annotation in self.remembered:
            plane = annotation.plane
            if plane is not None and plane.layer is event.source:
                self.drawing.place(annotation, plane_geometry(plane.layer))

    def _on_layer_inserted(self, event: Event) -> None:
        layer = event.value
        if isinstance(layer, Image):
            self._watch_image(layer)
            know_again(self, layer)

    def restore(self, annotation: Annotation, *, shown: bool = True) -> None:
        """Take up an annotation of a session that was opened.

        It is shown, unless it is one that was deleted and begun anew: that is kept for
        undo.
        """
        state, plane = annotation.state, annotation.plane
        self._numbered[annotation.number] = annotation
        # they came with labels, which no step has written
        annotation.writes += 1
        if not shown:
            return
        self.annotations.append(annotation)
        self.drawing.show_points(annotation)
        if state.labels.any():
            self.drawing.show_labels(annotation)
        if state.reviewed:
            self.regions.restore_reviewed(annotation)
        if plane is not None:
            self.follow(plane)
        self.changed.emit()

    # -- models -----------------------------------------------------------------

    def choice(self) -> ModelChoice:
        """Return the model to use next, and where to run it."""
        model, adapter = self.chosen_model
        path = adapters.adapter_path(adapter) if adapter else None
        return ModelChoice(model, path, self.device)

    def fresh_settings(self) -> Settings:
        """Return how masks are made of a plane of which nothing is known yet."""
        choice = self.choice()
        adapter = None if choice.adapter is None else str(choice.adapter)
        return Settings(choice.name, adapter, decode=self.decode_config)

    def choose_model(self, model: str, adapter: str | None = None) -> None:
        """Use a model from now on; what was found with another one stays as it is.

        Parameters
        ----------
        model : str
            A name of the registry.
        adapter : str, optional
            Name of an adapter, or its folder.

        Raises
        ------
        NapariSacError
            If there is no such model or adapter, the adapter is damaged, or for another
            model; the choice stays as it was.
        """
        adapters.check_choice(model, adapter)
        chosen = (model, adapter or None)
        if chosen != self.chosen_model:
            self.previous_model, self.chosen_model = self.chosen_model, chosen
            self.model_chosen.emit(model, adapter or "")

    def _on_adapters_changed(self) -> None:
        """Forget a loaded adapter that is another one now, or gone, on the disk."""
        if self.loaded is not None and not adapters.is_current(self.loaded):
            self.loaded = None

    # -- find and segment -------------------------------------------------------

    def show_proposals(
        self, plane: ImagePlane, found: Found, threshold: float | None = None
    ) -> Annotation:
        """Show what was found in a plane, beside what the user has touched before."""
        return results.show_proposals(self, plane, found, threshold)

    def show_labels(
        self, annotation: Annotation, plane: ImagePlane, segmented: Segmented
    ) -> None:
        """Show the labels of a segmentation, and keep what the next one can use."""
        results.show_labels(self, annotation, plane, segmented)

    def draw_masks(self, annotation: Annotation, result: LiveResult) -> None:
        """Draw the masks that a step has brought, as a part of that step."""
        results.draw_masks(self, annotation, result)

    def set_threshold(self, annotation: Annotation, threshold: float) -> None:
        """Show the proposals with at least this score, and all touched prompts."""
        results.set_threshold(self, annotation, threshold)

    # -- decisions --------------------------------------------------------------

    def accept(self, annotation: Annotation, rows: Rows) -> None:
        """Accept prompts, by row, and what else nobody has touched of their nuclei."""
        editing.accept(self, annotation, rows)

    def reject(self, annotation: Annotation, rows: Rows) -> None:
        """Reject prompts, by row; they stay visible and make no mask."""
        editing.reject(self, annotation, rows)

    def negate(self, annotation: Annotation, rows: Rows) -> None:
        """Turn positive prompts into negative ones of the nearest nucleus, or back."""
        editing.negate(self, annotation, rows)

    def merge(self, annotation: Annotation, ids: Collection[int]) -> None:
        """Make one nucleus of several; it keeps the lowest id."""
        editing.merge(self, annotation, ids)

    def split(self, annotation: Annotation, ids: Collection[int]) -> None:
        """Make a nucleus of each positive point of these nuclei."""
        editing.split(self, annotation, ids)

    def redraw(self, annotation: Annotation, ids: Collection[int]) -> None:
        """Let the model draw nuclei again that were painted, imported or accepted."""
        editing.redraw(self, annotation, ids)

    def add_box(self, annotation: Annotation, corners: FloatArray) -> int | None:
        """Add a nucleus in the middle of a box of corners (N, 2); return its id."""
        return editing.add_box(self, annotation, corners)

    def go(self, annotation: Annotation, step: int) -> None:
        """Go to the next nucleus of the review queue (1), or the previous one (-1)."""
        self.effort.count(annotation, steps=0)
        self.review.go(annotation, step)

    def set_reviewed(
        self, annotation: Annotation, polygons: tuple[FloatArray, ...]
    ) -> None:
        """Say which regions, polygons (N, 2) in pixels, were reviewed."""
        editing.set_reviewed(self, annotation, polygons)

    def sync(self, annotation: Annotation) -> None:
        """Take up what was done to the layer of prompts, also what napari tells nobody.

        Pasting points, for one, emits no event.
        """
        editing.sync(self, annotation)

    # -- live masks -------------------------------------------------------------

    def scene(self, annotation: Annotation) -> Scene | None:
        """Return what decoding needs; None where there is no image."""
        plane, settings = annotation.plane, annotation.state.settings
        if plane is None:
            return None
        adapter = None if settings.adapter is None else Path(settings.adapter)
        return Scene(
            plane,
            settings,
            ModelChoice(settings.model, adapter, self.device),
            self.loaded,
            annotation.embedding,
            annotation.foreground,
        )

    def take_embedding(self, annotation: Annotation, result: LiveResult) -> None:
        """Keep the model and the embedding that a decoding has used.

        Unless they are of other settings than there are now.
        """
        then, now = result.request.scene.settings, annotation.state.settings
        if (then.model, then.adapter, then.diameter) != (
            now.model,
            now.adapter,
            now.diameter,
        ):
            return
        self.loaded = result.loaded
        if annotation.plane is not None and annotation in self.annotations:
            annotation.embed(result.embedding)
            self.use(annotation)

    # -- undo and redo ----------------------------------------------------------

    @property
    def undo_title(self) -> str:
        """What :meth:`undo` would take back: "reject 37 nuclei"; empty for nothing."""
        return self.steps.history.undo_title or ""

    @property
    def redo_title(self) -> str:
        """What :meth:`redo` would do again; empty for nothing."""
        return self.steps.history.redo_title or ""

    def undo(self) -> str | None:
        """Take the last step back; return what it was, or None if there is none."""
        self._sync_all()
        return self._tell_step(self.steps.undo())

    def redo(self) -> str | None:
        """Do the step again that was undone last; return what it is, or None."""
        self._sync_all()
        return self._tell_step(self.steps.redo())

    # -- keys -------------------------------------------------------------------

    @property
    def keys(self) -> dict[str, str]:
        """The key of each action of ours, by name; empty for none."""
        return self.gestures.keys

    def set_keys(self, keys: Mapping[str, str]) -> None:
        """Use other keys.

        Raises
        ------
        KeyTakenError
            If a text is no key, or a key would do two things; nothing was changed.
        """
        layers = [layer for a in self.annotations for layer in a.layers]
        self.gestures.set_keys(keys, layers)
        self.changed.emit()

    # -- files ------------------------------------------------------------------

    @property
    def read_only(self) -> bool:
        """Whether another viewer has the session open, so that nothing is written."""
        return self.journal.read_only

    def flush(self, chunks: int | None = None) -> int:
        """Write changed labels to the session folder, so that it opens faster.

        Parameters
        ----------
        chunks : int, optional
            Write so many pieces at most; each takes a few milliseconds.

        Returns
        -------
        int
            Pieces that are left.
        """
        self._sync_all()
        return self.journal.flush(self._numbered.values(), chunks)

    def flush_briefly(self) -> None:
        """Write changed labels for as long as a window may wait."""
        self._sync_all()
        self.journal.flush_briefly(self._numbered.values())

    @property
    def is_saved(self) -> bool:
        """Whether the session was saved under a name."""
        folder = self.journal.folder
        return folder is not None and not is_unsaved(folder)

    def close(self, *, clean: bool = True) -> None:
        """End the journal; ``clean`` says that there is nothing to restore."""
        self._sync_all()
        self.journal.close(self._numbered.values(), clean=clean)

    def leave(self) -> None:
        """Let go of what is known of layers that were all deleted.

        The session folder is closed as it is; one without a name is offered again.
        """
        self.close(clean=self.is_saved)
        self.journal.forget()
        self.live.clear()
        self._numbered.clear()
        self.steps.history = History()

    def save_as(self, folder: str | Path) -> None:
        """Save the session into a folder ``NAME.sac``, and go on there.

        So a session that is read-only becomes one that can be written to, with what was
        done to it meanwhile.

        Raises
        ------
        NapariSacError
            If it cannot be written; the session goes on where it was.
        """
        self._sync_all()
        self.journal.save_as(folder, self._numbered.values(), self.steps.history)
        self.changed.emit()

    def go_on_in(self, copy: Journal, source: Journal) -> None:
        """Go on in a copy of the session's journal, which was made beside the window.

        Raises
        ------
        OutputError
            If that cannot be; the copy is given up, and the work goes on where it was.
        """
        self._sync_all()
        self.journal.go_on_in(copy, source)
        self.changed.emit()

    def open(self, folder: str | Path) -> list[Annotation]:
        """Open a session folder in this viewer, which has no session yet.

        Raises
        ------
        NapariSacError
            If it cannot be opened, or something was annotated here already.
        """
        return exchange.open_session(self, folder)

    @property
    def history(self) -> History:
        """The steps that can be undone and redone."""
        return self.steps.history

    def _sync_all(self) -> None:
        for annotation in self.annotations:
            self.drawing.mend(annotation)
            self.sync(annotation)

    def _tell_step(self, step: Step | None) -> str | None:
        if step is None:
            return None
        annotation = self.numbered(step.annotation)
        if annotation is not None:
            self.effort.count(annotation)
        self.changed.emit()
        return step.change.title

    def use(self, used: Annotation) -> None:
        """Note which annotation was used last; keep memory within the limit."""
        if used in self.annotations:
            self.annotations.remove(used)
            self.annotations.append(used)
        total = 0
        for annotation in reversed(self.annotations):
            total += annotation.held_bytes
            if total > self.cache_bytes and annotation is not used:
                annotation.forget_pixels()


def _unwrapped(viewer: ViewerModel) -> ViewerModel:
    """Return the viewer itself; napari gives each dock a proxy of its own."""
    found: ViewerModel = getattr(viewer, "__wrapped__", viewer)
    return found
