"""Which nuclei a person should look at first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_sac.core.inference.instances import inside
from napari_sac.core.inference.predictor import active_prompts, first_positives
from napari_sac.core.types import ObjectMask, Prompts, PromptState

if TYPE_CHECKING:
    from collections.abc import Mapping

LEFT_OUT = "left out"
_NAMED = 0.15
"""A reason that adds less than this to the doubt is not named."""


@dataclass(frozen=True, eq=False)
class DoubtTable:
    """How doubtful each nucleus is, the most doubtful first.

    Parameters
    ----------
    object_id : (N,) int64
    doubt : (N,) float32
        In [0, 1]; falling.
    reasons : tuple of N tuples of str
        In words, the strongest first; empty for a nucleus that looks right.
    """

    object_id: npt.NDArray[np.int64]
    doubt: npt.NDArray[np.float32]
    reasons: tuple[tuple[str, ...], ...]


def doubt(
    masks: Mapping[int, ObjectMask],
    prompts: Prompts,
    labels: npt.NDArray[np.uint32],
    diameter: float,
) -> DoubtTable:
    """Return how doubtful each nucleus is that has a positive nobody rejected.

    Parameters
    ----------
    masks : mapping of int to ObjectMask
    prompts : Prompts
    labels : (H, W) uint32
        Of these masks: who got the pixels that two of them claim.
    diameter : float
        Typical nucleus diameter in pixels.

    Notes
    -----
    Each reason has a strength in [0, 1], and the doubt is as if they were independent
    chances of being wrong: ``1 - (1 - a)(1 - b)...``. Nuclei of equal doubt come in
    order of ``object_id``.
    """
    positives = first_positives(active_prompts(prompts))
    found: list[tuple[float, int, tuple[str, ...]]] = []
    for row, object_id in enumerate(positives.object_id.tolist()):
        automatic = positives.state[row] == PromptState.AUTO.value
        score = float(positives.score[row]) if automatic else 1.0
        strengths = {"uncertain proposal": 0.6 * (1 - score)}
        mask = masks.get(object_id)
        if mask is not None:
            strengths |= _doubts_of_mask(mask, labels, diameter)
        total = 1 - float(np.prod([1 - s for s in strengths.values()]))
        named = sorted(
            (name for name, s in strengths.items() if s >= _NAMED),
            key=lambda name: -strengths[name],
        )
        found.append((total, object_id, tuple(named)))
    found.sort(key=lambda entry: (-entry[0], entry[1]))
    return DoubtTable(
        np.array([entry[1] for entry in found], np.int64),
        np.array([entry[0] for entry in found], np.float32),
        tuple(entry[2] for entry in found),
    )


def _doubts_of_mask(
    mask: ObjectMask, labels: npt.NDArray[np.uint32], diameter: float
) -> dict[str, float]:
    """Return the strength of each reason that a mask gives."""
    shape = inside(mask)
    (y, x), (height, width) = mask.origin_yx, shape.shape
    there = labels[y : y + height, x : x + width][shape]
    if not (there == mask.object_id).any():
        return {LEFT_OUT: 1.0}
    ratio = shape.sum() / (np.pi / 4 * diameter**2)
    taken = ((there != mask.object_id) & (there != 0)).mean()
    at_border = (
        y == 0
        or x == 0
        or y + height == labels.shape[0]
        or x + width == labels.shape[1]
    )
    return {
        "poor mask": _ramp(1 - mask.predicted_iou, 0.1, 0.6),
        "vague outline": _ramp(1 - mask.stability_score, 0.1, 0.5),
        # of half or twice the typical diameter
        "odd size": 0.7 * _ramp(abs(np.log(ratio)), np.log(2), np.log(4)),
        "overlaps a neighbour": _ramp(float(taken), 0.05, 0.5),
        "at the border": 0.2 * at_border,
    }


def _ramp(value: float, low: float, high: float) -> float:
    """Return 0 up to ``low``, 1 from ``high``, and a line between."""
    return float(np.clip((value - low) / (high - low), 0, 1))
