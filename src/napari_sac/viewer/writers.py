"""Labels that are saved by napari's File menu as outlines for QuPath."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sac.core.errors import OutputError
from napari_sac.core.geojson import write_geojson
from napari_sac.viewer.exchange import label_prompts, outline_classes, spare_image
from napari_sac.viewer.layers import SESSION_KEY
from napari_sac.viewer.session import AnnotationSession

if TYPE_CHECKING:
    from napari_sac.core.types import AnyArray
    from napari_sac.viewer.annotation import Annotation

_LARGEST = 2**32 - 1


def write_outlines(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write the outlines of a Labels layer as GeoJSON; return the files written.

    A layer of ours gives each nucleus its class, score and state too.

    Raises
    ------
    OutputError
        If the labels are no plane of numbers from 0 to 2**32 - 1, the file cannot be
        written, or is the image; what was there before is kept.
    """
    annotation = _annotation_of(meta)
    # of several levels the whole array is the smallest
    labels = np.asarray(data[0] if meta.get("multiscale") else data)
    _check(labels, meta["name"])
    if annotation is None:
        write_geojson(path, labels)
    else:
        spare_image(annotation, path)
        classes = outline_classes(annotation)
        write_geojson(path, labels, label_prompts(annotation), classes=classes)
    return [path]


def _check(labels: AnyArray, name: str) -> None:
    if labels.ndim != 2:
        raise OutputError(
            f"The layer {name} has {labels.ndim} axes, and outlines are of one plane. "
            "Nothing was written; save each plane as a Labels layer of its own."
        )
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or high > _LARGEST:
        raise OutputError(
            f"The layer {name} has numbers from {low:,} to {high:,}, and nuclei are "
            f"numbered from 1 to {_LARGEST:,}. Nothing was written; give them other "
            "numbers."
        )


def _annotation_of(meta: dict[str, Any]) -> Annotation | None:
    session = meta.get("metadata", {}).get(SESSION_KEY)
    if not isinstance(session, AnnotationSession):
        return None
    for annotation in session.annotations:
        if annotation.labels is not None and annotation.labels.name == meta["name"]:
            # the layer's own array, which may show another label than was meant
            session.drawing.mend(annotation)
            session.sync(annotation)
            return annotation
    return None
