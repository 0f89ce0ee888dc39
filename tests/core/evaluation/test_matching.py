"""The overlap of two label images, and the matching of their nuclei."""

import itertools

import numpy as np
import pytest

from napari_sac.core.evaluation.matching import label_overlap, match


def test_overlap_of_a_small_picture():
    prediction = np.array([[7, 7, 0, 0], [7, 3, 3, 0]])
    truth = np.array([[0, 2, 2, 0], [2, 2, 2, 9]])

    overlap = label_overlap(prediction, truth)

    assert overlap.prediction_ids.tolist() == [3, 7]
    assert overlap.truth_ids.tolist() == [2, 9]
    assert overlap.prediction_areas.tolist() == [2, 3]
    assert overlap.truth_areas.tolist() == [5, 1]
    assert overlap.truth_index.tolist() == [0, 0]
    assert overlap.prediction_index.tolist() == [0, 1]
    assert overlap.intersection.tolist() == [2, 2]
    assert overlap.iou.tolist() == [2 / 5, 2 / 6]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64", "uint64"])
def test_overlap_takes_any_integers_with_gaps(dtype):
    ids = np.array([0, 5, np.iinfo(dtype).max // 2], dtype=dtype)
    labels = ids[np.array([[0, 1, 1], [2, 2, 0]])]

    overlap = label_overlap(labels, labels.astype(np.int64))

    assert overlap.truth_ids.tolist() == [5, int(ids[2])]
    assert overlap.iou.tolist() == [1, 1]


def test_overlap_agrees_with_counting_pixels_one_pair_at_a_time():
    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(0, 6, (2, 40, 30))

    overlap = label_overlap(prediction, truth)

    for t, p, shared in zip(
        overlap.truth_ids[overlap.truth_index],
        overlap.prediction_ids[overlap.prediction_index],
        overlap.intersection,
        strict=True,
    ):
        assert shared == ((prediction == p) & (truth == t)).sum()
    assert len(overlap.intersection) == 25


def test_overlap_of_transposed_labels_that_are_not_contiguous():
    prediction = np.array([[1, 1], [0, 2]])
    truth = np.array([[4, 4], [0, 0]])

    overlap = label_overlap(prediction.T, truth.T)

    assert overlap.intersection.tolist() == [2]


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (3, 4)])
def test_overlap_of_nothing(shape):
    nothing = np.zeros(shape, dtype=np.uint16)

    matching = match(label_overlap(nothing, nothing))

    assert (matching.tp, matching.fp, matching.fn) == (0, 0, 0)
    assert matching.pairs.shape == (0, 2)


def test_overlap_refuses_what_is_not_labels():
    labels = np.ones((2, 2), dtype=int)

    with pytest.raises(TypeError, match="truth must hold integers, got float64"):
        label_overlap(labels, labels.astype(float))
    with pytest.raises(ValueError, match="same shape"):
        label_overlap(labels, labels[:1])
    with pytest.raises(ValueError, match="between 0 and"):
        label_overlap(-labels, labels)
    with pytest.raises(ValueError, match="between 0 and"):
        label_overlap(np.full((2, 2), 2**63, dtype=np.uint64), labels)


def test_match_counts_and_names_the_pairs():
    truth = np.array([[1, 1, 1, 1, 0, 5, 5, 0, 6]])
    prediction = np.array([[8, 8, 8, 0, 0, 0, 5, 2, 0]])

    matching = match(label_overlap(prediction, truth), 0.5)

    assert (matching.tp, matching.fp, matching.fn) == (2, 1, 1)
    assert matching.pairs.tolist() == [[8, 1], [5, 5]]
    assert matching.iou.tolist() == [3 / 4, 1 / 2]


def test_a_prediction_of_exactly_the_threshold_matches():
    truth = np.array([[1, 1, 1, 1, 1]])
    prediction = np.array([[1, 1, 1, 0, 0]])
    overlap = label_overlap(prediction, truth)

    assert match(overlap, 0.6).tp == 1
    assert match(overlap, 0.65).tp == 0


def test_two_halves_of_a_nucleus_match_it_once():
    truth = np.array([[1, 1, 1, 1]])
    prediction = np.array([[1, 1, 2, 2]])

    matching = match(label_overlap(prediction, truth), 0.5)

    assert (matching.tp, matching.fp, matching.fn) == (1, 1, 0)


def test_the_best_pair_gives_way_where_that_makes_more_pairs():
    # Prediction 1 fits truth 1 best (4/7), but then truth 2 is left alone.
    truth = np.array([[1, 1, 1, 1, 1, 2, 2, 0]])
    prediction = np.array([[3, 1, 1, 1, 1, 1, 1, 0]])

    matching = match(label_overlap(prediction, truth), 0.15)

    assert matching.pairs.tolist() == [[3, 1], [1, 2]]


@pytest.mark.parametrize("seed", range(20))
def test_match_is_the_best_of_all_possible_matchings(seed):
    rng = np.random.default_rng(seed)
    prediction, truth = rng.integers(0, 5, (2, 6, 6))
    overlap = label_overlap(prediction, truth)
    threshold = 0.1
    iou = np.zeros((len(overlap.truth_ids), 8))
    iou[overlap.truth_index, overlap.prediction_index] = overlap.iou
    iou[iou < threshold] = 0

    matching = match(overlap, threshold)

    rows = np.arange(len(iou))
    best = max(
        ((iou[rows, list(p)] > 0).sum(), iou[rows, list(p)].sum())
        for p in itertools.permutations(range(8), len(iou))
    )
    assert matching.tp == best[0]
    assert matching.iou.sum() == pytest.approx(best[1])
    assert len(set(matching.pairs[:, 0])) == len(set(matching.pairs[:, 1])) == best[0]


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, float("nan")])
def test_match_refuses_a_threshold_that_is_none(threshold):
    overlap = label_overlap(np.array([[1]]), np.array([[1]]))

    with pytest.raises(ValueError, match="threshold"):
        match(overlap, threshold)
