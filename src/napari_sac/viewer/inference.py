"""What the buttons start: from a plane to proposals, and from prompts to labels.

These functions run in a worker's thread and touch nothing that a viewer shows: they
take all they need in a request, and return what the session then puts into its layers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_sac.core.progress import Stopwatch
from napari_sac.viewer.layers import (
    build_points,
    load_tools,
    plane_name,
    prompts_name,
)
from napari_sac.viewer.planes import plane_geometry
from napari_sac.viewer.prompts import count_nuclei
from napari_sac.viewer.relabelling import FreshLabels, KnownLabels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt
    from napari.layers import Points

    from napari_sac.core.config import DecodeConfig, Mode, ProposalConfig
    from napari_sac.core.inference.embedding import Embedding
    from napari_sac.core.inference.generator_maps import ForegroundLogits
    from napari_sac.core.inference.review import DoubtTable
    from napari_sac.core.models.registry import Model
    from napari_sac.core.progress import Progress
    from napari_sac.core.types import ObjectMask, Prompts
    from napari_sac.viewer.planes import ImagePlane


@dataclass(frozen=True)
class ModelChoice:
    """Which model to use, and where.

    Parameters
    ----------
    name : str
        A model of the registry.
    adapter : Path or None
        Folder of an adapter.
    device : {"auto", "cpu", "cuda", "mps"}
    """

    name: str
    adapter: Path | None = None
    device: str = "auto"

    def load(self, progress: Progress) -> Model:
        """Return the model; imports torch. Errors are those of ``load_model``."""
        from napari_sac.core.models.registry import load_model

        return load_model(
            self.name, adapter=self.adapter, device=self.device, progress=progress
        )


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model in memory, and the choice it was loaded for."""

    choice: ModelChoice
    model: Model


@dataclass(frozen=True, eq=False)
class FindRequest:
    """What :func:`find_nuclei` needs.

    Parameters
    ----------
    plane : ImagePlane
    choice : ModelChoice
    loaded : LoadedModel or None
        The model used last.
    config : ProposalConfig
    diameter : float or None
        Typical nucleus diameter in pixels, or None to estimate it.
    """

    plane: ImagePlane
    choice: ModelChoice
    loaded: LoadedModel | None
    config: ProposalConfig
    diameter: float | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """What :func:`find_nuclei` found.

    Parameters
    ----------
    prompts : Prompts
        All proposals, whatever their score.
    diameter : float
        Typical nucleus diameter in pixels, found or given.
    loaded : LoadedModel
    points : Points
        A layer with the proposals of sufficient score, for an image that has none.
    image : (H, W, 3) uint8
        The pixels of the plane.
    foreground : ForegroundLogits
        Where the generator sees nuclei; segmenting needs it again.
    seconds : dict of str to float
    """

    prompts: Prompts
    diameter: float
    loaded: LoadedModel
    points: Points
    image: npt.NDArray[np.uint8]
    foreground: ForegroundLogits
    seconds: dict[str, float]


@dataclass(frozen=True, eq=False)
class SegmentRequest:
    """What :func:`segment` needs.

    Parameters
    ----------
    plane : ImagePlane
    prompts : Prompts
    choice : ModelChoice
    loaded : LoadedModel or None
    config : DecodeConfig
    diameter : float
    embedding : Embedding or None
        The one used last; used again if it fits.
    masks : mapping of int to ObjectMask
        The masks of the last time; those of unchanged nuclei are used again.
    known : KnownLabels
        The labels there are; needed for what was painted.
    painted : frozenset of int
        Nuclei whose pixels in these labels stay as they are.
    drawn_as : {"instance", "semantic"}
        How they were made: of one mask of all nuclei nothing can be kept.
    foreground : ForegroundLogits or None
        Of :func:`find_nuclei`; used again if it fits.
    """

    plane: ImagePlane
    prompts: Prompts
    choice: ModelChoice
    loaded: LoadedModel | None
    config: DecodeConfig
    diameter: float
    embedding: Embedding | None = None
    masks: Mapping[int, ObjectMask] = field(default_factory=dict)
    known: KnownLabels = field(default_factory=KnownLabels)
    painted: frozenset[int] = frozenset()
    drawn_as: Mode = "instance"
    foreground: ForegroundLogits | None = None


@dataclass(frozen=True, eq=False)
class Segmented:
    """What :func:`segment` made.

    Parameters
    ----------
    fresh : FreshLabels
        0 background, otherwise the ``object_id``; in semantic mode 1.
    request : SegmentRequest
        What they were made from; much may have happened since.
    masks : dict of int to ObjectMask
    embedding : Embedding or None
        None if there was nothing to segment.
    image : (H, W, 3) uint8
        The pixels of the plane.
    loaded : LoadedModel
    nuclei, recomputed : int
        How many nuclei have a label, and how many were decoded for it.
    seconds : dict of str to float
    doubts : DoubtTable or None
        What a review begins with: of ten thousand nuclei it takes a second, which is
        better spent here. None in semantic mode.
    """

    fresh: FreshLabels
    request: SegmentRequest
    masks: dict[int, ObjectMask]
    embedding: Embedding | None
    image: npt.NDArray[np.uint8]
    loaded: LoadedModel
    nuclei: int
    recomputed: int
    seconds: dict[str, float]
    doubts: DoubtTable | None = None


def find_nuclei(request: FindRequest, progress: Progress) -> Found:
    """Return a proposal for every nucleus that the prompt generator sees.

    Raises
    ------
    NapariSacError
        Of the image, the model, the device; ``Cancelled`` from ``progress``.
    """
    watch = Stopwatch()
    loaded = load(request.choice, request.loaded, progress)
    watch.lap("model")
    from napari_sac.core.inference.generator_maps import as_logits
    from napari_sac.core.inference.proposals import find_proposals

    image = _read(request.plane, progress)
    watch.lap("image")
    proposals = find_proposals(
        image,
        loaded.model,
        request.config,
        diameter=request.diameter,
        progress=progress,
    )
    visible = proposals.above(request.config.score_threshold)
    name, geometry = plane_name(request.plane), plane_geometry(request.plane.layer)
    points = build_points(visible, proposals.diameter, prompts_name(name), geometry)
    load_tools()
    foreground = as_logits(proposals.maps)
    watch.lap("proposals")
    return Found(
        proposals.prompts,
        proposals.diameter,
        loaded,
        points,
        image,
        foreground,
        watch.seconds,
    )


def measure_nuclei(
    plane: ImagePlane,
    choice: ModelChoice,
    loaded: LoadedModel | None,
    progress: Progress,
) -> tuple[float, LoadedModel]:
    """Return the typical diameter of a plane's nuclei in pixels, and what measured it.

    Raises
    ------
    NapariSacError
        As :func:`find_nuclei`.
    """
    loaded = load(choice, loaded, progress)
    from napari_sac.core.inference.proposals import estimate_diameter

    image = _read(plane, progress)
    return estimate_diameter(image, loaded.model, progress=progress), loaded


def segment(request: SegmentRequest, progress: Progress) -> Segmented:
    """Return the labels of the prompts; only what changed is computed again.

    Raises
    ------
    NapariSacError
        As :func:`find_nuclei`.
    """
    watch = Stopwatch()
    loaded = load(request.choice, request.loaded, progress)
    watch.lap("model")
    image = _read(request.plane, progress)
    watch.lap("image")
    embedding: Embedding | None = None
    masks: list[ObjectMask] = []
    labels = np.zeros(request.plane.shape, np.uint32)
    if count_nuclei(request.prompts):
        embedding = _embed(image, loaded.model, request, progress)
        watch.lap("embedding")
        if request.config.mode == "semantic":
            labels = _decode_semantic(embedding, loaded.model, request, progress)
        else:
            masks = _decode(embedding, loaded.model, request, progress)
        watch.lap("decoding")
    progress("drawing the labels", 0, 0)
    doubts = None
    if request.config.mode == "instance":
        labels = _assemble(masks, request)
        doubts = _doubt(masks, labels, request)
    nuclei = int(np.count_nonzero(np.unique(labels)))
    fresh = FreshLabels.after(request.known, labels, request.plane)
    watch.lap("instances")
    return Segmented(
        fresh=fresh,
        request=request,
        masks={m.object_id: m for m in masks},
        embedding=embedding,
        image=image,
        loaded=loaded,
        nuclei=nuclei,
        recomputed=sum(request.masks.get(m.object_id) is not m for m in masks),
        seconds=watch.seconds,
        doubts=doubts,
    )


def _embed(
    image: npt.NDArray[np.uint8],
    model: Model,
    request: SegmentRequest,
    progress: Progress,
) -> Embedding:
    from napari_sac.core.inference.embedding import embed_image, embedding_key
    from napari_sac.core.inference.segment import embedding_scale

    scale = embedding_scale(model, request.diameter)
    known = request.embedding
    if known is not None and known.key == embedding_key(image, model.key, scale):
        return known
    return embed_image(
        image, model, scale=scale, foreground=request.foreground, progress=progress
    )


def _decode(
    embedding: Embedding, model: Model, request: SegmentRequest, progress: Progress
) -> list[ObjectMask]:
    from napari_sac.core.inference.predictor import decode_prompts

    return decode_prompts(
        embedding,
        request.prompts,
        model,
        request.config,
        reuse=request.masks,
        progress=progress,
    )


def _decode_semantic(
    embedding: Embedding, model: Model, request: SegmentRequest, progress: Progress
) -> npt.NDArray[np.uint32]:
    from napari_sac.core.inference.predictor import decode_semantic

    logits = decode_semantic(
        embedding, request.prompts, model, request.config, progress=progress
    )
    return (logits > 0).astype(np.uint32)


def _assemble(
    masks: list[ObjectMask], request: SegmentRequest
) -> npt.NDArray[np.uint32]:
    from napari_sac.core.inference.instances import assemble_labels
    from napari_sac.core.inference.live import reshaped

    stale = {
        m.object_id
        for m in masks
        if request.drawn_as == "semantic"
        or (m.object_id in request.masks and reshaped(request.masks[m.object_id], m))
    }
    return assemble_labels(
        masks,
        request.plane.shape,
        request.config,
        prompts=request.prompts,
        painted=request.painted,
        labels=request.known.labels,
        stale=stale,
    )


def _doubt(
    masks: list[ObjectMask], labels: npt.NDArray[np.uint32], request: SegmentRequest
) -> DoubtTable:
    from napari_sac.core.inference.review import doubt

    by_id = {m.object_id: m for m in masks}
    return doubt(by_id, request.prompts, labels, request.diameter)


def load(
    choice: ModelChoice, loaded: LoadedModel | None, progress: Progress
) -> LoadedModel:
    """Return the model of a choice: the one that is loaded, or else from its files."""
    if loaded is not None and loaded.choice == choice:
        return loaded
    progress("loading the model", 0, 0)
    return LoadedModel(choice, choice.load(progress))


def _read(plane: ImagePlane, progress: Progress) -> npt.NDArray[np.uint8]:
    progress("reading the image", 0, 0)
    return plane.read()
