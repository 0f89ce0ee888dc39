"""Which predicted nucleus is which true one: pixel overlaps and one-to-one matching.

Only pairs that share a pixel are ever stored, so a slide with 100,000 nuclei needs no
100,000 x 100,000 matrix. The scores built on top are in ``metrics``.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_sac.core.types import BoolArray, FloatArray, IntArray

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Overlap:
    """The pixels that predicted and true nuclei share, as a sparse matrix.

    Parameters
    ----------
    prediction_ids, truth_ids : (P,) and (T,) int64
        The labels that occur, ascending, without the background 0.
    prediction_areas, truth_areas : (P,) and (T,) int64
        Pixels of each of them.
    prediction_index, truth_index : (K,) int64
        Positions in the ids of the K pairs that share at least one pixel, ordered by
        truth, then by prediction.
    intersection : (K,) int64
        Pixels that each pair shares.
    iou : (K,) float64
        Intersection over union of each pair, in (0, 1]; it is 0 for all other pairs.
    """

    prediction_ids: Int64Array
    truth_ids: Int64Array
    prediction_areas: Int64Array
    truth_areas: Int64Array
    prediction_index: Int64Array
    truth_index: Int64Array
    intersection: Int64Array
    iou: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Matching:
    """A one-to-one matching of predicted and true nuclei.

    Parameters
    ----------
    tp, fp, fn : int
        Matched pairs, predictions without a partner, truths without a partner.
    pairs : (tp, 2) int64
        Labels of each pair: prediction, truth; ordered by truth.
    iou : (tp,) float64
        Intersection over union of each pair.
    """

    tp: int
    fp: int
    fn: int
    pairs: Int64Array
    iou: npt.NDArray[np.float64]


def label_overlap(prediction: IntArray, truth: IntArray) -> Overlap:
    """Return the pixels that the instances of two label images share.

    Parameters
    ----------
    prediction, truth : (H, W) int
        Instance labels of any integer type, 0 background; ids need not be consecutive
        and mean nothing across the two images.

    Raises
    ------
    TypeError
        If one of them does not hold integers.
    ValueError
        If the shapes differ or a label is negative or beyond 2**63 - 1.

    Examples
    --------
    >>> overlap = label_overlap(np.array([[7, 7, 0]]), np.array([[0, 2, 2]]))
    >>> overlap.intersection, overlap.iou
    (array([1]), array([0.33333333]))
    """
    predicted, true, length = _runs(prediction, truth)
    prediction_ids, prediction_areas = _areas(predicted, length)
    truth_ids, truth_areas = _areas(true, length)

    both = (predicted > 0) & (true > 0)
    rows = np.searchsorted(truth_ids, true[both])
    columns = np.searchsorted(prediction_ids, predicted[both])
    shape = (len(truth_ids), len(prediction_ids))
    shared = coo_array((length[both], (rows, columns)), shape=shape).tocsr().tocoo()

    truth_index = shared.row.astype(np.int64)
    prediction_index = shared.col.astype(np.int64)
    intersection = shared.data.astype(np.int64)
    union = truth_areas[truth_index] + prediction_areas[prediction_index] - intersection
    return Overlap(
        prediction_ids=prediction_ids,
        truth_ids=truth_ids,
        prediction_areas=prediction_areas,
        truth_areas=truth_areas,
        prediction_index=prediction_index,
        truth_index=truth_index,
        intersection=intersection,
        iou=intersection / union,
    )


def match(overlap: Overlap, iou_threshold: float = 0.5) -> Matching:
    """Return the largest one-to-one matching of pairs at ``iou >= iou_threshold``.

    Of several largest matchings it is one with the greatest sum of IoU, as in
    ``stardist.matching``: https://github.com/stardist/stardist.

    Raises
    ------
    ValueError
        If the threshold is not in (0, 1].
    """
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"the IoU threshold must be in (0, 1], got {iou_threshold}")
    candidates = np.flatnonzero(overlap.iou >= iou_threshold)
    kept = candidates[
        _best_one_to_one(
            overlap.truth_index[candidates],
            overlap.prediction_index[candidates],
            overlap.iou[candidates],
        )
    ]
    pairs = np.stack(
        [
            overlap.prediction_ids[overlap.prediction_index[kept]],
            overlap.truth_ids[overlap.truth_index[kept]],
        ],
        axis=1,
    )
    tp = len(kept)
    return Matching(
        tp=tp,
        fp=len(overlap.prediction_ids) - tp,
        fn=len(overlap.truth_ids) - tp,
        pairs=pairs,
        iou=overlap.iou[kept],
    )


def best_pairs(overlap: Overlap) -> Int64Array:
    """Return the pair of each true nucleus with its best prediction, if it has one.

    Of equally good predictions the one with the smallest label is taken; a prediction
    may be taken by several.
    """
    # lexsort is stable
    order = np.lexsort((-overlap.iou, overlap.truth_index))
    _, first = np.unique(overlap.truth_index[order], return_index=True)
    return np.asarray(order[first])


def _runs(
    prediction: IntArray, truth: IntArray
) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Return the pairs of labels along the rows, one entry a run, and its length.

    Runs are some 20 times fewer than pixels, which makes everything after them cheap.
    """
    for name, labels in (("prediction", prediction), ("truth", truth)):
        if not np.issubdtype(labels.dtype, np.integer):
            raise TypeError(f"{name} must hold integers, got {labels.dtype}")
    if prediction.shape != truth.shape:
        raise ValueError(
            f"prediction is {prediction.shape}, truth is {truth.shape}: "
            "they must have the same shape"
        )
    predicted, true = prediction.ravel(), truth.ravel()
    if predicted.size == 0:
        empty = np.empty(0, np.int64)
        return empty, empty, empty
    changed = predicted[1:] != predicted[:-1]
    changed |= true[1:] != true[:-1]
    starts = np.concatenate([[0], np.flatnonzero(changed) + 1])
    length = np.diff(starts, append=predicted.size)
    return _as_ids(predicted[starts]), _as_ids(true[starts]), length


def _as_ids(labels: IntArray) -> Int64Array:
    ids = labels.astype(np.int64)
    if (ids < 0).any():
        raise ValueError("labels must lie between 0 and 2**63 - 1")
    return ids


def _areas(labels: Int64Array, length: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the labels but for the background, and how many pixels each covers."""
    ids, index = np.unique(labels, return_inverse=True)
    # Sums in float64 are exact below 2**53 pixels.
    areas = np.bincount(index, weights=length, minlength=len(ids)).astype(np.int64)
    foreground = ids > 0
    return ids[foreground], areas[foreground]


def _best_one_to_one(
    rows: Int64Array, columns: Int64Array, weights: FloatArray
) -> Int64Array:
    """Return which of the pairs make the largest matching with the greatest weight."""
    alone = _occurs_once(rows) & _occurs_once(columns)
    contested = np.flatnonzero(~alone)
    if len(contested) == 0:
        return np.arange(len(rows))
    chosen = [np.flatnonzero(alone)]
    for group in _connected(rows[contested], columns[contested]):
        pairs = contested[group]
        chosen.append(pairs[_assign(rows[pairs], columns[pairs], weights[pairs])])
    return np.sort(np.concatenate(chosen))


def _occurs_once(values: Int64Array) -> BoolArray:
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    once: BoolArray = counts[index] == 1
    return once


def _connected(rows: Int64Array, columns: Int64Array) -> list[Int64Array]:
    """Return the pairs in groups that share no row and no column with another group."""
    _, row = np.unique(rows, return_inverse=True)
    _, column = np.unique(columns, return_inverse=True)
    column = column + row.max() + 1
    size = column.max() + 1
    graph = coo_array((np.ones(len(row)), (row, column)), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    order = np.argsort(component[row], kind="stable")
    return np.split(order, np.flatnonzero(np.diff(component[row][order])) + 1)


def _assign(rows: Int64Array, columns: Int64Array, weights: FloatArray) -> Int64Array:
    """Return the pairs of the Hungarian method: most pairs, then most weight."""
    row_ids, row = np.unique(rows, return_inverse=True)
    column_ids, column = np.unique(columns, return_inverse=True)
    shape = (len(row_ids), len(column_ids))
    gain = np.zeros(shape)
    # Weights are at most 1, so no sum of them outweighs one pair more.
    gain[row, column] = 1 + weights / (2 * min(shape))
    position = np.full(shape, -1)
    position[row, column] = np.arange(len(rows))
    picked: Int64Array = position[linear_sum_assignment(gain, maximize=True)]
    return picked[picked >= 0]
