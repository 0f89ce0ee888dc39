"""Our numbers against those of an implementation that others trust.

Not skipped where stardist is missing: the extra ``testing`` has it.
"""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from skimage.segmentation import watershed
from stardist.matching import matching as stardist_matching

from napari_sac.core.evaluation.matching import label_overlap, match
from napari_sac.core.evaluation.metrics import AP_THRESHOLDS, evaluate_labels
from napari_sac.core.io import read_labels

DATA = Path(__file__).parents[4] / "shared" / "data"


def _nuclei(rng, n=40, size=96):
    """Return touching nuclei of many sizes, with gaps in the ids."""
    markers = np.zeros((size, size), dtype=np.int32)
    points = rng.integers(0, size, (n, 2))
    markers[tuple(points.T)] = 3 * np.arange(1, n + 1)
    distance = distance_transform_edt(markers == 0)
    return watershed(distance, markers, mask=distance < rng.uniform(3, 8))


def _cases():
    rng = np.random.default_rng(7)
    for shift in (0, 1, 2, 4):
        truth = _nuclei(rng)
        yield np.roll(truth, shift, axis=0), truth
    yield _nuclei(rng), _nuclei(rng)
    # Halves: many IoU of exactly 0.5, so that which one matches is a real choice.
    truth = np.kron(np.arange(1, 37).reshape(6, 6), np.ones((4, 4), dtype=int))
    yield truth * 2 + (np.indices(truth.shape)[1] % 4 >= 2), truth
    yield np.zeros_like(truth), truth


@pytest.mark.parametrize(("prediction", "truth"), list(_cases()))
def test_matchings_and_scores_agree(prediction, truth):
    scores = evaluate_labels(prediction, truth)
    overlap = label_overlap(prediction, truth)
    reference = stardist_matching(truth, prediction, thresh=AP_THRESHOLDS)

    for threshold, expected in zip(AP_THRESHOLDS, reference, strict=True):
        ours = match(overlap, threshold)
        assert (ours.tp, ours.fp, ours.fn) == (expected.tp, expected.fp, expected.fn)
        assert ours.iou.sum() == pytest.approx(
            expected.mean_matched_score * expected.tp, rel=1e-5
        )
    assert scores.f1 == pytest.approx(reference[0].f1)
    assert scores.ap50 == pytest.approx(reference[0].accuracy)
    assert scores.ap == pytest.approx(np.mean([m.accuracy for m in reference]))


@pytest.mark.parametrize("seed", range(4))
def test_low_thresholds_agree_where_the_choice_is_hard(seed):
    rng = np.random.default_rng(seed)
    prediction, truth = _nuclei(rng), _nuclei(rng)

    for threshold in (0.05, 0.1, 0.3):
        ours = match(label_overlap(prediction, truth), threshold)
        expected = stardist_matching(truth, prediction, thresh=threshold)
        assert (ours.tp, ours.fp, ours.fn) == (expected.tp, expected.fp, expected.fn)


@pytest.mark.parametrize("shift", [0, 1, 2, 4])
def test_panoptic_quality_agrees_where_no_pair_is_at_exactly_one_half(shift):
    truth = _nuclei(np.random.default_rng(shift))
    prediction = np.roll(truth, shift, axis=1)
    assert not (label_overlap(prediction, truth).iou == 0.5).any()

    scores = evaluate_labels(prediction, truth)

    expected = stardist_matching(truth, prediction, thresh=0.5)
    assert scores.pq == pytest.approx(expected.panoptic_quality, rel=1e-5)
    assert scores.sq == pytest.approx(expected.mean_matched_score, rel=1e-5)
    assert scores.dq == pytest.approx(expected.f1)


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data here")
@pytest.mark.parametrize("collection", ["dsb2018", "monuseg2018", "nucls"])
def test_real_labels_agree(collection):
    for path in sorted((DATA / collection / "labels").iterdir())[:4]:
        truth = read_labels(path).astype(np.int64)
        prediction = np.roll(truth, (1, 2), axis=(0, 1))
        reference = stardist_matching(truth, prediction, thresh=AP_THRESHOLDS)

        scores = evaluate_labels(prediction, truth)

        assert scores.ap50 == pytest.approx(reference[0].accuracy)
        assert scores.ap == pytest.approx(np.mean([m.accuracy for m in reference]))
