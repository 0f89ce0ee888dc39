"""What comes from files and goes to files: sessions, labels, points and outlines.

What begins with ``read`` may run in a worker's thread: it touches nothing that a viewer
shows. What begins with ``show`` puts what was read into the session.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image

from napari_sac.core.errors import (
    LabelFormatError,
    NapariSacError,
    OutputError,
    SessionError,
)
from napari_sac.core.folders import identity_of
from napari_sac.core.io import read_points, write_labels, write_prompts
from napari_sac.core.names import (
    LABELS_ENDING,
    OME_ZARR_FOLDER,
    OUTLINES_FILE,
    PROMPTS_FILE,
)
from napari_sac.core.progress import Progress, ignore_progress
from napari_sac.core.session import folder as session_folder
from napari_sac.core.session.image import unnumbered
from napari_sac.core.session.state import AnnotationState, Settings
from napari_sac.core.types import Prompts, PromptState
from napari_sac.viewer import painting
from napari_sac.viewer import prompts as edits
from napari_sac.viewer.adapters import check_choice
from napari_sac.viewer.annotation import Annotation
from napari_sac.viewer.inference import measure_nuclei
from napari_sac.viewer.layers import plane_name
from napari_sac.viewer.live import Edit
from napari_sac.viewer.planes import (
    AS_READ,
    IMAGE_FILE,
    IMAGE_ORIGIN,
    ImagePlane,
    is_open,
    pixel_size,
    plane_geometry,
)
from napari_sac.viewer.relabelling import FreshLabels
from napari_sac.viewer.reopening import (
    file_of,
    find_moved,
    find_plane,
    has_pixels,
    know_again,
)
from napari_sac.viewer.results import settings_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy.typing as npt
    from napari.layers import Labels, Layer

    from napari_sac.core.geojson import Outlines
    from napari_sac.core.session.image import ImageReference
    from napari_sac.core.session.journal import Journal, Restored
    from napari_sac.core.session.pixels import PixelChange
    from napari_sac.core.types import AnyArray, FloatArray, ObjectClass
    from napari_sac.viewer.inference import LoadedModel, ModelChoice
    from napari_sac.viewer.relabelling import KnownLabels
    from napari_sac.viewer.session import AnnotationSession

_EXPORT_ENDINGS = {".csv": PROMPTS_FILE, ".geojson": OUTLINES_FILE}
"""What comes behind the name of the image in files other than labels."""
_GEOJSON_SUFFIXES = (".geojson", ".json")
_STILL_CORRECTED = (
    "Or open it from where it is now in a new window, and then the session. Prompts "
    "and labels can be corrected all the same."
)


@dataclass(frozen=True, eq=False)
class ReadLabels:
    """Labels of another tool, and a prompt for each.

    Parameters
    ----------
    fresh : FreshLabels
        0 background, otherwise the ``object_id``.
    prompts : Prompts
    diameter : float
        Typical nucleus diameter in pixels.
    """

    fresh: FreshLabels
    prompts: Prompts
    diameter: float


@dataclass(frozen=True, eq=False)
class MeasuredPoints:
    """Points of a file and, for an image without nuclei, how large its nuclei are.

    Parameters
    ----------
    yx : (N, 2) float
        In pixels of the image.
    diameter : float or None
        Typical nucleus diameter in pixels; None where it is known already.
    loaded : LoadedModel or None
        The model that measured it.
    """

    yx: FloatArray
    diameter: float | None = None
    loaded: LoadedModel | None = None


@dataclass(frozen=True, eq=False)
class ReadOutlines:
    """Outlines of a file, and their areas but for those of rejected nuclei."""

    outlines: Outlines
    areas: ReadLabels


@dataclass(frozen=True, eq=False)
class ReadSession:
    """A session that is open, and shown nowhere yet.

    Parameters
    ----------
    journal : Journal
    restored : Restored
    planes : dict of int to ImagePlane
        Of images that layers show, by number of the annotation.
    pixels : dict of int to (H, W, 3) uint8
        Of the others.
    problems : tuple of str
        Sentences about images that could not be read, and a model that is not here.
    looked_at : collection of Layer
        The layers that there were when it was read.
    """

    journal: Journal
    restored: Restored
    planes: dict[int, ImagePlane]
    pixels: dict[int, npt.NDArray[np.uint8]]
    problems: tuple[str, ...] = ()
    looked_at: Collection[Layer] = ()


def prepare_labels(
    labels: AnyArray,
    plane: ImagePlane,
    known: KnownLabels,
    progress: Progress = ignore_progress,
) -> ReadLabels:
    """Return labels of another tool with a prompt for each.

    Parameters
    ----------
    labels : (H, W) integer array
    plane : ImagePlane
    known : KnownLabels
        Those that the plane has.
    progress : Progress, optional

    Raises
    ------
    LabelFormatError
        If they are no labels of this plane.
    """
    from napari_sac.core.inference.imports import prompts_from_labels
    from napari_sac.core.training.targets import typical_diameter

    progress("looking at the labels", 0, 0)
    given = check_labels(labels, plane.shape)
    prompts = prompts_from_labels(given, progress)
    diameter = typical_diameter(given) or Settings().diameter
    progress("drawing the labels", 0, 0)
    return ReadLabels(FreshLabels.after(known, given, plane), prompts, diameter)


def show_points(
    session: AnnotationSession, plane: ImagePlane, read: MeasuredPoints
) -> Annotation:
    """Make every point a nucleus beside those there are; masks are decoded."""
    from napari_sac.core.inference.imports import prompts_from_points

    if read.loaded is not None:
        session.loaded = read.loaded
    annotation = session.about(plane)
    session.sync(annotation)
    state = annotation.state
    points = prompts_from_points(read.yx)
    points = replace(
        points, object_id=points.object_id + edits.next_id(state.prompts, state.hidden)
    )
    prompts = Prompts.concatenate([state.prompts, points])
    settings = state.settings
    if len(state.prompts) == 0:
        settings = session.fresh_settings()
        settings = replace(settings, diameter=read.diameter or settings.diameter)
        if session.loaded is not None and session.loaded.choice == session.choice():
            settings = settings_of(session.loaded, settings)
    _import(
        session,
        annotation,
        edits.count_title("import", len(points)),
        replace(state, prompts=prompts, settings=settings),
        edit=Edit(state.prompts, prompts),
    )
    return annotation


def measuring_model(
    session: AnnotationSession, plane: ImagePlane
) -> ModelChoice | None:
    """Return what is to measure a plane's nuclei; None if there are some already."""
    known = session.find(plane)
    measured = known is not None and len(known.prompts) > 0
    return None if measured else session.choice()


def read_measured_points(
    path: str | Path,
    plane: ImagePlane,
    size: tuple[float, float] | None,
    choice: ModelChoice | None,
    loaded: LoadedModel | None,
    diameter: float | None = None,
    progress: Progress = ignore_progress,
) -> MeasuredPoints:
    """Return the points of a file, and how large the nuclei of the image are.

    Parameters
    ----------
    path : str or Path
    plane : ImagePlane
    size : (float, float) or None
        Micrometres of a pixel along y and x, if they are known.
    choice : ModelChoice or None
        The model that measures nuclei; None to leave that out.
    loaded : LoadedModel or None
        The model used last.
    diameter : float, optional
        Typical nucleus diameter in pixels, which is not measured then.
    progress : Progress, optional

    Raises
    ------
    NapariSacError
        As :func:`read_table`, and of the image and the model.
    """
    yx = read_table(path, plane.shape, size, progress)
    if choice is None or diameter is not None:
        return MeasuredPoints(yx, diameter)
    measured, measured_by = measure_nuclei(plane, choice, loaded, progress)
    return MeasuredPoints(yx, measured, measured_by)


def read_table(
    path: str | Path,
    shape: tuple[int, int],
    size: tuple[float, float] | None,
    progress: Progress = ignore_progress,
) -> FloatArray:
    """Return the points (N, 2) of a CSV or QuPath file, in pixels of the image.

    A table in micrometres needs an image that says how large its pixels are.

    Parameters
    ----------
    path : str or Path
    shape : (int, int)
        Of the image.
    size : (float, float) or None
        Micrometres of a pixel along y and x, if they are known.
    progress : Progress, optional

    Raises
    ------
    LabelFormatError
        If the file has no points that can be read.
    """
    progress("reading the file", 0, 0)
    if Path(path).suffix.lower() in _GEOJSON_SUFFIXES:
        from napari_sac.core.geojson import read_geojson

        return read_geojson(path, shape).points.yx
    from napari_sac.core.inference.imports import check_inside

    # pixels need not be square
    columns = [
        read_points(path, pixel_size=s)[:, i] for i, s in enumerate(size or (None,) * 2)
    ]
    yx = np.column_stack(columns)
    check_inside(yx, shape)
    return yx


def read_outlines(
    path: str | Path,
    plane: ImagePlane,
    known: KnownLabels,
    progress: Progress = ignore_progress,
) -> ReadOutlines:
    """Return the outlines of a file for a plane, of which some labels are known.

    Raises
    ------
    LabelFormatError
        If the file has no outlines that can be read.
    """
    from napari_sac.core.geojson import read_geojson

    progress("reading the file", 0, 0)
    outlines = read_geojson(path, plane.shape)
    if not len(outlines.object_id):
        # without any, all that is here would have been deleted there
        had, way = ("points and no", "import it as points")
        if not len(outlines.points):
            had, way = ("no", "export annotations or detections from QuPath")
        raise LabelFormatError(
            f"{path} has {had} outlines. Nothing was changed; {way}."
        )
    areas = prepare_labels(_without_rejected(outlines), plane, known, progress)
    return ReadOutlines(outlines, areas)


def show_outlines(
    session: AnnotationSession, plane: ImagePlane, read: ReadOutlines
) -> Annotation:
    """Take up outlines that were corrected elsewhere, in QuPath for example.

    Nuclei keep their ids. One whose outline was changed counts as painted, one that is
    missing in the file is rejected, and one that is new gets a prompt, with the score
    and the state that the file has for it. What was accepted there is accepted. All
    have the class that they have in the file.
    """
    outlines, areas = read.outlines, read.areas
    annotation = session.about(plane)
    session.sync(annotation)
    state = annotation.state
    # one mask of all nuclei has no outline that could come back as another one
    if len(state.prompts) == 0 or not annotation.has_instances:
        prompts = _decided(Prompts.empty(), areas.prompts, outlines)
        classes, areas = _classes_in(outlines), replace(areas, prompts=prompts)
        return show_imported(session, plane, areas, "import outlines", classes)
    stroke = painting.read_stroke(state, areas.fresh.labels, (0, 0, *plane.shape))
    after = state if stroke is None else stroke.after
    pixels = None if stroke is None else stroke.pixels
    if stroke is not None:
        outlines = _renumbered(outlines, stroke.renumbered)
    named = set(outlines.object_id.tolist())
    others = {k: c for k, c in state.classes.items() if k not in named}
    after = replace(
        after,
        prompts=_decided(state.prompts, after.prompts, outlines),
        classes={**others, **_classes_in(outlines)},
    )
    edit = Edit.between(state, after, painting.change_box(pixels, plane.shape))
    _import(session, annotation, "import outlines", after, pixels, edit)
    return annotation


def export_labels(annotation: Annotation, path: str | Path) -> None:
    """Write the labels as TIFF, or as OME-Zarr where the name ends in ``.zarr``.

    Raises
    ------
    OutputError
        If it cannot be written, or the path is that of the image.
    """
    spare_image(annotation, path)
    labels, plane = annotation.state.labels, annotation.plane
    # of an image that was deleted, its nuclei lie where it lay
    layer = annotation.labels if plane is None else plane.layer
    size = None if layer is None else pixel_size(layer)
    if Path(path).suffix.lower() == ".zarr":
        from napari_sac.core.ome_zarr import write_ome_zarr

        write_ome_zarr(path, labels, label_prompts(annotation), pixel_size=size)
    else:
        write_labels(path, labels, pixel_size=size)


def export_prompts(annotation: Annotation, path: str | Path) -> None:
    """Write the prompts that are shown as CSV; raises as :func:`export_labels`."""
    spare_image(annotation, path)
    write_prompts(path, annotation.prompts)


def export_geojson(annotation: Annotation, path: str | Path) -> None:
    """Write the outlines with id, class, score and state, for QuPath.

    Raises as :func:`export_labels`.
    """
    from napari_sac.core.geojson import write_geojson

    spare_image(annotation, path)
    labels, classes = annotation.state.labels, outline_classes(annotation)
    write_geojson(path, labels, label_prompts(annotation), classes=classes)


def spare_image(annotation: Annotation, path: str | Path) -> None:
    """Raise ``OutputError`` if a path is that of the image that is annotated."""
    layer = None if annotation.plane is None else annotation.plane.layer
    if layer is None:
        return
    files = (layer.source.path, layer.metadata.get(IMAGE_FILE))
    name = Path(path).name
    target = identity_of(Path(path))
    if target and target in {identity_of(Path(file)) for file in files if file}:
        zarr = name.lower().endswith(OME_ZARR_FOLDER)
        ending = OME_ZARR_FOLDER if zarr else Path(path).suffix
        stem = name[: len(name) - len(ending)]
        raise OutputError(
            f"{name} is the image itself. Nothing was written, and the image was kept; "
            f"choose another name, such as {export_name(stem, ending)}."
        )


def export_name(stem: str, ending: str) -> str:
    """Return what a file with the nuclei of an image is called by default.

    As ``napari-sac segment`` calls it, so that folders of exports pair with images.
    """
    return f"{stem}{_EXPORT_ENDINGS.get(ending, f'{LABELS_ENDING}{ending}')}"


def check_names_image(path: Path, plane: ImagePlane, layers: Collection[Layer]) -> None:
    """Check that a file with nuclei is not named after another image that is open.

    Raises
    ------
    LabelFormatError
        If it is, and not after that of the plane too.
    """
    ending = OME_ZARR_FOLDER if path.name.endswith(OME_ZARR_FOLDER) else path.suffix
    stem = re.sub("_(labels|prompts|points)$", "", path.name.removesuffix(ending))
    # labels that are open as an image are no image that they could belong to
    others = [
        layer
        for layer in layers
        if isinstance(layer, Image)
        and layer is not plane.layer
        and file_of(layer) != str(path.absolute())
    ]
    if stem in {plane_name(plane), *_names(plane.layer)}:
        return
    if any(stem in _names(other) for other in others):
        raise LabelFormatError(
            f"{path.name} is named after the image {stem}, and {plane_name(plane)} is "
            f"chosen. Nothing was changed; choose {stem} under Image, or rename the "
            "file."
        )


def _names(layer: Layer) -> set[str]:
    """Return what files with the nuclei of an image begin with."""
    file = file_of(layer)
    names = {str(layer.name), unnumbered(str(layer.name))}
    return names if file is None else {*names, Path(file).stem}


def label_prompts(annotation: Annotation) -> Prompts | None:
    """Return the prompts of the labels; None where a label is all nuclei together."""
    return annotation.prompts if annotation.has_instances else None


def outline_classes(annotation: Annotation) -> Mapping[int, ObjectClass]:
    """Return the classes by label; none where a label is the foreground of all."""
    return annotation.state.classes if annotation.has_instances else {}


def open_session(session: AnnotationSession, folder: str | Path) -> list[Annotation]:
    """Open a session folder in a viewer in which nothing was annotated yet.

    Images that the viewer has open already, with the same pixels, are used; others are
    read.

    Raises
    ------
    SessionError
        If the folder is no session, or something was annotated here.
    """
    make_way(session, folder)
    return show_session(session, read_session(folder, tuple(session.viewer.layers)))


def make_way(session: AnnotationSession, folder: str | Path) -> bool:
    """Close the session of layers that were all deleted, if it is to be opened.

    Return whether it was that one. It is locked as long as it is open. Another one is
    left when this is shown: until then what was deleted can be had back.

    Raises
    ------
    SessionError
        If something was annotated in this viewer.
    """
    check_empty(session)
    own = session.journal.is_at(Path(folder))
    if own:
        session.leave()
    return own


def check_empty(session: AnnotationSession) -> None:
    """Raise ``SessionError`` if something was annotated in this viewer."""
    if session.annotations:
        raise SessionError(
            "There are nuclei in this window already, which belong to another session. "
            "Nothing was changed; save them, and open this session in a new window."
        )


def read_session(
    folder: str | Path,
    shown: Collection[Layer] = (),
    progress: Progress = ignore_progress,
) -> ReadSession:
    """Open a session, and read its images.

    Parameters
    ----------
    folder : str or Path
    shown : collection of Layer
        Layers that are used where they show the very pixels of an image.
    progress : Progress, optional

    Raises
    ------
    SessionError
        If the folder is no session, or is damaged.
    """
    progress("reading the session", 0, 0)
    journal = session_folder.open_session(folder)
    try:
        restored = journal.shorten(journal.restore())
        planes, pixels, problems = {}, {}, []
        hashes: dict[object, str | None] = {}
        for number in restored.shown:
            reference = restored.images[number]
            progress("reading the images", number - 1, len(restored.images))
            plane = find_plane(shown, reference)
            if plane is not None and has_pixels(plane, reference):
                planes[number] = plane
                continue
            try:
                read, found = journal.find_image(number, reference)
            except SessionError as error:
                plane = find_moved(shown, reference, hashes)
                if plane is None:
                    problems.append(f"{error} {_STILL_CORRECTED}")
                    continue
                planes[number] = plane
                # of others from that file nobody knows whether they moved with it
                moved = replace(reference, path=file_of(plane.layer) or reference.path)
                _note(journal, restored, number, moved)
                continue
            _note_place(journal, restored, reference, found)
            # what lies beside the session may be open as well
            plane = None if found is reference else find_plane(shown, found)
            if plane is not None and has_pixels(plane, found):
                planes[number] = plane
            else:
                pixels[number] = read
        problems += _model_problems(restored)
    except BaseException:
        # whatever has happened: who is not closed keeps the session locked
        journal.close(clean=False)
        raise
    return ReadSession(journal, restored, planes, pixels, tuple(problems), shown)


def _note_place(
    journal: Journal,
    restored: Restored,
    before: ImageReference,
    found: ImageReference,
) -> None:
    """Note where the file of some images is now, so that a copy finds it too."""
    if found.path == before.path:
        return
    for number, image in restored.images.items():
        if image.path == before.path and not image.kept:
            _note(journal, restored, number, replace(image, path=found.path))


def _note(
    journal: Journal, restored: Restored, number: int, moved: ImageReference
) -> None:
    restored.images[number] = moved
    # who may not write, or cannot at the moment, finds it again
    with suppress(OutputError):
        journal.set_image(number, moved)


def show_session(session: AnnotationSession, read: ReadSession) -> list[Annotation]:
    """Show a session that was read.

    Raises
    ------
    SessionError
        If something was annotated here meanwhile; the session is closed again.
    """
    journal, restored = read.journal, read.restored
    try:
        check_empty(session)
    except SessionError:
        journal.close(clean=False)
        raise
    session.leave()
    # what the dock showed of images by default is not what was chosen for them
    session.seen_as.clear()
    session.journal.take(journal, restored.images)
    session.steps.history = restored.history
    for problem in read.problems:
        session.told.emit(problem)
    shown = restored.shown
    loaded: dict[int, ImagePlane] = {}
    for number, state in restored.states.items():
        reference = restored.images[number]
        view = restored.info.get(f"view-{number}", {})
        plane = read.planes.get(number)
        if plane is not None and not is_open(session.viewer, plane):
            plane = None
        if plane is None and number in shown:
            # of a start-over that was undone the image is there already
            there = _find_twin(read, number, loaded) if state.is_empty else None
            plane = there or _load_plane(session, read, number, view)
            if plane is not None:
                loaded[number] = plane
        geometry = {} if plane is None else plane_geometry(plane.layer)
        annotation = Annotation(number, plane, state, geometry, reference.name)
        # the labels are known, and the masks that they were drawn from are not; those
        # of nuclei that a person set may have waited
        annotation.segmented = bool(state.labels.any())
        annotation.unsure = annotation.segmented or bool(state.prompts.placed.any())
        for name, value in _read_work(restored.info.get(f"work-{number}")).items():
            setattr(annotation, name, value)
        # of a start-over that was undone the work before it is shown, until redo
        twin = plane is not None and state.is_empty and session.find(plane) is not None
        session.restore(annotation, shown=number in shown and not twin)
    _choose_model_of(session, restored)
    # what was opened while the session was read
    for layer in [x for x in session.viewer.layers if x not in read.looked_at]:
        know_again(session, layer)
    if journal.read_only_reason is not None:
        session.told.emit(
            f"{journal.read_only_reason} Save it under another name to keep changes."
        )
    return list(session.annotations)


def _model_problems(restored: Restored) -> list[str]:
    """Say what is wrong with the model that drew the labels, if anything is."""
    settings = _last_settings(restored.shown)
    if settings is None:
        return []
    try:
        check_choice(settings.model, settings.adapter)
    except NapariSacError as error:
        return [
            f"{error} The nuclei were drawn with it: until it is here they are not "
            "drawn again as they are corrected, and Segment draws all of them anew."
        ]
    return []


def _choose_model_of(session: AnnotationSession, restored: Restored) -> None:
    """Choose the model that drew the labels: to segment again must not change it."""
    settings = _last_settings(restored.shown)
    if settings is not None:
        # what is wrong with it was told
        with suppress(NapariSacError):
            session.choose_model(settings.model, settings.adapter)


def _last_settings(states: Mapping[int, AnnotationState]) -> Settings | None:
    """Return the settings of the last image that a model was chosen for."""
    for state in reversed(list(states.values())):
        if state.settings.model_key is not None or len(state.prompts):
            return state.settings
    return None


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
    return values.astype(np.uint32, order="C")


def show_imported(
    session: AnnotationSession,
    plane: ImagePlane,
    read: ReadLabels,
    title: str = "import labels",
    classes: Mapping[int, ObjectClass] | None = None,
) -> Annotation:
    """Make labels that were read the annotation of a plane.

    The pixels stay as they are given until somebody changes the nucleus's prompts.
    What was annotated here before is replaced, which undo takes back.
    """
    annotation = session.about(plane)
    waited = session.live.take_back(annotation) is not None
    state, fresh = annotation.state, read.fresh
    settings = state.settings if len(state.prompts) else session.fresh_settings()
    pixels = fresh.pixels_in(annotation)
    as_found = pixels is fresh.pixels
    after = AnnotationState(
        read.prompts,
        Prompts.empty(),
        fresh.labels if as_found else state.labels,
        frozenset(read.prompts.object_id.tolist()),
        # nobody has looked at what is there now
        (),
        replace(
            settings,
            diameter=read.diameter,
            # labels that are numbers of nuclei are no mask of them all
            decode=replace(settings.decode, mode="instance"),
        ),
        classes or {},
    )
    layer = fresh.layer if as_found else None
    step = _import(session, annotation, title, after, pixels, layer=layer)
    if waited:
        annotation.drew_others.add(step)
    if annotation.segmented:
        # proposals that come beside them are not drawn
        annotation.segmented, annotation.segmented_by[step] = False, False
    return annotation


def _import(
    session: AnnotationSession,
    annotation: Annotation,
    title: str,
    after: AnnotationState,
    pixels: PixelChange | None = None,
    edit: Edit | None = None,
    layer: Labels | None = None,
) -> int:
    """Record what came from a file, show all layers it needs; return the step."""
    if annotation.points is None:
        session.drawing.show_points(annotation)
    gone = annotation.masks.keys() - set(after.prompts.object_id.tolist())
    masks = dict.fromkeys(gone | (after.painted & annotation.masks.keys()))
    step = session.steps.record(
        annotation, title, after, pixels=pixels, masks=masks, edit=edit
    )
    if annotation.labels is None and annotation.state.labels.any():
        session.drawing.show_labels(annotation, layer)
    return step


def _without_rejected(outlines: Outlines) -> npt.NDArray[np.uint32]:
    """Return the areas, but for those of nuclei that were rejected."""
    rejected = np.array(outlines.state, str) == PromptState.REJECTED.value
    labels = outlines.labels
    gone = np.isin(labels, outlines.object_id[rejected].astype(np.uint32))
    return np.where(gone, np.uint32(0), labels)


def _classes_in(outlines: Outlines) -> dict[int, ObjectClass]:
    """Return the classes in a file, but for the one that stands for none."""
    from napari_sac.core.geojson import DEFAULT_CLASS

    return {k: c for k, c in outlines.classes.items() if c != DEFAULT_CLASS}


def _renumbered(outlines: Outlines, ids: Mapping[int, int]) -> Outlines:
    """Return the outlines with the ids that nuclei got here, by those in the file."""
    return replace(
        outlines,
        object_id=np.array(
            [ids.get(k, k) for k in outlines.object_id.tolist()], np.int64
        ),
        classes={ids.get(k, k): c for k, c in outlines.classes.items()},
    )


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
    new: dict[int, tuple[float, str]] = {}
    vouched = set()
    for object_id, its_score, its_state in values:
        if object_id not in known:
            new[object_id] = its_score, its_state
        elif its_state not in (PromptState.AUTO.value, PromptState.REJECTED.value):
            vouched.add(object_id)
    # one walk: to look for the rows of each among tens of thousands takes seconds
    for row, object_id in enumerate(after.object_id.tolist()):
        if object_id in new:
            score[row], state[row] = new[object_id]
    return edits.vouch_for(replace(after, score=score, state=state), vouched)


def _find_twin(
    read: ReadSession, number: int, loaded: Mapping[int, ImagePlane]
) -> ImagePlane | None:
    """Return the plane that was loaded for the same pixels of the same image."""
    reference, pixels = read.restored.images[number], read.pixels.get(number)
    for other, plane in loaded.items():
        same = read.restored.images[other].is_plane_of(reference)
        if same and pixels is not None and np.array_equal(plane.data, pixels):
            return plane
    return None


def _load_plane(
    session: AnnotationSession, read: ReadSession, number: int, view: dict[str, Any]
) -> ImagePlane | None:
    """Add the image as the models read it; None if it is not there."""
    reference = read.restored.images[number]
    pixels = read.pixels.get(number)
    if pixels is None and number in read.planes:
        # it was open, and was closed while the session was read
        try:
            pixels, _ = read.journal.find_image(number, reference)
        except SessionError as error:
            session.told.emit(f"{error} {_STILL_CORRECTED}")
    if pixels is None:
        return None
    layer = session.viewer.add_image(
        pixels,
        rgb=True,
        name=reference.name,
        metadata={
            IMAGE_FILE: reference.path,
            IMAGE_ORIGIN: reference.path or f"{read.journal.folder}: {reference.name}",
            AS_READ: True,
        },
        **_placed(view),
    )
    return ImagePlane(layer, pixels, ())


def _read_work(info: Any) -> dict[str, Any]:
    """Return what a session says sensibly of the work on an image, and its look."""
    kinds = {
        "clicks": int,
        "worked": int | float,
        "outlined": bool,
        "segmented": bool,
        "deleted": int,
    }
    names = {"clicks": "steps", "deleted": "deleted_at"}
    work = info if isinstance(info, dict) else {}
    read = {
        names.get(key, key): work[key]
        for key, kind in kinds.items()
        if isinstance(work.get(key), kind)
    }
    # JSON has numbers as keys in words only
    steps = work.get("segmented_by")
    read["segmented_by"] = {
        int(step): segmented
        for step, segmented in (steps if isinstance(steps, dict) else {}).items()
        if re.fullmatch("[0-9]{1,18}", step) and isinstance(segmented, bool)
    }
    return read


_UNITS = (
    "pixel",
    "nanometer",
    "micrometer",
    "millimeter",
    "centimeter",
    "meter",
)
"""Of an image's pixels, as napari names them."""


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
    units = view.get("units")
    if (
        isinstance(units, list)
        and len(units) == 2
        and all(unit in _UNITS for unit in units)
    ):
        placed["units"] = tuple(units)
    return placed
