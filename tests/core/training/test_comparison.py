"""The verdict: better is promoted, worse and nonsense are not, and it says why."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from synthetic import draw_nuclei

from napari_sac.core.evaluation.metrics import evaluate_labels
from napari_sac.core.training.comparison import (
    COMPARED,
    Compared,
    compare,
    count_cells,
    limit_to_known,
)
from napari_sac.core.training.reviewed_image import ReviewedImage, review_image


@pytest.fixture
def truth() -> ReviewedImage:
    drawn = draw_nuclei((200, 220), 24, 10)
    return review_image("a", drawn.image, drawn.labels)


def without(labels: np.ndarray, ids: range) -> np.ndarray:
    return np.where(np.isin(labels, ids), 0, labels)


def test_counts_of_cells_add_up_to_the_scores(truth: ReviewedImage) -> None:
    rng = np.random.default_rng(0)
    prediction = np.roll(without(truth.labels, range(1, 5)), (2, -3), (0, 1))
    cell = rng.integers(0, 7, truth.labels.shape)
    counts = count_cells(prediction, truth.labels, cell)
    once = counts.weighted(np.ones((1, len(counts.tp)))).scores()
    expected = asdict(evaluate_labels(prediction, truth.labels))
    for name in COMPARED:
        assert once[name][0] == pytest.approx(expected[name]), name


def test_better_is_promoted(truth: ReviewedImage) -> None:
    base, tuned = (without(truth.labels, range(1, n)) for n in (9, 3))
    result = compare([Compared(truth, base, tuned)])
    assert result.promoted
    assert (result.gained, result.lost, result.nuclei) == (6, 0, 24)
    assert result.base is not None
    assert result.tuned is not None
    assert result.base_intervals is not None
    low, high = result.base_intervals["f1"]
    assert low < result.base.f1 < high
    assert result.gain_intervals is not None
    low, high = result.gain_intervals["pq"]
    assert 0 < low < result.tuned.pq - result.base.pq < high


def test_worse_is_not_promoted(truth: ReviewedImage) -> None:
    base, tuned = (without(truth.labels, range(1, n)) for n in (3, 9))
    result = compare([Compared(truth, base, tuned)])
    assert not result.promoted
    assert "not better" in result.reason
    assert (result.gained, result.lost) == (0, 6)


def test_a_gain_that_may_be_chance_is_said_to_be(truth: ReviewedImage) -> None:
    # one more is found, another is lost: better by a little
    base = without(truth.labels, range(1, 2))
    little = without(np.roll(base, 1, 0), range(1, 2))
    result = compare([Compared(truth, little, base)])
    assert result.promoted
    assert "may be chance" not in result.reason, "it is better everywhere"
    tuned = without(truth.labels, range(2, 3))
    shrunk = np.where(
        (base == 3) & (np.cumsum(base == 3).reshape(base.shape) < 9), 0, base
    )
    result = compare([Compared(truth, shrunk, tuned)])
    assert result.promoted
    assert "may be chance" in result.reason


def test_the_same_is_not_promoted(truth: ReviewedImage) -> None:
    assert not compare([Compared(truth, truth.labels, truth.labels)]).promoted


def test_nonsense_is_not_promoted_though_better(truth: ReviewedImage) -> None:
    """Labels of another image: whatever the models find, it is chance."""
    other = draw_nuclei((200, 220), 24, 10, seed=5)
    shuffled = review_image("b", truth.image, other.labels)
    base = np.zeros_like(truth.labels)
    result = compare([Compared(shuffled, base, truth.labels)])
    assert not result.promoted
    assert "do not fit" in result.reason


def test_images_without_nuclei_make_no_fit_look_like_chance(
    truth: ReviewedImage,
) -> None:
    empty = review_image("empty", truth.image, np.zeros_like(truth.labels))
    nothing = Compared(empty, empty.labels, empty.labels)
    base, tuned = (without(truth.labels, range(1, n)) for n in (9, 3))
    found = compare([Compared(truth, base, tuned), *[nothing] * 9])
    assert found.promoted, found.reason
    other = draw_nuclei((200, 220), 24, 10, seed=5)
    shuffled = review_image("b", truth.image, other.labels)
    wrong = Compared(shuffled, np.zeros_like(truth.labels), truth.labels)
    found = compare([wrong, *[nothing] * 9])
    assert not found.promoted
    assert "do not fit" in found.reason


def test_nothing_held_out_says_so() -> None:
    result = compare([])
    assert not result.promoted
    assert "too few" in result.reason


def test_what_nobody_reviewed_does_not_count(truth: ReviewedImage) -> None:
    known = np.zeros(truth.known.shape, bool)
    known[:, :110] = True
    nothing = replace(truth, labels=np.zeros_like(truth.labels), known=known)
    limited = limit_to_known(truth.labels, nothing)
    assert not limited[:, 110:].any()
    kept = set(np.unique(limited)) - {0}
    for k in np.unique(truth.labels)[1:]:
        inside = known[truth.labels == k].mean()
        assert (k in kept) == (inside >= 0.5)


def test_a_reviewed_nucleus_merged_with_one_that_nobody_reviewed_is_wrong() -> None:
    labels = np.zeros((40, 80), np.int32)
    labels[10:30, 10:30] = 1
    known = np.zeros(labels.shape, bool)
    known[5:35, 5:35] = True
    truth = replace(
        review_image("a", np.zeros((40, 80, 3), np.uint8), labels), known=known
    )
    merged, longer, beside = np.zeros((3, *labels.shape), np.int32)
    merged[10:30, 10:50] = 7
    # less than half of it is known
    longer[10:30, 10:70] = 7
    beside[10:30, 29:39] = 3
    for prediction in (merged, longer):
        np.testing.assert_array_equal(limit_to_known(prediction, truth), prediction)
    # of one beside it nobody knows how it goes on
    np.testing.assert_array_equal(
        limit_to_known(beside, truth), np.where(known, beside, 0)
    )
    scores = evaluate_labels(limit_to_known(merged, truth), labels)
    assert scores.aji == pytest.approx(0.5)


def test_the_same_seed_gives_the_same_intervals(truth: ReviewedImage) -> None:
    one = Compared(truth, without(truth.labels, range(1, 9)), truth.labels)
    assert compare([one], seed=3) == compare([one], seed=3)
    assert compare([one], seed=3) != compare([one], seed=4)
