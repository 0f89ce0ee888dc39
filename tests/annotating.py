"""What a person does to nuclei by the dock and by clicks, without either."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from app_model.types import KeyBinding

from napari_sac.viewer import editing, exchange
from napari_sac.viewer.planes import pixel_size

if TYPE_CHECKING:
    from pathlib import Path

    from napari.layers import Layer

    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.planes import ImagePlane
    from napari_sac.viewer.session import AnnotationSession


def press(layer: Layer, key: str) -> None:
    """Do what napari does when a key is pressed in a layer."""
    layer.keymap[KeyBinding.from_str(key)](layer)


def add_nuclei(annotation: Annotation, yx: np.ndarray) -> list[int]:
    """Add points (N, 2) to the layer, as clicks beside all nuclei; return their ids."""
    annotation.points.add(yx)
    return annotation.prompts.object_id[-len(yx) :].tolist()


def add_to_nucleus(
    session: AnnotationSession, annotation: Annotation, yx: Any, sign: int
) -> None:
    """Add a point (y, x) to the nucleus that it belongs to, as a click with a key."""
    editing.place(session, annotation, yx, sign)
    annotation.points.add(yx)


def import_labels(
    session: AnnotationSession, plane: ImagePlane, labels: np.ndarray
) -> Annotation:
    read = exchange.prepare_labels(labels, plane, session.known_labels(plane))
    return exchange.show_imported(session, plane, read)


def import_points(
    session: AnnotationSession,
    plane: ImagePlane,
    yx: Any,
    diameter: float | None = None,
) -> Annotation:
    read = exchange.MeasuredPoints(np.asarray(yx, float), diameter)
    return exchange.show_points(session, plane, read)


def import_table(
    session: AnnotationSession, plane: ImagePlane, path: Path
) -> Annotation:
    choice = exchange.measuring_model(session, plane)
    size = pixel_size(plane.layer)
    read = exchange.read_measured_points(path, plane, size, choice, session.loaded)
    return exchange.show_points(session, plane, read)


def import_outlines(
    session: AnnotationSession, plane: ImagePlane, path: Path
) -> Annotation:
    read = exchange.read_outlines(path, plane, session.known_labels(plane))
    return exchange.show_outlines(session, plane, read)
