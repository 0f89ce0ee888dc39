"""Folders of label files: pairing, the JSON that scripts read, the table."""

import json

import numpy as np
import pytest

from napari_sac.core.errors import Cancelled, LabelFormatError, OutputError
from napari_sac.core.evaluation.metrics import METRIC_NAMES, evaluate_labels
from napari_sac.core.evaluation.report import (
    evaluate_folders,
    format_table,
    to_json,
    write_json,
)
from napari_sac.core.io import write_labels

TRUTH = np.array([[1, 1, 0, 2, 2]])
PREDICTION = np.array([[1, 1, 0, 0, 0]])


@pytest.fixture
def folders(tmp_path):
    """Return a folder of predictions as ``segment`` names them, and one of truths."""
    prediction, truth = tmp_path / "prediction", tmp_path / "truth"
    for stem in ("a", "b"):
        write_labels(truth / f"{stem}.tif", TRUTH)
    write_labels(prediction / "a_labels.tif", TRUTH)
    write_labels(prediction / "b_labels.tif", PREDICTION)
    (prediction / "a_prompts.csv").write_text("not labels")
    return prediction, truth


def test_scores_of_each_image_and_their_mean(folders):
    report = evaluate_folders(*folders)

    assert list(report.images) == ["a", "b"]
    assert report.images["b"] == evaluate_labels(PREDICTION, TRUTH)
    assert report.mean.ap50 == pytest.approx((1 + 0.5) / 2)


def test_prediction_and_truth_are_not_mixed_up(folders):
    prediction, truth = folders
    write_labels(prediction / "a_labels.tif", np.array([[1, 2, 0, 3, 3]]))

    # One truth becomes two halves: AJI is 3 / (2 + 2 + 1), the other way round 3 / 4.
    report = evaluate_folders(prediction, truth)

    assert report.images["a"].aji == pytest.approx(3 / 5)


def test_one_folder_of_both_compares_no_file_with_itself(folders):
    both, truth = folders
    write_labels(both / "a.tif", TRUTH)
    write_labels(both / "b.tif", TRUTH)
    report = evaluate_folders(both, both.parent / "truth" / ".." / "prediction")
    assert report.images["b"] == evaluate_labels(PREDICTION, TRUTH)
    with pytest.raises(LabelFormatError, match=r"no prediction for a\.tif, b\.tif"):
        evaluate_folders(truth, truth)


def test_json_is_what_scripts_read(folders, tmp_path):
    report = evaluate_folders(*folders)

    write_json(tmp_path / "new" / "scores.json", report)

    content = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert content == json.loads(to_json(report))
    assert set(content) == {"images", "mean", "n"}
    assert content["n"] == 2
    assert set(content["images"]) == {"a", "b"}
    assert tuple(content["mean"]) == METRIC_NAMES
    assert content["images"]["b"]["ap50"] == 0.5


def test_json_that_cannot_be_written_is_an_error(folders, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError, match="could not be written"):
        write_json(tmp_path / "file" / "scores.json", evaluate_folders(*folders))


def test_table_has_a_line_for_each_image_and_ends_with_the_mean(folders):
    lines = format_table(evaluate_folders(*folders)).splitlines()

    assert lines[0].split() == ["image", *METRIC_NAMES]
    assert lines[1].split() == ["a", *["1.000"] * 9]
    assert lines[3].startswith("mean of 2")
    assert len({len(line) for line in lines}) == 1


def test_missing_partners_are_named_both_ways(folders):
    prediction, truth = folders
    (prediction / "b_labels.tif").rename(prediction / "c_labels.tif")

    with pytest.raises(LabelFormatError) as error:
        evaluate_folders(prediction, truth)

    assert "no prediction for b.tif" in str(error.value)
    assert "no truth for c_labels.tif" in str(error.value)


def test_labels_of_different_size_are_named(folders):
    prediction, truth = folders
    write_labels(prediction / "a_labels.tif", TRUTH.T)

    with pytest.raises(LabelFormatError, match=r"a_labels.tif.*\(5, 1\).*\(1, 5\)"):
        evaluate_folders(prediction, truth)


def test_a_damaged_file_is_named(folders):
    prediction, truth = folders
    (prediction / "b_labels.tif").write_bytes(b"II*\0")

    with pytest.raises(LabelFormatError, match=r"b_labels\.tif"):
        evaluate_folders(prediction, truth)


def test_progress_counts_images_and_can_cancel(folders):
    calls = []
    evaluate_folders(*folders, progress=lambda *call: calls.append(call))
    assert calls == [("evaluating", 1, 2), ("evaluating", 2, 2)]

    def cancel(*_):
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        evaluate_folders(*folders, progress=cancel)
