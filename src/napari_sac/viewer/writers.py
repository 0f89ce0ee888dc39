"""Labels that are saved by napari's File menu as outlines for QuPath."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sac.core.geojson import write_geojson
from napari_sac.viewer.exchange import label_prompts, outline_classes, spare_image
from napari_sac.viewer.layers import SESSION_KEY
from napari_sac.viewer.session import AnnotationSession

if TYPE_CHECKING:
    from napari_sac.viewer.annotation import Annotation


def write_outlines(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write the outlines of a Labels layer as GeoJSON; return the files written.

    A layer of ours gives each nucleus its class, score and state too.

    Raises
    ------
    OutputError
        If the file cannot be written, or is the image; what was there before is kept.
    """
    labels, annotation = np.asarray(data), _annotation_of(meta)
    if annotation is None:
        write_geojson(path, labels)
    else:
        spare_image(annotation, path)
        classes = outline_classes(annotation)
        write_geojson(path, labels, label_prompts(annotation), classes=classes)
    return [path]


def _annotation_of(meta: dict[str, Any]) -> Annotation | None:
    session = meta.get("metadata", {}).get(SESSION_KEY)
    if not isinstance(session, AnnotationSession):
        return None
    for annotation in session.annotations:
        if annotation.labels is not None and annotation.labels.name == meta["name"]:
            session.sync(annotation)
            return annotation
    return None
