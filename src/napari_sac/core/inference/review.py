"""Which nuclei a person should look at first, and what is odd about them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_sac.core.inference.instances import inside
from napari_sac.core.inference.predictor import active_prompts, first_positives
from napari_sac.core.types import ObjectMask, Prompts, PromptState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NO_MASK = "no mask of its own"
"""How the reason begins of a nucleus that has no pixel."""

_POOR, _VAGUE, _UNCERTAIN = "poor mask", "vague outline", "uncertain proposal"
_WEIGHTS = {_POOR: 7.5, _VAGUE: 1.6, _UNCERTAIN: 3.0}
_BIAS = 8.0
"""Log odds of a wrong nucleus (IoU below 0.5) are the bias less the weighted qualities;
a logistic regression on training images of MoNuSeg 2018 and DSB 2018
(``benchmarks/review_queue.py``)."""

_DOUBTED = 0.3
"""A nucleus that is less doubtful has no reasons."""
_WORST = 0.2
"""Nor has one that is not among this part of the image's own nuclei."""
_NAMED = 0.5
"""By how much a quality must change the log odds, against the median of the image, to
be named."""
_LEAST_MEAN_LOGIT = 0.1
_MIDDLING = {_POOR: 0.7, _VAGUE: 1.1}
_ODD_RATIO = 3.0
"""How many times the typical area, or which part of it, is odd."""
_LITTLE = 0.88
"""A nucleus more doubtful than this, whose point a person has set, is most likely none:
on training images with H&E so are three of four points on empty tissue, and one of
twenty in nuclei that were missed."""
_ODD_OVERLAP = 0.15
"""Which part of a mask neighbours may take."""


@dataclass(frozen=True)
class Usual:
    """How the nuclei of an image are, so that one can be told from the others.

    Parameters
    ----------
    qualities : dict of str to float
        The median of each quality.
    doubt : float
        Nuclei less doubtful than this are not among the image's worst.
    """

    qualities: Mapping[str, float]
    doubt: float


@dataclass(frozen=True, eq=False)
class DoubtTable:
    """How doubtful each nucleus is, the most doubtful first.

    Parameters
    ----------
    object_id : (N,) int64
    doubt : (N,) float32
        In [0, 1]; falling.
    reasons : tuple of N tuples of str
        In words, the strongest first; empty for a nucleus that is no worse than most
        of the image, or looks right.
    usual : Usual
    """

    object_id: npt.NDArray[np.int64]
    doubt: npt.NDArray[np.float32]
    reasons: tuple[tuple[str, ...], ...]
    usual: Usual


@dataclass(frozen=True)
class _Judged:
    """What is known about one nucleus: how good, and what else is odd about it."""

    object_id: int
    qualities: Mapping[str, float]
    oddities: tuple[str, ...] = ()
    hidden: str = ""

    @cached_property
    def doubt(self) -> float:
        """The chance that it is wrong."""
        if self.hidden:
            return 1.0
        log_odds = _BIAS - sum(_WEIGHTS[k] * v for k, v in self.qualities.items())
        return float(1 / (1 + np.exp(-log_odds)))

    def reasons(self, usual: Usual) -> tuple[str, ...]:
        """Return what is odd about it beside the others, the strongest first."""
        if self.hidden:
            return (self.hidden,)
        if self.doubt < max(_DOUBTED, usual.doubt):
            return ()
        worse = {
            k: _WEIGHTS[k] * (usual.qualities.get(k, v) - v)
            for k, v in self.qualities.items()
        }
        strongest = sorted(worse, key=lambda k: -worse[k])
        named = [k for k in strongest if worse[k] >= _NAMED]
        return (*(named or strongest[:1]), *self.oddities)


def doubt(
    masks: Mapping[int, ObjectMask],
    prompts: Prompts,
    labels: npt.NDArray[np.uint32],
    diameter: float,
    usual: Usual | None = None,
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
    usual : Usual, optional
        What the nuclei of the image are like, if ``prompts`` are not all of them; by
        default it is found from them.

    Notes
    -----
    The doubt is an estimate of the chance that a nucleus is wrong. Nuclei of equal
    doubt come in order of ``object_id``.
    """
    positives = first_positives(active_prompts(prompts))
    judged = []
    for row, object_id in enumerate(positives.object_id.tolist()):
        automatic = positives.state[row] == PromptState.AUTO.value
        score = float(positives.score[row]) if automatic else 1.0
        judged.append(_judge(masks.get(object_id), object_id, score, labels, diameter))
    if usual is None:
        usual = _find_usual(judged)
    judged.sort(key=lambda one: (-one.doubt, one.object_id))
    return DoubtTable(
        np.array([one.object_id for one in judged], np.int64),
        np.array([one.doubt for one in judged], np.float32),
        tuple(one.reasons(usual) for one in judged),
        usual,
    )


def found_little(
    mask: ObjectMask, labels: npt.NDArray[np.uint32], diameter: float
) -> bool:
    """Return whether a point that a person has set gave next to nothing.

    Parameters
    ----------
    mask : ObjectMask
    labels : (H, W) uint32
        With this mask drawn.
    diameter : float
        Typical nucleus diameter in pixels.
    """
    return _judge(mask, mask.object_id, 1.0, labels, diameter).doubt > _LITTLE


def _find_usual(judged: Iterable[_Judged]) -> Usual:
    seen = [one for one in judged if not one.hidden]
    medians = {}
    for name in _WEIGHTS:
        values = [one.qualities[name] for one in seen if name in one.qualities]
        if values:
            medians[name] = float(np.median(values))
    doubts = sorted((one.doubt for one in seen), reverse=True)
    last = int(np.ceil(_WORST * len(doubts))) - 1
    return Usual(medians, doubts[last] if doubts else 0.0)


def _judge(
    mask: ObjectMask | None,
    object_id: int,
    score: float,
    labels: npt.NDArray[np.uint32],
    diameter: float,
) -> _Judged:
    if mask is None:
        # as if its mask were a middling one
        return _Judged(object_id, {**_MIDDLING, _UNCERTAIN: score})
    shape = inside(mask)
    (y, x), (height, width) = mask.origin_yx, shape.shape
    there = labels[y : y + height, x : x + width][shape]
    if not (there == object_id).any():
        return _Judged(object_id, {}, hidden=_why_hidden(there))
    mean_logit = float(mask.logits[mask.logits > 0].mean())
    qualities = {
        _POOR: mask.predicted_iou,
        _VAGUE: float(np.log(max(mean_logit, _LEAST_MEAN_LOGIT))),
        _UNCERTAIN: score,
    }
    ratio = shape.sum() / (np.pi / 4 * diameter**2)
    taken = ((there != object_id) & (there != 0)).mean()
    # measured: they say little by themselves, and border and stability nothing
    oddities = {
        "odd size": abs(np.log(ratio)) > np.log(_ODD_RATIO),
        "overlaps a neighbour": taken > _ODD_OVERLAP,
    }
    return _Judged(object_id, qualities, tuple(k for k, odd in oddities.items() if odd))


def _why_hidden(there: npt.NDArray[np.uint32]) -> str:
    """Return why a nucleus has no pixel, and what to do; ``there`` is where it was."""
    if there.size == 0:
        return f"{NO_MASK}, for the model sees none there. Reject it, or paint it"
    owners, counts = np.unique(there[there != 0], return_counts=True)
    if len(owners) == 0:
        return (
            f"{NO_MASK}, for it would be a poor one. Reject it, or accept it to have "
            "it drawn"
        )
    owner = owners[counts.argmax()]
    return (
        f"{NO_MASK}, covered by nucleus {owner}. Merge the two, reject this one, or "
        "accept it to have both"
    )
