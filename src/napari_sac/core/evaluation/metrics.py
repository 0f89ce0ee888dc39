"""The scores of one image, as the papers define them, and their mean over images.

- **dice, iou**: of the foreground, without regard to instances.
- **aji**: Aggregated Jaccard Index of Kumar et al. (2017, IEEE TMI 36:1550), in the
  variant that MoNuSeg distributes and HoVer-Net's ``get_fast_aji`` computes: each true
  nucleus takes the prediction with the best IoU, a prediction may be taken more than
  once, and what nobody took adds to the union. (Not AJI+, which matches one to one.)
- **pq, dq, sq**: Panoptic Quality of Kirillov et al. (2019, CVPR) on pairs with
  IoU > 0.5: dq is the F1 of the pairs, sq their mean IoU, pq = dq * sq.
- **ap50, ap**: tp / (tp + fp + fn) of the best one-to-one matching, at IoU >= 0.5 and
  as mean over 0.5, 0.55, ..., 0.95. It is what StarDist and Cellpose report and the
  2018 Data Science Bowl ranked by; COCO's average precision is another number.
- **f1**: 2 tp / (2 tp + fp + fn) at IoU >= 0.5.

All lie in [0, 1]. Two empty images agree: every score is 1. If only one of them is
empty, every score is 0.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from napari_sac.core.evaluation.matching import (
    Matching,
    Overlap,
    best_pairs,
    label_overlap,
    match,
)
from napari_sac.core.types import IntArray

# Written out, for 0.5 + 2 * 0.05 is a little more than the 0.6 of an exact 3 / 5.
AP_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@dataclass(frozen=True)
class ImageScores:
    """The scores of one image, or their means; the module says how they are defined."""

    dice: float
    iou: float
    aji: float
    pq: float
    dq: float
    sq: float
    ap50: float
    ap: float
    f1: float


METRIC_NAMES = tuple(f.name for f in fields(ImageScores))


def evaluate_labels(prediction: IntArray, truth: IntArray) -> ImageScores:
    """Return how well predicted instance labels agree with the true ones.

    Parameters
    ----------
    prediction, truth : (H, W) int
        Instance labels, 0 background; ids need not be consecutive.

    Raises
    ------
    TypeError, ValueError
        As :func:`~napari_sac.core.evaluation.matching.label_overlap` does.

    Examples
    --------
    >>> truth = np.array([[1, 1, 0, 2, 2]])
    >>> evaluate_labels(np.array([[5, 5, 0, 0, 0]]), truth).ap50
    0.5
    """
    overlap = label_overlap(prediction, truth)
    if len(overlap.prediction_ids) == 0 and len(overlap.truth_ids) == 0:
        return ImageScores(*[1.0] * len(METRIC_NAMES))
    dice, iou = _foreground(overlap)
    dq, sq = _panoptic(overlap)
    matchings = [match(overlap, threshold) for threshold in AP_THRESHOLDS]
    at_half = matchings[0]
    return ImageScores(
        dice=dice,
        iou=iou,
        aji=_aggregated_jaccard(overlap),
        pq=dq * sq,
        dq=dq,
        sq=sq,
        ap50=_precision(at_half),
        ap=float(np.mean([_precision(matching) for matching in matchings])),
        f1=_f1(at_half.tp, at_half.fp, at_half.fn),
    )


def mean_scores(scores: Sequence[ImageScores]) -> ImageScores:
    """Return the mean of each score over images, every image counting the same.

    Raises
    ------
    ValueError
        If there are no images.
    """
    if not scores:
        raise ValueError("there is no mean of no images")
    rows = [list(asdict(image).values()) for image in scores]
    return ImageScores(*(float(mean) for mean in np.mean(rows, axis=0)))


def _foreground(overlap: Overlap) -> tuple[float, float]:
    """Return Dice and IoU of foreground against background."""
    shared = int(overlap.intersection.sum())
    total = int(overlap.prediction_areas.sum() + overlap.truth_areas.sum())
    return 2 * shared / total, shared / (total - shared)


def _aggregated_jaccard(overlap: Overlap) -> float:
    best = best_pairs(overlap)
    prediction = overlap.prediction_index[best]
    shared = int(overlap.intersection[best].sum())
    union = int(
        overlap.truth_areas.sum() + overlap.prediction_areas[prediction].sum() - shared
    )
    free = np.ones(len(overlap.prediction_ids), dtype=bool)
    free[prediction] = False
    return shared / (union + int(overlap.prediction_areas[free].sum()))


def _panoptic(overlap: Overlap) -> tuple[float, float]:
    """Return detection and segmentation quality."""
    # Above 0.5 no nucleus can have two partners, so there is nothing to assign.
    iou = overlap.iou[overlap.iou > 0.5]
    tp = len(iou)
    fp, fn = len(overlap.prediction_ids) - tp, len(overlap.truth_ids) - tp
    return _f1(tp, fp, fn), float(iou.mean()) if tp else 0.0


def _precision(matching: Matching) -> float:
    return matching.tp / (matching.tp + matching.fp + matching.fn)


def _f1(tp: int, fp: int, fn: int) -> float:
    return 2 * tp / (2 * tp + fp + fn)
