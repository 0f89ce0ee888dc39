"""What a person does in our layers with napari's tools and our keys.

Here it becomes a call of the session; what it does to the prompts is decided there.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels, Points
from napari.layers.base import ActionType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari.layers import Layer
    from napari.utils.events import Event

    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.prompts import Rows
    from napari_sac.viewer.session import AnnotationSession


class Gestures:
    """Listens to the layers of a session.

    Parameters
    ----------
    session : AnnotationSession
    """

    def __init__(self, session: AnnotationSession) -> None:
        self._session = session
        self._paused = False

    def watch(self, layer: Points) -> None:
        """Listen to points that are added, moved or deleted, and to the features."""
        layer.events.data.connect(self._on_data)
        layer.events.features.connect(self._on_features)

    def bind_keys(self, layer: Layer) -> None:
        """Bind our keys in a layer; a layer's keys win over those of the viewer.

        None of them is one of napari's in Points or Labels layers.
        """
        # napari asks for the names of these functions, so they cannot be partial
        layer.bind_key("W", self.accept, overwrite=True)
        layer.bind_key("Q", self.reject, overwrite=True)
        layer.bind_key("N", self.negate, overwrite=True)

    def accept(self, layer: Layer) -> None:
        """Accept the selected prompts, or the one under the mouse."""
        self._edit(layer, self._session.accept)

    def reject(self, layer: Layer) -> None:
        """Reject the selected prompts, or the one under the mouse."""
        self._edit(layer, self._session.reject)

    def negate(self, layer: Layer) -> None:
        """Turn the sign of the selected prompts, or of the one under the mouse."""
        self._edit(layer, self._session.negate)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not listen: the session itself is writing."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def _on_data(self, event: Event) -> None:
        annotation = self._session.owner(event.source)
        if self._paused or annotation is None:
            return
        if event.action == ActionType.REMOVED:
            rows = np.array(event.data_indices, np.intp)
            self._session.delete(annotation, rows)
        # before a removal too: the rows that it names must be known
        if event.action != ActionType.CHANGING:
            self._session.sync(annotation)

    def _on_features(self, event: Event) -> None:
        annotation = self._session.owner(event.source)
        if not self._paused and annotation is not None:
            self._session.take_features(annotation)

    def _edit(self, layer: Layer, edit: Callable[[Annotation, Rows], None]) -> None:
        annotation = self._session.owner(layer)
        if annotation is not None:
            edit(annotation, self._rows_meant(annotation, layer))

    def _rows_meant(self, annotation: Annotation, layer: Layer) -> Rows:
        """Return the selected prompts, or else those of what is under the cursor."""
        if isinstance(layer, Points) and layer.selected_data:
            return np.array(sorted(layer.selected_data), np.intp)
        value = layer.get_value(self._session.viewer.cursor.position, world=True)
        if value is None:
            return np.array([], np.intp)
        if isinstance(layer, Labels):
            return np.flatnonzero(annotation.prompts.object_id == int(value))
        return np.array([value], np.intp)
