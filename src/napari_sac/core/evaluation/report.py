"""The scores of a folder of label files against another, as a table and as JSON."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

from napari_sac.core.datasets.pairs import label_files, pair_by_stem, told_apart
from napari_sac.core.errors import LabelFormatError
from napari_sac.core.evaluation.metrics import (
    METRIC_NAMES,
    ImageScores,
    evaluate_labels,
    mean_scores,
)
from napari_sac.core.io import atomic_path, read_labels
from napari_sac.core.progress import Progress, ignore_progress


@dataclass(frozen=True)
class Report:
    """The scores of several images and their mean.

    Parameters
    ----------
    images : mapping of str to ImageScores
        By stem of the truth file.
    mean : ImageScores
        Over images, each counting the same whatever its number of nuclei.
    """

    images: Mapping[str, ImageScores]
    mean: ImageScores


def evaluate_folders(
    prediction_dir: str | Path,
    truth_dir: str | Path,
    progress: Progress = ignore_progress,
) -> Report:
    """Return the scores of predicted label files against the true ones.

    Files pair by stem; a prediction may have ``_labels`` after it, as ``segment``
    writes it.

    Parameters
    ----------
    prediction_dir, truth_dir : str or Path
        Folders of TIFF or PNG labels.
    progress : Progress, optional
        Called after each image.

    Raises
    ------
    LabelFormatError
        If a folder has no label files, a file has no partner, cannot be read, or the
        two of a pair differ in size. Where both folders are the same, predictions are
        the files whose name ends in ``_labels``.
    """
    truths, predictions = label_files(truth_dir), label_files(prediction_dir)
    if os.path.samefile(truth_dir, prediction_dir):
        truths, predictions = told_apart(truths, predictions)
    pairs = pair_by_stem(truths, predictions, ("truth", "prediction"))
    scores = {}
    for i, (truth, prediction) in enumerate(pairs, start=1):
        scores[truth.stem] = _evaluate_files(prediction, truth)
        progress("evaluating", i, len(pairs))
    return Report(images=scores, mean=mean_scores(list(scores.values())))


def to_json(report: Report) -> str:
    """Return ``{"images": {stem: scores}, "mean": scores, "n": number of images}``."""
    content = {
        "images": {name: asdict(scores) for name, scores in report.images.items()},
        "mean": asdict(report.mean),
        "n": len(report.images),
    }
    return json.dumps(content, indent=2) + "\n"


def write_json(path: str | Path, report: Report) -> None:
    """Write the report as JSON, atomically.

    Raises
    ------
    OutputError
        If the file cannot be written; what was there before is kept.
    """
    with atomic_path(path) as partial:
        partial.write_text(to_json(report), encoding="utf-8")


def format_table(report: Report) -> str:
    """Return the report as lines of text: one an image, the mean last."""
    rows = [*report.images.items(), (f"mean of {len(report.images)}", report.mean)]
    width = max(len("image"), *(len(name) for name, _ in rows))
    lines = [f"{'image':<{width}}" + "".join(f"{m:>7}" for m in METRIC_NAMES)]
    lines += [
        f"{name:<{width}}" + "".join(f"{value:>7.3f}" for value in astuple(scores))
        for name, scores in rows
    ]
    return "\n".join(lines) + "\n"


def _evaluate_files(prediction: Path, truth: Path) -> ImageScores:
    predicted, true = read_labels(prediction), read_labels(truth)
    if predicted.shape != true.shape:
        raise LabelFormatError(
            f"{prediction} and {truth} differ in size: {predicted.shape} against "
            f"{true.shape} (height, width). Labels compare pixel by pixel; "
            "segment the image at the size that the truth has."
        )
    return evaluate_labels(predicted, true)
