"""What comes from files and goes to files: sessions, labels, points and outlines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image

from napari_sac.core.errors import LabelFormatError, SessionError
from napari_sac.core.io import read_points, write_labels, write_prompts
from napari_sac.core.session import folder as session_folder
from napari_sac.core.session.pixels import PixelChange
from napari_sac.core.session.state import AnnotationState, Settings
from napari_sac.core.types import Prompts, PromptState
from napari_sac.viewer import painting
from napari_sac.viewer import prompts as edits
from napari_sac.viewer.live import Edit
from napari_sac.viewer.planes import ImagePlane, pixel_size

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_sac.core.geojson import Outlines
    from napari_sac.core.session.image import ImageReference
    from napari_sac.core.session.journal import Journal
    from napari_sac.core.types import AnyArray, FloatArray
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.session import AnnotationSession

OME_ZARR_SUFFIX = ".ome.zarr"
_GEOJSON_SUFFIXES = (".geojson", ".json")


def import_labels(
    session: AnnotationSession, plane: ImagePlane, labels: AnyArray, title: str
) -> Annotation:
    """Make every label of another tool a nucleus with a prompt.

    The pixels stay as they are given until somebody changes the nucleus's prompts.
    What was annotated here before is replaced, which undo takes back.

    Parameters
    ----------
    session : AnnotationSession
    plane : ImagePlane
    labels : (H, W) integer array
        0 background.
    title : str
        What the step is called.

    Raises
    ------
    LabelFormatError
        If they are no labels of this plane.
    """
    from napari_sac.core.inference.imports import prompts_from_labels

    given = check_labels(labels, plane.shape)
    prompts = prompts_from_labels(given)
    return _replace_all(session, plane, given, prompts, title)


def import_points(
    session: AnnotationSession, plane: ImagePlane, yx: FloatArray
) -> Annotation:
    """Make every point (N, 2) a nucleus beside those there are; masks are decoded."""
    from napari_sac.core.inference.imports import prompts_from_points

    annotation = session.about(plane)
    state = annotation.state
    points = prompts_from_points(np.asarray(yx, np.float64))
    points = replace(
        points, object_id=points.object_id + edits.next_id(state.prompts, state.hidden)
    )
    prompts = Prompts.concatenate([state.prompts, points])
    _import(
        session,
        annotation,
        edits.count_title("import", len(points)),
        replace(state, prompts=prompts),
        edit=Edit(state.prompts, prompts),
    )
    return annotation


def import_table(
    session: AnnotationSession, plane: ImagePlane, path: str | Path
) -> Annotation:
    """Make every point of a CSV or QuPath file a nucleus; masks are decoded.

    A table in micrometres needs an image that says how large its pixels are.

    Raises
    ------
    LabelFormatError
        If the file has no points that can be read.
    """
    if Path(path).suffix.lower() in _GEOJSON_SUFFIXES:
        from napari_sac.core.geojson import read_geojson

        points = read_geojson(path, plane.shape).points.yx
    else:
        # pixels need not be square
        size = pixel_size(plane.layer) or (None, None)
        columns = [read_points(path, pixel_size=s)[:, i] for i, s in enumerate(size)]
        points = np.column_stack(columns)
    return import_points(session, plane, points)


def import_geojson(
    session: AnnotationSession, plane: ImagePlane, path: str | Path
) -> Annotation:
    """Take up outlines that were corrected elsewhere, in QuPath for example.

    Nuclei keep their ids. One whose outline was changed counts as painted, one that is
    missing in the file is rejected, and one that is new gets a prompt, with the score
    and the state that the file has for it. What was accepted there is accepted.

    Raises
    ------
    LabelFormatError
        If the file has no outlines that can be read.
    """
    from napari_sac.core.geojson import read_geojson
    from napari_sac.core.inference.imports import prompts_from_labels

    outlines = read_geojson(path, plane.shape)
    labels = _without_rejected(outlines)
    annotation = session.about(plane)
    session.sync(annotation)
    state = annotation.state
    if len(state.prompts) == 0:
        prompts = _decided(state.prompts, prompts_from_labels(labels), outlines)
        return _replace_all(session, plane, labels, prompts, "import outlines")
    stroke = painting.read_stroke(state, labels, (0, 0, *plane.shape))
    after = state if stroke is None else stroke.after
    pixels = None if stroke is None else stroke.pixels
    after = replace(after, prompts=_decided(state.prompts, after.prompts, outlines))
    edit = Edit(
        state.prompts,
        after.prompts,
        state.painted - after.painted,
        painting.change_box(pixels, plane.shape),
        painted=after.painted - state.painted,
    )
    _import(session, annotation, "import outlines", after, pixels, edit)
    return annotation


def export_labels(annotation: Annotation, path: str | Path) -> None:
    """Write the labels as TIFF, or as OME-Zarr where the name ends in ``.ome.zarr``.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    if str(path).lower().endswith(OME_ZARR_SUFFIX):
        from napari_sac.core.ome_zarr import write_ome_zarr

        write_ome_zarr(path, annotation.state.labels, annotation.prompts)
    else:
        write_labels(path, annotation.state.labels)


def export_prompts(annotation: Annotation, path: str | Path) -> None:
    """Write the prompts that are shown as CSV."""
    write_prompts(path, annotation.prompts)


def export_geojson(annotation: Annotation, path: str | Path) -> None:
    """Write the outlines with id, class, score and state, for QuPath."""
    from napari_sac.core.geojson import write_geojson

    write_geojson(path, annotation.state.labels, annotation.prompts)


def open_session(session: AnnotationSession, folder: str | Path) -> list[Annotation]:
    """Open a session folder in a viewer in which nothing was annotated yet.

    Images that the viewer has open already are used; others are read.

    Raises
    ------
    SessionError
        If the folder is no session, or something was annotated here.
    """
    if session.annotations:
        raise SessionError(
            "There are nuclei in this window already, which belong to another session. "
            "Nothing was changed; save them, and open this session in a new window."
        )
    journal = session_folder.open_session(folder)
    try:
        restored = journal.restore()
    except SessionError:
        journal.close(clean=False)
        raise
    session.journal.take(journal, restored.images)
    session.steps.history = restored.history
    for number, state in restored.states.items():
        reference = restored.images[number]
        view = restored.info.get(f"view-{number}", {})
        plane = _find_plane(session, reference)
        if plane is None:
            plane = _load_plane(session, journal, number, reference, view)
        annotation = session.restore(number, plane, state, reference.name)
        work = restored.info.get(f"work-{number}", {})
        if isinstance(work, dict) and isinstance(work.get("clicks"), int):
            annotation.clicks = work["clicks"]
    if journal.read_only_reason is not None:
        session.told.emit(
            f"{journal.read_only_reason} Save it under another name to keep changes."
        )
    return list(session.annotations)


def check_labels(labels: AnyArray, shape: tuple[int, int]) -> npt.NDArray[np.uint32]:
    """Return labels of any tool as uint32.

    Raises
    ------
    LabelFormatError
        If they are not (H, W) whole numbers from 0 up, of the shape of the image.
    """
    values = np.asarray(labels)
    problem = None
    if values.shape != shape:
        problem = f"they are {' x '.join(map(str, values.shape))} pixels"
    elif values.dtype.kind not in "iub":
        problem = f"their values are {values.dtype}"
    elif values.size and (values.min() < 0 or values.max() > np.iinfo(np.uint32).max):
        problem = "they have values below 0, or too large ones"
    if problem is not None:
        raise LabelFormatError(
            f"These are no labels of the image, which is {shape[0]} x {shape[1]}: "
            f"{problem}. Nothing was changed; choose labels of the whole plane."
        )
    return values.astype(np.uint32)


def typical_diameter(labels: AnyArray) -> float:
    """Return the median diameter of the labels, as discs of their area, in pixels."""
    areas = np.bincount(labels.ravel())[1:] if labels.max(initial=0) < 1 << 24 else None
    if areas is None:
        _, areas = np.unique(labels[labels > 0], return_counts=True)
    areas = areas[areas > 0]
    if len(areas) == 0:
        return Settings().diameter
    return float(np.sqrt(4 * np.median(areas) / np.pi))


def _replace_all(
    session: AnnotationSession,
    plane: ImagePlane,
    labels: npt.NDArray[np.uint32],
    prompts: Prompts,
    title: str,
) -> Annotation:
    """Make labels the annotation of a plane, with given pixels for each nucleus."""
    fresh = Settings(diameter=typical_diameter(labels), decode=session.decode_config)
    annotation = session.about(plane, fresh)
    state = annotation.state
    after = AnnotationState(
        prompts,
        Prompts.empty(),
        state.labels,
        frozenset(prompts.object_id.tolist()),
        state.reviewed,
        replace(state.settings, diameter=fresh.diameter),
    )
    pixels = PixelChange.between(state.labels, labels)
    _import(session, annotation, title, after, pixels)
    return annotation


def _import(
    session: AnnotationSession,
    annotation: Annotation,
    title: str,
    after: AnnotationState,
    pixels: PixelChange | None = None,
    edit: Edit | None = None,
) -> None:
    """Record what came from a file, and show all layers that it needs."""
    if annotation.points is None:
        session.drawing.show_points(annotation)
    gone = annotation.masks.keys() - set(after.prompts.object_id.tolist())
    masks = dict.fromkeys(gone | (after.painted & annotation.masks.keys()))
    session.steps.record(
        annotation, title, after, pixels=pixels, masks=masks, edit=edit
    )
    if annotation.labels is None and annotation.state.labels.any():
        session.drawing.show_labels(annotation)


def _without_rejected(outlines: Outlines) -> npt.NDArray[np.uint32]:
    """Return the areas, but for those of nuclei that were rejected."""
    rejected = np.array(outlines.state, str) == PromptState.REJECTED.value
    labels = outlines.labels
    gone = np.isin(labels, outlines.object_id[rejected].astype(np.uint32))
    return np.where(gone, np.uint32(0), labels)


def _decided(before: Prompts, after: Prompts, outlines: Outlines) -> Prompts:
    """Return the prompts with the decisions of a file.

    Parameters
    ----------
    before, after : Prompts
        Without and with what is new in the file.
    outlines : Outlines
    """
    known = set(before.object_id.tolist())
    values = zip(
        outlines.object_id.tolist(), outlines.score, outlines.state, strict=True
    )
    score, state = after.score.copy(), after.state.copy()
    vouched = set()
    for object_id, its_score, its_state in values:
        if object_id not in known:
            rows = after.object_id == object_id
            score[rows], state[rows] = its_score, its_state
        elif its_state not in (PromptState.AUTO.value, PromptState.REJECTED.value):
            vouched.add(object_id)
    return edits.vouch_for(replace(after, score=score, state=state), vouched)


def _find_plane(
    session: AnnotationSession, reference: ImageReference
) -> ImagePlane | None:
    """Return the plane if a layer in the viewer is of the same file."""
    for layer in session.viewer.layers:
        path = getattr(layer.source, "path", None)
        if not isinstance(layer, Image) or path is None or reference.path is None:
            continue
        if Path(path).absolute() != Path(reference.path):
            continue
        data = layer.data[0] if layer.multiscale else layer.data
        plane = ImagePlane(
            layer, data, reference.index, reference.channel_axis, reference.channels
        )
        if layer.ndim - 2 == len(reference.index) and plane.shape == reference.shape:
            return plane
    return None


def _load_plane(
    session: AnnotationSession,
    journal: Journal,
    number: int,
    reference: ImageReference,
    view: dict[str, Any],
) -> ImagePlane | None:
    """Add the image as the models read it; None, and a word, if it is not there."""
    try:
        pixels = journal.read_image(number, reference)
    except SessionError as error:
        session.told.emit(f"{error} Prompts and labels can be corrected without it.")
        return None
    layer = session.viewer.add_image(
        pixels, rgb=True, name=reference.name, **_placed(view)
    )
    return ImagePlane(layer, pixels, ())


def _placed(view: Any) -> dict[str, Any]:
    """Return how a layer lies in the world, as far as the session says it sensibly."""
    placed: dict[str, Any] = {}
    if not isinstance(view, dict):
        return placed
    for name in ("scale", "translate"):
        values = view.get(name)
        if (
            isinstance(values, list)
            and len(values) == 2
            and all(isinstance(v, int | float) and np.isfinite(v) for v in values)
            and (name != "scale" or all(v != 0 for v in values))
        ):
            placed[name] = tuple(values)
    return placed
