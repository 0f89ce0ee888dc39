"""What napari's tools do to labels, made steps of the session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sac.viewer import painting
from napari_sac.viewer.live import Edit

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.session import AnnotationSession


def take_stroke(
    session: AnnotationSession,
    annotation: Annotation,
    drawn: npt.NDArray[np.uint32],
    box: tuple[int, int, int, int],
    brush: int = 0,
) -> None:
    """Take up a stroke of napari's brush, eraser, bucket or polygon tool.

    Parameters
    ----------
    session : AnnotationSession
    annotation : Annotation
    drawn : (h, w) uint32
        The pixels of the box after the stroke.
    box : (int, int, int, int)
        y0, x0, y1, x1.
    brush : int, optional
        The label in hand: what is drawn with it apart from its nucleus is another one.
    """
    # points that were pasted are told by nobody
    session.sync(annotation)
    layer, state = annotation.labels, annotation.state
    if layer is None:
        return
    stroke = painting.read_stroke(state, drawn, box, brush)
    if stroke is None:
        return
    shape = (state.labels.shape[0], state.labels.shape[1])
    after = stroke.after
    edit = Edit.between(state, after, painting.change_box(stroke.pixels, shape))
    used = int(layer.selected_label)
    session.steps.record(
        annotation, stroke.title, after, pixels=stroke.pixels, edit=edit
    )
    taken = painting.selected_label(stroke, used)
    if taken != used:
        # napari drew with the label of another nucleus, or is just about to
        annotation.misdrawn = stroke.pixels
        session.drawing.mend(annotation)
        annotation.misdrawn = stroke.pixels
        with session.gestures.paused():
            layer.selected_label = taken


def take_labels(session: AnnotationSession, annotation: Annotation) -> None:
    """Take up another array that somebody has put into the Labels layer."""
    layer, labels = annotation.labels, annotation.state.labels
    if layer is None:
        return
    data = np.asarray(layer.data)
    fits = data.shape == labels.shape and data.dtype.kind in "iub"
    if fits and (data.size == 0 or data.min() >= 0):
        shown = data.astype(np.uint32)
    else:
        shown = labels.copy()
        session.told.emit(
            "Only whole numbers of the image's size can be its labels; the labels "
            "there were are shown again."
        )
    with session.gestures.paused():
        layer.data = shown.copy()
    whole = (0, 0, labels.shape[0], labels.shape[1])
    take_stroke(session, annotation, shown, whole)
