"""The scores of one image, against cases counted by hand and against the definition."""

import time
from dataclasses import asdict

import numpy as np
import pytest

from napari_sac.core.evaluation.metrics import (
    METRIC_NAMES,
    ImageScores,
    evaluate_labels,
    mean_scores,
)


def test_the_names_that_scripts_rely_on():
    assert METRIC_NAMES == ("dice", "iou", "aji", "pq", "dq", "sq", "ap50", "ap", "f1")


def test_scores_counted_by_hand():
    # Truth 1 has 4 pixels of which prediction 1 finds 3 (IoU 3/4); truth 2 is found
    # wholly; truth 3 (2 pixels) is missed; prediction 9 (1 pixel) is invented.
    truth = np.array([[1, 1, 1, 1, 0, 2, 2, 0, 3, 3, 0, 0]])
    prediction = np.array([[1, 1, 1, 0, 0, 4, 4, 0, 0, 0, 0, 9]])

    scores = evaluate_labels(prediction, truth)

    assert scores.dice == pytest.approx(2 * 5 / (6 + 8))
    assert scores.iou == pytest.approx(5 / 9)
    assert scores.aji == pytest.approx((3 + 2) / (4 + 2 + 2 + 1))
    assert scores.dq == scores.f1 == pytest.approx(2 / 3)
    assert scores.sq == pytest.approx((3 / 4 + 1) / 2)
    assert scores.pq == pytest.approx(2 / 3 * 7 / 8)
    assert scores.ap50 == pytest.approx(2 / 4)
    # Two pairs for the thresholds 0.5 to 0.75, one for the four above.
    assert scores.ap == pytest.approx((6 * 2 / 4 + 4 * 1 / 5) / 10)


def test_half_overlap_counts_for_f1_and_ap_but_not_for_pq():
    truth = np.array([[1, 1]])
    prediction = np.array([[1, 0]])

    scores = evaluate_labels(prediction, truth)

    assert (scores.f1, scores.ap50, scores.ap) == (1, 1, 0.1)
    assert (scores.pq, scores.dq, scores.sq) == (0, 0, 0)


def test_aji_lets_a_prediction_be_taken_twice():
    # One prediction covers two nuclei of 2 pixels and the pixel between them: both take
    # it, so it is in the union twice (AJI+ would count 2 / (5 + 2)).
    truth = np.array([[1, 1, 0, 2, 2]])
    prediction = np.array([[6, 6, 6, 6, 6]])

    assert evaluate_labels(prediction, truth).aji == pytest.approx((2 + 2) / (5 + 5))


def test_aji_takes_the_best_prediction_and_adds_the_others_to_the_union():
    truth = np.array([[1, 1, 1, 1, 1, 0]])
    prediction = np.array([[2, 2, 2, 3, 3, 3]])

    assert evaluate_labels(prediction, truth).aji == pytest.approx(3 / (5 + 3))


@pytest.mark.parametrize("seed", range(5))
def test_aji_agrees_with_its_definition_mask_by_mask(seed):
    rng = np.random.default_rng(seed)
    prediction = _blobs(rng, 25)
    truth = _blobs(rng, 25)

    assert evaluate_labels(prediction, truth).aji == pytest.approx(
        _aji_by_definition(prediction, truth)
    )


def test_the_same_labels_score_one_whatever_the_ids():
    truth = _blobs(np.random.default_rng(1), 20)
    renamed = np.where(truth > 0, truth * 977 + 60_000, 0)

    assert set(asdict(evaluate_labels(renamed, truth)).values()) == {1.0}


def test_two_empty_images_agree_and_one_empty_image_scores_zero():
    empty = np.zeros((4, 4), dtype=np.uint8)
    full = np.ones((4, 4), dtype=np.uint8)

    assert set(asdict(evaluate_labels(empty, empty)).values()) == {1.0}
    assert set(asdict(evaluate_labels(full, empty)).values()) == {0.0}
    assert set(asdict(evaluate_labels(empty, full)).values()) == {0.0}


def test_mean_counts_every_image_the_same():
    one, zero = ImageScores(*[1.0] * 9), ImageScores(*[0.0] * 8, f1=0.5)

    assert mean_scores([one, zero, zero]) == ImageScores(
        *[pytest.approx(1 / 3)] * 8, f1=pytest.approx(2 / 3)
    )
    with pytest.raises(ValueError, match="no images"):
        mean_scores([])


def test_a_megapixel_with_500_nuclei_is_scored_at_once():
    rng = np.random.default_rng(0)
    truth = _blobs(rng, 500, size=1000)
    prediction = np.roll(truth, 2, axis=1)
    evaluate_labels(prediction, truth)

    start = time.perf_counter()
    evaluate_labels(prediction, truth)

    # Takes 5 ms; one mask a nucleus, as the published code has it, takes seconds.
    assert time.perf_counter() - start < 0.2


def _blobs(rng, n, size=64):
    labels = np.zeros((size, size), dtype=np.uint16)
    radius = max(2, size // 80)
    for number, (y, x) in enumerate(rng.integers(0, size, (n, 2)), start=1):
        labels[max(0, y - radius) : y + radius, max(0, x - radius) : x + radius] = (
            number
        )
    return labels


def _aji_by_definition(prediction, truth):
    masks = {int(p): prediction == p for p in np.unique(prediction) if p}
    shared = union = 0
    taken = set()
    for number in np.unique(truth):
        if number == 0:
            continue
        nucleus = truth == number
        iou = {p: (nucleus & m).sum() / (nucleus | m).sum() for p, m in masks.items()}
        best = max(iou, key=iou.get)
        if iou[best] == 0:
            union += nucleus.sum()
            continue
        shared += (nucleus & masks[best]).sum()
        union += (nucleus | masks[best]).sum()
        taken.add(best)
    union += sum(m.sum() for p, m in masks.items() if p not in taken)
    return shared / union
