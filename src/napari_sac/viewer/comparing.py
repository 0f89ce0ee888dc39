"""Two choices of model and adapter on one image, side by side.

Both segment the same part of the plane that is shown, each into a Labels layer of its
own. What was annotated there tells which is nearer to it, and is not touched.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_sac.core.config import ProposalConfig
from napari_sac.core.errors import ImageFormatError
from napari_sac.core.training.lineage import Seen, has_seen
from napari_sac.viewer.finetuning import copy_annotation, count_reviewed, group_of
from napari_sac.viewer.inference import LoadedModel, ModelChoice, load
from napari_sac.viewer.layers import plane_name
from napari_sac.viewer.planes import current_plane, is_open, plane_geometry
from napari_sac.viewer.view import in_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from napari.components import ViewerModel

    from napari_sac.core.config import DecodeConfig, Stain
    from napari_sac.core.evaluation.metrics import ImageScores
    from napari_sac.core.models.adapter import AdapterInfo
    from napari_sac.core.progress import Progress
    from napari_sac.core.training.reviewed_image import ReviewedImage
    from napari_sac.core.types import FloatArray
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.finetuning import AnnotationCopy
    from napari_sac.viewer.planes import ImagePlane
    from napari_sac.viewer.session import AnnotationSession

LARGEST_SIDE = 2048
"""Of a larger plane a part is compared: two segmentations should not take minutes."""

_COMPARISON_KEY = "napari-sac comparison"
"""In the metadata of a layer: its own id, which a copy of it by the user has too."""
_CONTOUR = 2
_COLOURS = ("#E69F00", "#56B4E9")
"""One for each candidate: outlines are seen on top of labels of all colours."""


@dataclass(frozen=True)
class Candidate:
    """One of the two that are compared.

    Parameters
    ----------
    title : str
        Names its layer.
    model : str
    adapter : AdapterInfo or None
    """

    title: str
    model: str
    adapter: AdapterInfo | None = None


@dataclass(frozen=True, eq=False)
class CompareRequest:
    """What :func:`compare_on_image` needs.

    Parameters
    ----------
    plane : ImagePlane
    area : (slice, slice)
        The rows and columns that are segmented.
    part : str
        What they are, in words; empty for the whole plane.
    candidates : tuple of two Candidate
    device : {"auto", "cpu", "cuda", "mps"}
    loaded : LoadedModel or None
        The model used last.
    decode : DecodeConfig
    threshold : float
        Proposals with a lower score are left out.
    diameter : float or None
        Typical nucleus diameter in pixels, or None to let each estimate it.
    reviewed : AnnotationCopy or None
        What a person decided about the plane.
    drawn_by : tuple of (str, str or None), or None
        Model and adapter that have drawn the masks of ``reviewed``.
    """

    plane: ImagePlane
    area: tuple[slice, slice]
    part: str
    candidates: tuple[Candidate, Candidate]
    device: str
    loaded: LoadedModel | None
    decode: DecodeConfig
    threshold: float
    diameter: float | None = None
    reviewed: AnnotationCopy | None = None
    drawn_by: tuple[str, str | None] | None = None


@dataclass(frozen=True, eq=False)
class Side:
    """What one of the two came to.

    Parameters
    ----------
    candidate : Candidate
    labels : (h, w) uint32
        Of the area.
    nuclei : int
    scores : ImageScores or None
        Against what was reviewed in the area; None if nothing was.
    seen : Seen
        Whether its adapter has learned from that.
    drew : bool
        Whether it has drawn the masks that were reviewed.
    """

    candidate: Candidate
    labels: npt.NDArray[np.uint32]
    nuclei: int
    scores: ImageScores | None = None
    seen: Seen = Seen.NO
    drew: bool = False


@dataclass(frozen=True, eq=False)
class SideBySide:
    """What :func:`compare_on_image` found.

    Parameters
    ----------
    request : CompareRequest
    sides : tuple of two Side
    reviewed : int
        Nuclei that the scores are taken from.
    """

    request: CompareRequest
    sides: tuple[Side, Side]
    reviewed: int


def plan_comparison(
    session: AnnotationSession, first: Candidate, second: Candidate
) -> CompareRequest:
    """Return what to compare in the image that is looked at; touches no pixels.

    Raises
    ------
    ImageFormatError
        If there is no image.
    """
    plane = shown_plane(session)
    if plane is None:
        raise ImageFormatError(
            "There is no image to compare on. Open one and select it in the layer list."
        )
    annotation = session.find(plane)
    request = CompareRequest(
        plane,
        *_area(session.viewer, plane, annotation),
        (first, second),
        session.device,
        session.loaded,
        session.decode_config,
        ProposalConfig().score_threshold,
    )
    if annotation is None:
        return request
    session.sync(annotation)
    counts = count_reviewed(annotation)
    return replace(
        request,
        threshold=annotation.threshold,
        diameter=annotation.diameter,
        reviewed=copy_annotation(annotation) if counts.problem is None else None,
        drawn_by=_drawer(annotation),
    )


def shown_plane(session: AnnotationSession) -> ImagePlane | None:
    """Return the plane of the image that is looked at, in its channels or stain.

    That is the selected layer's, or what was annotated last, or the topmost image. Its
    channels are those chosen in the dock, or else those of what was annotated last.
    """
    viewer = session.viewer
    active = viewer.layers.selection.active
    owner = None if active is None else session.owner(active)
    images = [layer for layer in viewer.layers if isinstance(layer, Image)]
    if isinstance(active, Image):
        layer = active
    elif owner is not None and owner.plane is not None:
        return owner.plane
    elif session.annotations and session.annotations[-1].plane is not None:
        layer = session.annotations[-1].plane.layer
    elif images:
        layer = images[-1]
    else:
        return None
    mine = (a.plane for a in reversed(session.annotations) if a.plane is not None)
    annotated = ((p.channels, p.stain) for p in mine if p.layer is layer)
    as_shown: tuple[tuple[int, ...], Stain | None] = ((), None)
    chosen = session.seen_as.get(layer) or next(filter(any, annotated), as_shown)
    return current_plane(layer, viewer.dims.point, *chosen)


def compare_on_image(request: CompareRequest, progress: Progress) -> SideBySide:
    """Segment one area with both candidates, and measure them by what was reviewed.

    Runs in a worker's thread.

    Raises
    ------
    NapariSacError
        Of the image, the models, the device; ``Cancelled`` from ``progress``.
    """
    progress("reading the image", 0, 0)
    image = np.ascontiguousarray(request.plane.read()[request.area])
    truth = _reviewed_in(request, image)
    first, second = (
        _segment_side(request, candidate, image, truth, progress)
        for candidate in request.candidates
    )
    return SideBySide(request, (first, second), 0 if truth is None else truth.count)


def _segment_side(
    request: CompareRequest,
    candidate: Candidate,
    image: npt.NDArray[np.uint8],
    truth: ReviewedImage | None,
    progress: Progress,
) -> Side:
    from napari_sac.core.inference.segment import segment_image

    def tell(stage: str, done: int, total: int) -> None:
        progress(f"{candidate.title}: {stage}", done, total)

    adapter = candidate.adapter
    choice = ModelChoice(
        candidate.model, None if adapter is None else adapter.path, request.device
    )
    model = load(choice, request.loaded, tell).model
    labels = segment_image(
        image,
        model,
        ProposalConfig(score_threshold=request.threshold),
        replace(request.decode, mode="instance"),
        diameter=request.diameter,
        progress=tell,
    ).labels
    nuclei = int(np.count_nonzero(np.unique(labels)))
    if truth is None:
        return Side(candidate, labels, nuclei)
    from napari_sac.core.evaluation.metrics import evaluate_labels
    from napari_sac.core.training.comparison import limit_to_known

    tell("measuring", 0, 0)
    known = limit_to_known(labels.astype(np.int64), truth)
    return Side(
        candidate,
        labels,
        nuclei,
        evaluate_labels(known, truth.labels),
        Seen.NO if adapter is None else has_seen(adapter, truth),
        _has_drawn(candidate, request.drawn_by),
    )


def _reviewed_in(
    request: CompareRequest, image: npt.NDArray[np.uint8]
) -> ReviewedImage | None:
    """Return what was reviewed in the area; None if there is no nucleus among it."""
    copied = request.reviewed
    if copied is None:
        return None
    from napari_sac.core.training.reviewed_image import review_image

    labels = np.ascontiguousarray(copied.labels[request.area])
    is_whole = labels.shape == copied.labels.shape
    if labels.shape != image.shape[:2]:
        return None
    corner = np.array([s.start for s in request.area], np.float64)
    one = review_image(
        copied.name,
        image,
        labels.astype(np.int64),
        prompts=replace(copied.prompts, yx=copied.prompts.yx - corner),
        regions=[polygon - corner for polygon in copied.regions],
        # by it an image is known that was learned from by another channel or stain
        group=group_of(copied.plane.layer) if is_whole else "",
    )
    return one if one.count else None


def _drawer(annotation: Annotation) -> tuple[str, str | None] | None:
    """Return what has drawn masks there; None where all are painted or imported."""
    settings = annotation.state.settings
    drawn = set(annotation.prompts.object_id.tolist()) - annotation.painted
    if settings.model_key is None or not drawn:
        return None
    return settings.model, settings.adapter


def _has_drawn(candidate: Candidate, drawn_by: tuple[str, str | None] | None) -> bool:
    if drawn_by is None or candidate.model != drawn_by[0]:
        return False
    adapter, drawer = candidate.adapter, drawn_by[1]
    if adapter is None or drawer is None:
        return adapter is None and drawer is None
    return drawer == adapter.name or Path(drawer).resolve() == adapter.path.resolve()


def _area(
    viewer: ViewerModel, plane: ImagePlane, annotation: Annotation | None
) -> tuple[tuple[slice, slice], str]:
    """Return the rows and columns to compare on, and what they are in words."""
    height, width = plane.shape
    if max(height, width) <= LARGEST_SIDE:
        return (slice(0, height), slice(0, width)), ""
    reviewed = None if annotation is None else _reviewed_corners(annotation)
    if reviewed is not None and (np.ptp(reviewed, axis=0) <= LARGEST_SIDE).all():
        return _box(reviewed, plane.shape), "the reviewed part of the image"
    return _box(_visible_corners(viewer, plane), plane.shape), "the part that is shown"


def _reviewed_corners(annotation: Annotation) -> FloatArray | None:
    """Return two corners (2, 2) around all that was reviewed; None if nothing was."""
    prompts = annotation.prompts
    # imported late: it takes long, which opening a dock need not
    from napari_sac.core.inference.instances import decided_objects

    decided = decided_objects(prompts)
    points = prompts.yx[np.isin(prompts.object_id, list(decided))]
    everything = np.concatenate([points, *annotation.reviewed])
    if not len(everything):
        return None
    margin = 1.5 * annotation.diameter
    return np.array([everything.min(0) - margin, everything.max(0) + margin])


def _visible_corners(viewer: ViewerModel, plane: ImagePlane) -> FloatArray:
    """Return two corners (2, 2) of a square that the canvas shows, in pixels."""
    camera, layer = viewer.scene.camera, plane.layer
    half = max(viewer.canvas.size) / camera.zoom / 2
    centre = in_order(viewer, camera.center[-2:])
    point = np.zeros(layer.ndim)
    corners = []
    for sign in (-1, 1):
        point[-2:] = centre + sign * half
        corners.append(np.asarray(layer.world_to_data(point))[-2:])
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    side = np.minimum(np.ceil(high - low), LARGEST_SIDE)
    corner = np.rint((low + high - side) / 2)
    return np.array([corner, corner + side])


def _box(corners: FloatArray, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns between two corners, inside the image."""
    slices = []
    for low, high, length in zip(*corners, shape, strict=True):
        # who looks beside the image gets its nearest part
        start = int(np.clip(np.floor(low), 0, length - 1))
        stop = int(np.clip(np.ceil(high), start + 1, length))
        slices.append(slice(start, stop))
    return slices[0], slices[1]


class ComparisonLayers:
    """The two layers of the last comparison in a viewer, one of them visible.

    Parameters
    ----------
    viewer : ViewerModel
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer

    @property
    def layers(self) -> list[Labels]:
        """Those that are there: the user may have deleted some."""
        layers = self._viewer.layers
        return [x for x in layers if x.metadata.get(_COMPARISON_KEY) == x.unique_id]

    def show(self, found: SideBySide) -> None:
        """Show the outlines that both have drawn, in place of those of the last time.

        Raises
        ------
        ImageFormatError
            If the image was removed or got other pixels meanwhile.
        """
        plane = found.request.plane
        if not is_open(self._viewer, plane):
            raise ImageFormatError(
                "The image was removed or got other pixels while it was compared on, "
                "so the result was dropped. Other layers were kept."
            )
        self.remove()
        active = self._viewer.layers.selection.active
        corner = [s.start for s in found.request.area]
        geometry = shifted_geometry(plane_geometry(plane.layer), corner)
        for side, colour in zip(found.sides, _COLOURS, strict=True):
            name = f"{side.candidate.title} [{plane_name(plane)}]"
            outlines = DirectLabelColormap(
                color_dict={None: colour, 0: "transparent"}, background_value=0
            )
            layer = Labels(side.labels.copy(), name=name, colormap=outlines, **geometry)
            layer.metadata[_COMPARISON_KEY] = layer.unique_id
            layer.contour, layer.opacity, layer.editable = _CONTOUR, 1, False
            self._viewer.add_layer(layer)
        self._show_only(0)
        self._viewer.layers.selection.active = active

    def flip(self) -> str:
        """Show the other one; return its name, or an empty text if it is gone."""
        layers = self.layers
        if len(layers) < 2:
            return ""
        return self._show_only(0 if layers[1].visible else 1)

    def shown(self) -> str:
        """Return the name of the one that is visible; empty for none."""
        return next((str(x.name) for x in self.layers if x.visible), "")

    def remove(self) -> None:
        """Take the layers away."""
        for layer in self.layers:
            self._viewer.layers.remove(layer)

    def _show_only(self, number: int) -> str:
        layers = self.layers
        for i, layer in enumerate(layers):
            layer.visible = i == number
        return str(layers[number].name)


def shifted_geometry(geometry: dict[str, Any], corner: Sequence[int]) -> dict[str, Any]:
    """Return the arguments that put a part of a plane where it lies.

    Parameters
    ----------
    geometry : dict
        As :func:`~napari_sac.viewer.planes.plane_geometry` returns them.
    corner : (int, int)
        Row and column of the part's first pixel.
    """
    whole = Labels(np.zeros((1, 1), np.uint8), **geometry)
    moved = np.subtract(whole.data_to_world(corner), whole.data_to_world((0, 0)))
    affine = np.asarray(geometry["affine"], float)[:2, :2]
    translate = np.asarray(geometry["translate"]) + np.linalg.solve(affine, moved)
    return geometry | {"translate": tuple(translate.tolist())}
