"""Base against tuned on the held-out part: scores, their intervals, a verdict."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sac.core.evaluation.matching import (
    Overlap,
    best_pairs,
    label_overlap,
    match,
)
from napari_sac.core.evaluation.metrics import (
    ImageScores,
    evaluate_labels,
    mean_scores,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sac.core.training.reviewed_image import ReviewedImage
    from napari_sac.core.types import BoolArray, IntArray

COMPARED = ("f1", "pq", "aji", "dice", "ap50")
"""The scores that get a confidence interval."""

CONFIDENCE = 0.95
DRAWS = 2000
LOWEST_F1 = 0.2
"""Below this the labels and the image have little to do with each other."""

ABOVE_CHANCE = 0.1
"""How much better the labels must fit than when they are moved by half an image."""

F1_TOLERANCE = 0.01
_CELLS = 6

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Compared:
    """One held-out image with the labels of both models.

    Parameters
    ----------
    reviewed : ReviewedImage
    base, tuned : (H, W) int
        Predicted labels, already limited by :func:`limit_to_known`.
    """

    reviewed: ReviewedImage
    base: IntArray
    tuned: IntArray

    def found_by_tuned(self) -> set[int]:
        """Return the nuclei that the tuned model found."""
        return _found(self.tuned, self.reviewed.labels)

    def gained(self) -> set[int]:
        """Return the nuclei that only the tuned model found (IoU at least 0.5)."""
        truth = self.reviewed.labels
        return _found(self.tuned, truth) - _found(self.base, truth)

    def lost(self) -> set[int]:
        """Return the nuclei that only the base model found."""
        truth = self.reviewed.labels
        return _found(self.base, truth) - _found(self.tuned, truth)


@dataclass(frozen=True)
class Comparison:
    """What the held-out part says.

    Parameters
    ----------
    promoted : bool
        Whether the adapter may take the base's place.
    reason : str
        Why, as a sentence.
    base, tuned : ImageScores or None
        Means over held-out images; None if nothing was held out.
    base_intervals, tuned_intervals, gain_intervals : dict of str to (float, float)
        Of :data:`COMPARED`: 95 % by bootstrap, of the scores and of tuned minus base.
    gained, lost, nuclei : int
        Nuclei that only the tuned, or only the base model found, and all of them.
    chance : float
        F1 of the tuned model's labels against the truth moved by half an image.
    """

    promoted: bool
    reason: str
    base: ImageScores | None = None
    tuned: ImageScores | None = None
    base_intervals: dict[str, Interval] | None = None
    tuned_intervals: dict[str, Interval] | None = None
    gain_intervals: dict[str, Interval] | None = None
    gained: int = 0
    lost: int = 0
    nuclei: int = 0
    chance: float = 0.0


def limit_to_known(prediction: IntArray, reviewed: ReviewedImage) -> IntArray:
    """Return predicted labels without what lies where nobody reviewed.

    A nucleus is kept, as far as it is known, if half of it or more is. One that covers
    most of a reviewed nucleus stays whole: what it takes of others is wrong, whether
    those were reviewed or not.
    """
    known = reviewed.known
    flat = prediction.ravel().astype(np.int64)
    area = np.bincount(flat)
    inside = np.bincount(flat, weights=known.ravel(), minlength=len(area))
    kept = 2 * inside >= area
    overlap = label_overlap(prediction, reviewed.labels)
    most = 2 * overlap.intersection > overlap.truth_areas[overlap.truth_index]
    whole = np.zeros(len(area), bool)
    whole[overlap.prediction_ids[overlap.prediction_index[most]]] = True
    kept |= whole
    kept[0] = False
    ids = prediction.astype(np.int64)
    return np.where(kept[ids] & (known | whole[ids]), prediction, 0)


def compare(images: Sequence[Compared], seed: int = 0) -> Comparison:
    """Return the scores of both models on the held-out images, and the verdict.

    Parameters
    ----------
    images : sequence of Compared
        If empty, nothing is known, and the adapter is not promoted.
    seed : int
        Of the bootstrap.

    References
    ----------
    The intervals are percentiles of a bootstrap (Efron 1979) over the cells of a grid
    on each image, the same cells for both models: neighbours depend on each other.
    """
    if not images:
        return Comparison(
            False,
            "There are too few reviewed nuclei to set some aside, so nothing shows "
            "that the adapter is better. Review more nuclei.",
        )
    base = mean_scores([evaluate_labels(c.base, c.reviewed.labels) for c in images])
    tuned = mean_scores([evaluate_labels(c.tuned, c.reviewed.labels) for c in images])
    base_draws, tuned_draws = _bootstrap(images, seed)
    gain = {name: tuned_draws[name] - base_draws[name] for name in COMPARED}
    gain_intervals = _intervals(gain)
    fit, chance = _fit(images)
    promoted, reason = _judge(base, tuned, fit, chance)
    low, high = gain_intervals["pq"]
    if promoted and low <= 0:
        reason += (
            f" That may be chance: with 95 % confidence the gain in PQ is between "
            f"{low:+.3f} and {high:+.3f}. More reviewed nuclei would tell."
        )
    return Comparison(
        promoted,
        reason,
        base,
        tuned,
        _intervals(base_draws),
        _intervals(tuned_draws),
        gain_intervals,
        sum(len(c.gained()) for c in images),
        sum(len(c.lost()) for c in images),
        sum(c.reviewed.count for c in images),
        chance,
    )


def _judge(
    base: ImageScores, tuned: ImageScores, fit: float, chance: float
) -> tuple[bool, str]:
    """Return whether the adapter is promoted, and why."""
    if fit < max(LOWEST_F1, chance + ABOVE_CHANCE):
        return False, (
            f"The labels do not fit the images: with an F1 of {fit:.2f} they "
            "agree little better than by chance. Check that each label file belongs "
            "to its image. The adapter was not promoted."
        )
    numbers = (
        f"F1 {base.f1:.3f} before, {tuned.f1:.3f} after; "
        f"PQ {base.pq:.3f} before, {tuned.pq:.3f} after"
    )
    if tuned.pq > base.pq and tuned.f1 >= base.f1 - F1_TOLERANCE:
        return True, f"The adapter is better on what was held out: {numbers}."
    return False, (
        f"The adapter is not better on what was held out: {numbers}. It was not "
        "promoted. More reviewed nuclei, or more minutes, may help."
    )


def _fit(images: Sequence[Compared]) -> tuple[float, float]:
    """Return the mean F1 of the adapter, and what it would be by chance.

    Over images with nuclei: where there are none, empty labels fit by chance too.
    """
    some = [c for c in images if c.reviewed.labels.any()] or list(images)
    fit = mean_scores([evaluate_labels(c.tuned, c.reviewed.labels) for c in some]).f1
    return fit, float(np.mean([_chance(c.tuned, c.reviewed.labels) for c in some]))


def _chance(prediction: IntArray, truth: IntArray) -> float:
    """Return the mean F1 against the truth moved by half an image, three ways."""
    height, width = truth.shape
    moves = ((height // 2, 0), (0, width // 2), (height // 2, width // 2))
    return float(
        np.mean(
            [
                evaluate_labels(prediction, np.roll(truth, move, (0, 1))).f1
                for move in moves
            ]
        )
    )


def _found(prediction: IntArray, truth: IntArray) -> set[int]:
    pairs = match(label_overlap(prediction, truth)).pairs
    return set(pairs[:, 1].tolist())


def _intervals(draws: dict[str, npt.NDArray[np.float64]]) -> dict[str, Interval]:
    ends = (50 * (1 - CONFIDENCE), 100 - 50 * (1 - CONFIDENCE))
    result = {}
    for name, values in draws.items():
        low, high = np.percentile(values, ends)
        result[name] = (float(low), float(high))
    return result


@dataclass(frozen=True, eq=False)
class ScoreSums:
    """What the scores are made of, for each cell (C,) of an image, or summed."""

    tp: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.float64]
    true: npt.NDArray[np.float64]
    pq_iou: npt.NDArray[np.float64]
    shared: npt.NDArray[np.float64]
    predicted_area: npt.NDArray[np.float64]
    true_area: npt.NDArray[np.float64]
    aji_shared: npt.NDArray[np.float64]
    aji_union: npt.NDArray[np.float64]

    def weighted(self, weights: npt.NDArray[np.float64]) -> ScoreSums:
        """Return the sums (B,) over cells, each counted ``weights`` (B, C) times."""
        return ScoreSums(*(weights @ getattr(self, f.name) for f in fields(self)))

    def scores(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return the scores of :data:`COMPARED`, as ``evaluate`` defines them."""
        both = self.predicted + self.true
        return {
            "f1": _ratio(2 * self.tp, both),
            "pq": _ratio(2 * self.pq_iou, both),
            "aji": _ratio(self.aji_shared, self.aji_union),
            "dice": _ratio(2 * self.shared, self.predicted_area + self.true_area),
            "ap50": _ratio(self.tp, both - self.tp),
        }


def count_cells(
    prediction: IntArray, truth: IntArray, cell_of: npt.NDArray[np.int64]
) -> ScoreSums:
    """Return the parts of the scores in each cell.

    Parameters
    ----------
    prediction, truth : (H, W) int
    cell_of : (H, W) int64
        The cell of each pixel; a nucleus belongs to the cell of its middle.
    """
    cells = int(cell_of.max()) + 1
    overlap = label_overlap(prediction, truth)
    predicted_cell = _cells_of(prediction, overlap.prediction_ids, cell_of)
    true_cell = _cells_of(truth, overlap.truth_ids, cell_of)
    matched = match(overlap)
    of_matched = true_cell[np.searchsorted(overlap.truth_ids, matched.pairs[:, 1])]
    above = overlap.iou > 0.5
    of_above = true_cell[overlap.truth_index[above]]

    def total(
        where: npt.NDArray[np.int64], weights: npt.NDArray[np.float64] | None = None
    ) -> npt.NDArray[np.float64]:
        return np.bincount(where, weights, minlength=cells).astype(np.float64)

    pixels = cell_of.ravel()
    foreground, true = prediction.ravel() > 0, truth.ravel() > 0
    shared, union = _jaccard_parts(overlap)
    free = np.ones(len(overlap.prediction_ids), bool)
    free[overlap.prediction_index[best_pairs(overlap)]] = False
    aji_union = total(true_cell, union)
    aji_union += total(
        predicted_cell[free], overlap.prediction_areas[free].astype(np.float64)
    )
    return ScoreSums(
        tp=total(of_matched),
        predicted=total(predicted_cell),
        true=total(true_cell),
        pq_iou=total(of_above, overlap.iou[above]),
        shared=total(pixels[foreground & true]),
        predicted_area=total(pixels[foreground]),
        true_area=total(pixels[true]),
        aji_shared=total(true_cell, shared),
        aji_union=aji_union,
    )


def _bootstrap(
    images: Sequence[Compared], seed: int
) -> tuple[dict[str, npt.NDArray[np.float64]], dict[str, npt.NDArray[np.float64]]]:
    """Return the scores (DRAWS,) of base and tuned, each a mean over the images."""
    rng = np.random.default_rng(seed)
    sums = [dict.fromkeys(COMPARED, np.zeros(DRAWS)) for _ in range(2)]
    for one in images:
        cell_of = _grid(one.reviewed.known)
        cells = int(cell_of.max()) + 1
        weights = rng.multinomial(cells, np.full(cells, 1 / cells), DRAWS)
        for total, labels in zip(sums, (one.base, one.tuned), strict=True):
            counts = count_cells(labels, one.reviewed.labels, cell_of)
            scores = counts.weighted(weights.astype(np.float64)).scores()
            for name in COMPARED:
                total[name] = total[name] + scores[name] / len(images)
    return sums[0], sums[1]


def _grid(known: BoolArray) -> npt.NDArray[np.int64]:
    """Return the cell of each pixel; cells with nothing known are left out."""
    rows, columns = (
        np.minimum(np.arange(n) * _CELLS // max(n, 1), _CELLS - 1) for n in known.shape
    )
    cell = rows[:, None] * _CELLS + columns[None]
    used = np.unique(cell[known])
    return np.asarray(np.searchsorted(used, np.minimum(cell, used.max(initial=0))))


def _cells_of(
    labels: IntArray, ids: npt.NDArray[np.int64], cell_of: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    if len(ids) == 0:
        return np.empty(0, np.int64)
    middles = np.array(ndimage.center_of_mass(labels > 0, labels, ids))
    middles = np.rint(middles).astype(np.int64)
    return np.asarray(cell_of[middles[:, 0], middles[:, 1]])


def _jaccard_parts(
    overlap: Overlap,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return what each true nucleus adds to the two sums of AJI."""
    best = best_pairs(overlap)
    shared = np.zeros(len(overlap.truth_ids))
    union = overlap.truth_areas.astype(np.float64)
    rows = overlap.truth_index[best]
    shared[rows] = overlap.intersection[best]
    union[rows] += overlap.prediction_areas[overlap.prediction_index[best]]
    return shared, union - shared


def _ratio(
    part: npt.NDArray[np.float64], whole: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return part / whole, and 1 where there is nothing to be wrong about.

    A pair counts in the cell of its nucleus, a prediction in its own: a draw may have
    the one without the other, and is cut at 1.
    """
    return np.where(whole > 0, np.minimum(part / np.maximum(whole, 1e-12), 1.0), 1.0)
