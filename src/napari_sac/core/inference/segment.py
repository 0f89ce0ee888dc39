"""The whole way from an image to labels, in one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_sac.core.config import DecodeConfig, ProposalConfig
from napari_sac.core.inference.embedding import embed_image
from napari_sac.core.inference.generator_maps import ForegroundLogits, as_logits
from napari_sac.core.inference.imports import check_inside, prompts_from_points
from napari_sac.core.inference.instances import assemble_labels
from napari_sac.core.inference.predictor import decode_prompts, decode_semantic
from napari_sac.core.inference.proposals import estimate_diameter, find_proposals
from napari_sac.core.inference.resampling import scale_to
from napari_sac.core.progress import Progress, Stopwatch, ignore_progress

if TYPE_CHECKING:
    from napari_sac.core.models.registry import Model
    from napari_sac.core.types import ObjectMask, Prompts


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What :func:`segment_image` or :func:`segment_points` found.

    Parameters
    ----------
    labels : (H, W) uint32
        0 background; in instance mode the ``object_id`` of each nucleus, in semantic
        mode 1.
    prompts : Prompts
        The prompts that were decoded.
    masks : tuple of ObjectMask
        Each nucleus's mask before they competed for pixels; empty in semantic mode.
    diameter : float
        Typical nucleus diameter in pixels of the image, found or given.
    seconds : dict of str to float
        Time spent in ``proposals``, ``embedding``, ``decoding`` and ``instances``.
    """

    labels: npt.NDArray[np.uint32]
    prompts: Prompts
    masks: tuple[ObjectMask, ...]
    diameter: float
    seconds: dict[str, float]


def segment_image(
    image: npt.NDArray[np.uint8],
    model: Model,
    proposal_config: ProposalConfig | None = None,
    decode_config: DecodeConfig | None = None,
    *,
    diameter: float | None = None,
    progress: Progress = ignore_progress,
) -> Segmentation:
    """Return the nuclei of an image.

    Parameters
    ----------
    image : (H, W, 3) uint8
        As :func:`~napari_sac.core.io.normalise_image` returns it.
    model : Model
    proposal_config, decode_config : optional
        Defaults if not given.
    diameter : float, optional
        Typical nucleus diameter in pixels; estimated from the image if not given.
    progress : Progress, optional

    Raises
    ------
    ValueError
        If the image is not (H, W, 3) uint8, or the diameter no number above 0.
    """
    proposing = proposal_config or ProposalConfig()
    decoding = decode_config or DecodeConfig()
    watch = Stopwatch()
    proposals = find_proposals(
        image, model, proposing, diameter=diameter, progress=progress
    )
    prompts = proposals.above(proposing.score_threshold)
    watch.lap("proposals")
    return _decode(
        image,
        prompts,
        proposals.diameter,
        model,
        decoding,
        watch,
        progress,
        as_logits(proposals.maps),
    )


def segment_points(
    image: npt.NDArray[np.uint8],
    yx: npt.ArrayLike,
    model: Model,
    decode_config: DecodeConfig | None = None,
    *,
    diameter: float | None = None,
    progress: Progress = ignore_progress,
) -> Segmentation:
    """Return the nuclei at the points that a person or another tool set.

    Parameters
    ----------
    image : (H, W, 3) uint8
        As :func:`~napari_sac.core.io.normalise_image` returns it.
    yx : (N, 2) array
        One point in each nucleus, in pixels of the image. The prompts of the result are
        in their order, and as if a person had added them: each gets a mask, whatever
        the model thinks of it.
    model : Model
    decode_config : DecodeConfig, optional
    diameter : float, optional
        Typical nucleus diameter in pixels; estimated from the image if not given.
    progress : Progress, optional

    Raises
    ------
    LabelFormatError
        If a point lies outside of the image.
    ValueError
        As :func:`segment_image`.
    """
    prompts = prompts_from_points(yx)
    check_inside(prompts.yx, image.shape[:2])
    watch = Stopwatch()
    if diameter is None:
        diameter = estimate_diameter(image, model, progress=progress)
    watch.lap("proposals")
    decoding = decode_config or DecodeConfig()
    return _decode(image, prompts, diameter, model, decoding, watch, progress)


def _decode(
    image: npt.NDArray[np.uint8],
    prompts: Prompts,
    diameter: float,
    model: Model,
    decoding: DecodeConfig,
    watch: Stopwatch,
    progress: Progress,
    foreground: ForegroundLogits | None = None,
) -> Segmentation:
    """Return the masks of prompts; ``watch`` measures how long its stages take."""
    shape = (image.shape[0], image.shape[1])
    if len(prompts) == 0:
        seconds = dict.fromkeys(("embedding", "decoding", "instances"), 0.0)
        labels = np.zeros(shape, np.uint32)
        return Segmentation(labels, prompts, (), diameter, watch.seconds | seconds)
    scale = embedding_scale(model, diameter)
    embedding = embed_image(
        image, model, scale=scale, foreground=foreground, progress=progress
    )
    watch.lap("embedding")
    masks: list[ObjectMask] = []
    if decoding.mode == "semantic":
        logits = decode_semantic(embedding, prompts, model, decoding, progress=progress)
        labels = (logits > 0).astype(np.uint32)
        watch.lap("decoding")
    else:
        masks = decode_prompts(embedding, prompts, model, decoding, progress=progress)
        watch.lap("decoding")
        labels = assemble_labels(masks, shape, decoding, prompts=prompts)
    watch.lap("instances")
    return Segmentation(labels, prompts, tuple(masks), diameter, watch.seconds)


def embedding_scale(model: Model, diameter: float) -> float:
    """Return the scale at which nuclei have the size that the model knows best.

    Parameters
    ----------
    model : Model
    diameter : float
        Typical nucleus diameter in pixels of the image.
    """
    return scale_to(model.spec.nucleus_diameter, diameter)
