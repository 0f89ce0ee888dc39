"""Makes the layers of a session show its state; nothing is decided here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sac.viewer.layers import (
    SESSION_KEY,
    build_labels,
    build_points,
    labels_name,
    prompts_name,
    show_pixels,
    write_points,
)
from napari_sac.viewer.outlines import OutlineSwitch
from napari_sac.viewer.planes import PLACING, plane_geometry

if TYPE_CHECKING:
    from napari.layers import Labels, Layer, Points
    from napari.utils.events import Event

    from napari_sac.core.session.pixels import PixelChange
    from napari_sac.core.session.state import AnnotationState
    from napari_sac.core.types import Prompts
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.session import AnnotationSession

REGIONS_STAY = (
    "The reviewed regions still count. The tool Reviewed regions shows their layer "
    "again; delete them in it to take them back. The nuclei that they accepted stay so."
)

POINTS_STAY = (
    "What was decided here is kept: Undo and Redo of a step in this image show the "
    "points again. Find nuclei starts over."
)


class Drawing:
    """Shows and writes the layers of a session, and notes which the user deletes.

    Parameters
    ----------
    session : AnnotationSession

    Attributes
    ----------
    adding : bool
        Whether a layer is being added, so that it is not a person who chooses it.
    """

    def __init__(self, session: AnnotationSession) -> None:
        self.adding = False
        self._placing = False
        self._session = session
        self._outlines = OutlineSwitch()
        session.viewer.layers.events.removed.connect(self._on_layer_removed)

    def draw(
        self,
        annotation: Annotation,
        before: AnnotationState,
        pixels: PixelChange | None,
        *,
        positions: bool = True,
        again: bool = False,
        shown: Prompts | None = None,
    ) -> None:
        """Make the layers show the state, where it differs from the one before.

        Parameters
        ----------
        annotation : Annotation
        before : AnnotationState
        pixels : PixelChange or None
            What differs in the labels.
        positions : bool
            Whether the points must be moved.
        again : bool
            Whether layers that the user has deleted are shown again.
        shown : Prompts, optional
            What the layer shows already, if not the prompts of before.
        """
        state = annotation.state
        if again and annotation.plane is not None:
            self._show_missing(annotation)
        if pixels is not None:
            self.draw_pixels(annotation, pixels)
        if annotation.points is not None and (
            state.prompts is not before.prompts
            or state.settings.diameter != before.settings.diameter
        ):
            with self._session.gestures.paused():
                if pixels is not None and len(state.prompts) != len(before.prompts):
                    # napari takes longer for rows that come or go than for the rest
                    self._session.masks_placed.emit()
                write_points(
                    annotation.points,
                    state.prompts,
                    annotation.diameter,
                    before=before.prompts if shown is None else shown,
                    positions=positions,
                )
        if state.reviewed is not before.reviewed:
            self._session.regions.draw_reviewed(annotation)

    def draw_points(self, annotation: Annotation) -> None:
        """Make the layer of prompts show what is known, whatever it shows."""
        if annotation.points is not None:
            with self._session.gestures.paused():
                write_points(annotation.points, annotation.prompts, annotation.diameter)

    def draw_added(self, annotation: Annotation, before: Prompts) -> None:
        """Make rows that napari has added behind those of before look as they must."""
        if annotation.points is not None:
            with self._session.gestures.paused():
                write_points(
                    annotation.points,
                    annotation.prompts,
                    annotation.diameter,
                    before=before,
                    positions=False,
                )

    def draw_pixels(self, annotation: Annotation, pixels: PixelChange) -> None:
        """Make the Labels layer show pixels of the state."""
        if annotation.labels is not None:
            with self._session.gestures.paused():
                show_pixels(annotation.labels, annotation.state.labels, pixels)

    def mend(self, annotation: Annotation) -> None:
        """Draw pixels again that napari has drawn with another label than ours."""
        pixels, annotation.misdrawn = annotation.misdrawn, None
        if pixels is not None and annotation.labels is not None:
            labels = annotation.state.labels
            with self._session.gestures.paused():
                show_pixels(annotation.labels, labels, pixels, force=True)

    def show_points(self, annotation: Annotation) -> None:
        """Show a layer of prompts."""
        points = build_points(
            annotation.prompts,
            annotation.diameter,
            prompts_name(annotation.name),
            annotation.geometry,
        )
        self.adopt_points(annotation, points)

    def adopt_points(self, annotation: Annotation, points: Points) -> None:
        """Show a layer of prompts that was made elsewhere."""
        annotation.points = points
        _lay(points, annotation)
        gestures = self._session.gestures
        with gestures.paused():
            write_points(points, annotation.prompts, annotation.diameter)
        gestures.watch_points(points)
        gestures.bind_keys(points)
        self._add(points)
        self._place(annotation)

    def show_labels(self, annotation: Annotation, layer: Labels | None = None) -> None:
        """Show a layer of labels, which may have been made elsewhere."""
        name = labels_name(annotation.name)
        if layer is None:
            layer = build_labels(annotation.state.labels, name, annotation.geometry)
        else:
            layer.name = name
            _lay(layer, annotation)
        annotation.outlined = self.outlined(annotation)
        annotation.labels = layer
        self._session.gestures.watch_labels(layer)
        self.adopt(annotation, layer)
        # not before: napari would search for outlines, and once more as it is added
        self._outlines.apply(layer, annotation.outlined)

    def outline(self, outlines: bool) -> None:
        """Show nuclei as outlines, or filled; from now on, and all there are."""
        self._outlines.wanted = outlines
        for annotation in self._session.annotations:
            annotation.outlined = outlines
            if annotation.labels is not None:
                self._outlines.apply(annotation.labels, outlines)

    def outlined(self, annotation: Annotation) -> bool:
        """Return whether nuclei are outlines, or will be when they are first shown."""
        if annotation.outlined is None:
            return self._outlines.suits(annotation)
        return annotation.outlined

    def adopt(self, annotation: Annotation, layer: Layer) -> None:
        """Take a layer into an annotation's: give it our keys, and its place."""
        self._session.gestures.bind_keys(layer)
        self._add(layer, below=annotation.points)
        self._place(annotation)

    def hides_points(self, annotation: Annotation) -> bool:
        """Return whether there are prompts of an image that no layer shows."""
        has_image = annotation.plane is not None
        return has_image and annotation.points is None and len(annotation.prompts) > 0

    def _goes(self, annotation: Annotation) -> bool:
        """Return whether the image of an annotation is deleted with its layers."""
        layers, plane = self._session.viewer.layers, annotation.plane
        # napari deletes what is selected one by one, in any order
        return plane is None or plane.layer in layers.selection

    def _show_missing(self, annotation: Annotation) -> None:
        """Show the layers again that a step is about and the user has deleted."""
        session = self._session
        if annotation not in session.annotations:
            session.annotations.append(annotation)
        if annotation.points is None and len(annotation.prompts):
            self.show_points(annotation)
        if annotation.labels is None and annotation.state.labels.any():
            self.show_labels(annotation)

    def _place(self, annotation: Annotation) -> None:
        """Hide layers that came while another plane is looked at."""
        if not self._session.is_shown(annotation):
            annotation.go_away()

    def _add(self, layer: Layer, below: Layer | None = None) -> None:
        layer.metadata[SESSION_KEY] = self._session
        for name in PLACING:
            getattr(layer.events, name).connect(self._on_own_layer_placed)
        layers = self._session.viewer.layers
        # napari makes it the active one
        self.adding = True
        try:
            if below is None or below not in layers:
                layers.append(layer)
                return
            active = layers.selection.active
            layers.insert(layers.index(below), layer)
            layers.selection.active = below if active is None else active
        finally:
            self.adding = False

    def place(self, annotation: Annotation, geometry: dict[str, Any]) -> None:
        """Put the layers of an annotation where the planes of its image lie now."""
        annotation.geometry = geometry
        self._session.preview.remove()
        before, self._placing = self._placing, True
        try:
            for layer in annotation.layers:
                for name, value in geometry.items():
                    setattr(layer, name, value)
        finally:
            self._placing = before

    def _on_own_layer_placed(self, event: Event) -> None:
        """Let nuclei lie where their image lies, whatever else is done to their layer.

        What napari does to all layers, such as turning them, would be done twice to
        ours, which have followed the image already.
        """
        if self._placing:
            return
        annotation = self._session.owner(event.source)
        if annotation is not None and annotation.plane is not None:
            self.place(annotation, plane_geometry(annotation.plane.layer))

    def _on_layer_removed(self, event: Event) -> None:
        session, layer = self._session, event.value
        session.preview.forget(layer)
        for annotation in session.remembered:
            regions, points = layer is annotation.regions, layer is annotation.points
            if not annotation.let_go(layer):
                continue
            if not self._goes(annotation):
                if regions and annotation.reviewed:
                    session.told.emit(REGIONS_STAY)
                if points and self.hides_points(annotation):
                    session.told.emit(POINTS_STAY)
            if annotation.plane is None:
                session.live.forget(annotation)
            if not annotation.is_shown:
                # what was decided is kept for undo, and nothing large beside it
                if annotation in session.annotations:
                    session.annotations.remove(annotation)
                    annotation.deleted_at = max(a.number for a in session.remembered)
                annotation.forget_pixels()
        session.changed.emit()


def _lay(layer: Layer, annotation: Annotation) -> None:
    """Put a layer where the image lies, which may have moved while it was made."""
    for name, value in annotation.geometry.items():
        # napari draws a layer anew for each, also where it is there already
        if not np.array_equal(getattr(layer, name), value):
            setattr(layer, name, value)
