"""The annotation session: what was found and decided in one viewer.

Prompts and masks change by the methods of :class:`AnnotationSession` and nowhere else.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_sac.core.config import ProposalConfig
from napari_sac.core.types import POSITIVE, Prompts
from napari_sac.viewer import prompts as edits
from napari_sac.viewer.annotation import Annotation
from napari_sac.viewer.gestures import Gestures
from napari_sac.viewer.layers import (
    SESSION_KEY,
    build_labels,
    fits,
    write_change,
    write_points,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Layer
    from napari.utils.events import Event

    from napari_sac.viewer.inference import Found, LoadedModel, Segmented
    from napari_sac.viewer.planes import ImagePlane

    Edit = Callable[[Prompts, edits.Rows], Prompts]

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
    annotations : list of Annotation
        One for each plane in which nuclei were looked for, the last used one last.
    loaded : LoadedModel or None
        The model used last.
    added_sign : int
        Sign of the points that are added by napari's tool.
    cache_bytes : int
        Memory for the embeddings of all annotations together.
    """

    changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.annotations: list[Annotation] = []
        self.loaded: LoadedModel | None = None
        self.added_sign = POSITIVE
        self.cache_bytes = DEFAULT_CACHE_BYTES
        self._gestures = Gestures(self)
        viewer.layers.events.removed.connect(self._on_layer_removed)

    @classmethod
    def of(cls, viewer: ViewerModel) -> AnnotationSession:
        """Return the session of a viewer; a new one if it has no layer of ours.

        The layers carry their session, so it outlives the dock that made them.
        """
        for layer in viewer.layers:
            session = layer.metadata.get(SESSION_KEY)
            # a copy of a layer carries the session too, which does not know the copy
            if isinstance(session, cls) and session.owner(layer) is not None:
                return session
        return cls(viewer)

    def find(self, plane: ImagePlane) -> Annotation | None:
        """Return what is known about a plane that has prompts."""
        for annotation in self.annotations:
            if annotation.points is not None and annotation.is_about(plane):
                return annotation
        return None

    def follow(self, plane: ImagePlane) -> None:
        """Of the layers about one image, show those about this plane only.

        They are two-dimensional, so napari would lay them over every plane.
        """
        for annotation in self.annotations:
            if annotation.plane is not None and annotation.plane.layer is plane.layer:
                annotation.set_visible(annotation.is_about(plane))

    def owner(self, layer: Layer) -> Annotation | None:
        """Return the annotation that a layer of ours belongs to."""
        return next((a for a in self.annotations if a.owns(layer)), None)

    def show_proposals(
        self, plane: ImagePlane, found: Found, threshold: float | None = None
    ) -> Annotation:
        """Show what was found in a plane, beside what the user has touched before."""
        if threshold is None:
            threshold = ProposalConfig().score_threshold
        annotation = self._annotation_about(plane, found, threshold)
        everything = edits.add_proposals(
            annotation.prompts, found.prompts, found.diameter
        )
        shown, annotation.hidden = edits.split_by_score(
            everything, Prompts.empty(), threshold
        )
        self.loaded = found.loaded
        annotation.seconds.update(found.seconds)
        if annotation.points is None:
            annotation.points = found.points
            self._commit(annotation, shown)
            self._gestures.watch(found.points)
            self._gestures.bind_keys(found.points)
            self._add_layer(found.points)
        else:
            self._commit(annotation, shown)
        return annotation

    def show_labels(
        self, annotation: Annotation, plane: ImagePlane, segmented: Segmented
    ) -> None:
        """Show the labels of a segmentation, and keep what the next one can use."""
        annotation.masks = segmented.masks
        annotation.embedding = segmented.embedding
        annotation.recomputed = segmented.recomputed
        self.loaded = segmented.loaded
        annotation.seconds.update(segmented.seconds)
        self._use(annotation)
        layer, change = annotation.labels, segmented.change
        if layer is None or change is None or not fits(layer.data, segmented.labels):
            self._replace_labels(annotation, plane, segmented)
        else:
            write_change(layer, change)
        self.changed.emit()

    def set_threshold(self, annotation: Annotation, threshold: float) -> None:
        """Show the proposals with at least this score, and all touched prompts."""
        self.sync(annotation)
        annotation.threshold = threshold
        shown, hidden = edits.split_by_score(
            annotation.prompts, annotation.hidden, threshold
        )
        annotation.hidden = hidden
        self._commit(annotation, shown)

    def accept(self, annotation: Annotation, rows: edits.Rows) -> None:
        """Accept prompts, by row."""
        self._edit(annotation, rows, edits.accept)

    def reject(self, annotation: Annotation, rows: edits.Rows) -> None:
        """Reject prompts, by row; they stay visible and make no mask."""
        self._edit(annotation, rows, edits.reject)

    def negate(self, annotation: Annotation, rows: edits.Rows) -> None:
        """Turn positive prompts into negative ones of the nearest nucleus, or back."""
        new_id = edits.next_id(annotation.prompts, annotation.hidden)
        self._edit(annotation, rows, partial(edits.negate, new_id=new_id))

    def delete(self, annotation: Annotation, rows: edits.Rows) -> None:
        """Forget prompts that napari has taken out of the layer, by their old rows."""
        prompts = edits.delete(annotation.prompts, rows)
        self._commit(annotation, prompts, positions=False)

    def take_features(self, annotation: Annotation) -> None:
        """Take up what was typed into napari's table of features."""
        layer, known = annotation.points, annotation.prompts
        if layer is not None and len(layer.data) == len(known):
            prompts = edits.read_features(layer.features, known)
            if prompts is not known:
                self._commit(annotation, prompts, positions=False)

    def sync(self, annotation: Annotation) -> None:
        """Take up what was done to the layer, also what napari tells nobody.

        Pasting points, for one, emits no event.
        """
        layer = annotation.points
        if layer is None:
            return
        known = annotation.prompts
        yx = np.asarray(layer.data, float)
        common = min(len(yx), len(known))
        prompts = known.select(np.arange(common))
        moved = np.flatnonzero((yx[:common] != prompts.yx).any(axis=1))
        if len(moved):
            prompts = edits.move(prompts, moved, yx[moved])
        if len(yx) > common:
            new_id = edits.next_id(known, annotation.hidden)
            prompts = edits.add(prompts, yx[common:], self.added_sign, new_id)
        if len(moved) or len(yx) != len(known):
            self._commit(annotation, prompts, positions=False)

    def _edit(self, annotation: Annotation, rows: edits.Rows, edit: Edit) -> None:
        self.sync(annotation)
        if len(rows):
            prompts = edit(annotation.prompts, rows)
            self._commit(annotation, prompts, positions=False)

    def _commit(
        self, annotation: Annotation, prompts: Prompts, *, positions: bool = True
    ) -> None:
        """Make these the prompts of an annotation: all changes of prompts end here."""
        annotation.prompts = prompts
        if annotation.points is not None:
            with self._gestures.paused():
                write_points(
                    annotation.points,
                    prompts,
                    annotation.diameter,
                    positions=positions,
                )
        self.changed.emit()

    def _annotation_about(
        self, plane: ImagePlane, found: Found, threshold: float
    ) -> Annotation:
        annotation = next((a for a in self.annotations if a.is_about(plane)), None)
        if annotation is None:
            annotation = Annotation(plane, found.diameter, threshold)
            self.annotations.append(annotation)
            self.follow(plane)
        annotation.plane = plane
        annotation.diameter = found.diameter
        annotation.threshold = threshold
        return annotation

    def _add_layer(self, layer: Layer, below: Layer | None = None) -> None:
        layer.metadata[SESSION_KEY] = self
        layers = self.viewer.layers
        if below is None or below not in layers:
            layers.append(layer)
        else:
            layers.insert(layers.index(below), layer)
            layers.selection.active = below

    def _replace_labels(
        self, annotation: Annotation, plane: ImagePlane, segmented: Segmented
    ) -> None:
        layer = segmented.layer or build_labels(plane, segmented.labels)
        before = annotation.labels
        annotation.labels = layer
        self._gestures.bind_keys(layer)
        if before is not None and before in self.viewer.layers:
            layer.name = before.name
            self.viewer.layers.remove(before)
        self._add_layer(layer, below=annotation.points)

    def _use(self, used: Annotation) -> None:
        """Note which annotation was used last; keep the embeddings within the limit."""
        self.annotations.remove(used)
        self.annotations.append(used)
        total = 0
        for annotation in reversed(self.annotations):
            if annotation.embedding is None:
                continue
            total += annotation.embedding.features.nbytes
            if total > self.cache_bytes and annotation is not used:
                annotation.embedding = None

    def _on_layer_removed(self, event: Event) -> None:
        layer = event.value
        for annotation in list(self.annotations):
            if layer is annotation.points:
                annotation.points = None
                annotation.prompts = annotation.hidden = Prompts.empty()
            elif layer is annotation.labels:
                annotation.labels = None
            elif annotation.plane is not None and layer is annotation.plane.layer:
                annotation.plane = annotation.embedding = None
                annotation.masks = {}
            else:
                continue
            if annotation.points is None and annotation.labels is None:
                self.annotations.remove(annotation)
        self.changed.emit()
