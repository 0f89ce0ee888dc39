"""Turn what a person reviewed into the images that training draws crops of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from skimage.draw import disk

from napari_sac.core.config import ProposalConfig
from napari_sac.core.inference.proposals import find_proposals
from napari_sac.core.progress import ignore_progress
from napari_sac.core.training.reviewed_image import RING, pooled_diameter
from napari_sac.core.training.sampling import (
    MarkedPoints,
    PointKind,
    TrainingImage,
    prepare_image,
)
from napari_sac.core.training.targets import typical_diameter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sac.core.models.registry import Model
    from napari_sac.core.progress import Progress
    from napari_sac.core.training.reviewed_image import ReviewedImage

_OWN_DIAMETER_FROM = 10
_SHOWN_BY_SOME = 0.5
"""Score of the proposals to learn from: lower than the default at which they are shown,
for whoever lowers it wants the false ones to be told apart too."""


def prepare(
    images: Sequence[ReviewedImage], nucleus_diameter: float
) -> list[TrainingImage]:
    """Return the images as training draws crops of them.

    Each is resampled by the size of its own nuclei, or by that of all nuclei if it has
    few.

    Parameters
    ----------
    images : sequence of ReviewedImage
    nucleus_diameter : float
        In pixels of the result.
    """
    pooled = pooled_diameter(images)
    result = []
    for one in images:
        diameter = own_diameter(one) or pooled
        hard = np.zeros(one.labels.shape, bool)
        for centre in one.rejected:
            radius = max(2.0, RING * (diameter or 0.0))
            hard[disk(tuple(centre), radius, shape=hard.shape)] = True
        result.append(
            prepare_image(
                one.image,
                one.labels,
                nucleus_diameter,
                one.known,
                diameter=diameter,
                hard=hard & (one.labels == 0) & one.known,
                points=_marked(one),
            )
        )
    return result


def own_diameter(one: ReviewedImage) -> float | None:
    """Return the typical diameter of an image's nuclei; None if it has few."""
    if one.count < _OWN_DIAMETER_FROM:
        return None
    return typical_diameter(one.labels)


def mark_proposals(
    image: TrainingImage, model: Model, progress: Progress = ignore_progress
) -> TrainingImage:
    """Return the image with the model's own proposals on it, for prompts to lie on.

    Parameters
    ----------
    image : TrainingImage
        At the scale that the model works at.
    model : Model
    progress : callable, optional
    """
    pixels = np.ascontiguousarray(image.image.permute(1, 2, 0).numpy())
    found = find_proposals(
        pixels,
        model,
        ProposalConfig(),
        diameter=model.spec.nucleus_diameter,
        progress=progress,
    ).above(_SHOWN_BY_SOME)
    zeros = np.zeros(len(found), np.int64)
    proposals = MarkedPoints(found.yx, zeros + PointKind.PROPOSAL, zeros)
    points = MarkedPoints.concatenate([image.points, proposals])
    return replace(
        image, points=points.inside((image.labels.shape[0], image.labels.shape[1]))
    )


def _marked(one: ReviewedImage) -> MarkedPoints:
    kinds = [PointKind.REJECTED] * len(one.rejected)
    kinds += [PointKind.NEGATIVE] * len(one.negatives)
    return MarkedPoints(
        np.concatenate([one.rejected, one.negatives[:, :2]]),
        np.array(kinds, np.int64),
        np.concatenate([np.zeros(len(one.rejected)), one.negatives[:, 2]]).astype(
            np.int64
        ),
    )
