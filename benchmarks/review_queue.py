"""Measure whether the review queue finds what is wrong, on images with known truth.

::

    python benchmarks/review_queue.py ../shared/data/monuseg2018 --adapter he
    python benchmarks/review_queue.py ../shared/data/dsb2018

A nucleus is wrong if its IoU with every true one is below 0.5. Prints how many nuclei
get each reason, how many of these are wrong (precision), how many of the wrong ones
have it (recall), and how well the order sorts: the area under the ROC curve is the
chance that a wrong nucleus comes before a right one. Only images of a training split
serve, and of large ones the middle.

``--fit`` prints the weights that a logistic regression finds on every second image;
what is printed else is of the others.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.stats import rankdata

from napari_sac.core.datasets.pairs import find_pairs, load_pair, names_of_split
from napari_sac.core.inference.review import NO_MASK, doubt
from napari_sac.core.inference.segment import Segmentation, segment_image
from napari_sac.core.io import normalise_image
from napari_sac.core.models.registry import Model, load_model

WRONG_IOU = 0.5


@dataclass(frozen=True)
class Nucleus:
    """What the queue says of a nucleus, and whether it is wrong.

    Parameters
    ----------
    doubt : float
    reasons : tuple of str
    qualities : tuple of float
        Predicted IoU, logarithm of the mean logit, score; empty without a mask.
    wrong : bool
    """

    doubt: float
    reasons: tuple[str, ...]
    qualities: tuple[float, ...]
    wrong: bool


def best_ious(
    labels: npt.NDArray[np.uint32], truth: npt.NDArray[np.int32]
) -> dict[int, float]:
    """Return the IoU of each nucleus with the true one that is most like it."""
    found = dict.fromkeys(np.unique(labels[labels != 0]).tolist(), 0.0)
    areas = np.bincount(truth.ravel())
    for object_id in found:
        own = labels == object_id
        shared = np.bincount(truth[own], minlength=len(areas))
        shared[0] = 0
        found[object_id] = float((shared / (areas + own.sum() - shared)).max())
    return found


def judge(result: Segmentation, truth: npt.NDArray[np.int32]) -> list[Nucleus]:
    """Return the nuclei of an image in the order of the queue."""
    masks = {m.object_id: m for m in result.masks}
    table = doubt(masks, result.prompts, result.labels, result.diameter)
    ious = best_ious(result.labels, truth)
    scores = dict(
        zip(
            result.prompts.object_id.tolist(),
            result.prompts.score.tolist(),
            strict=True,
        )
    )
    nuclei = []
    for object_id, how, reasons in zip(
        table.object_id.tolist(), table.doubt.tolist(), table.reasons, strict=True
    ):
        qualities: tuple[float, ...] = ()
        if object_id in ious:
            mask = masks[object_id]
            mean = max(float(mask.logits[mask.logits > 0].mean()), 0.1)
            qualities = (mask.predicted_iou, float(np.log(mean)), scores[object_id])
        wrong = ious.get(object_id, 0.0) < WRONG_IOU
        short = tuple(NO_MASK if r.startswith(NO_MASK) else r for r in reasons)
        nuclei.append(Nucleus(how, short, qualities, wrong))
    return nuclei


def area_under_curve(nuclei: list[Nucleus]) -> float:
    """Return the chance that a wrong nucleus is more doubtful than a right one."""
    ranks = rankdata([n.doubt for n in nuclei])
    wrong = np.array([n.wrong for n in nuclei])
    count, others = wrong.sum(), (~wrong).sum()
    return float((ranks[wrong].sum() - count * (count + 1) / 2) / (count * others))


def fit(nuclei: list[Nucleus]) -> npt.NDArray[np.float64]:
    """Return the weights of the qualities, and the bias, of the log odds."""
    seen = [n for n in nuclei if n.qualities]
    table = np.array([[*n.qualities, 1.0] for n in seen])
    wrong = np.array([n.wrong for n in seen], float)

    def loss(weights: npt.NDArray[np.float64]) -> float:
        odds = table @ weights
        return float((np.logaddexp(0, odds) - wrong * odds).sum())

    return np.asarray(minimize(loss, np.zeros(table.shape[1])).x, np.float64)


def report(nuclei: list[Nucleus]) -> None:
    """Print the tables."""
    out = sys.stdout.write
    seen = [n for n in nuclei if n.qualities]
    wrong = sum(n.wrong for n in nuclei)
    out(f"{len(nuclei)} nuclei, {wrong} wrong\n")
    out(
        f"area under the ROC curve: {area_under_curve(nuclei):.3f}; "
        f"without those that have no mask: {area_under_curve(seen):.3f}\n\n"
    )
    out("| reason | nuclei | wrong of them | of all wrong |\n|---|---|---|---|\n")
    names = sorted({r for n in nuclei for r in n.reasons})
    groups = {name: [n for n in nuclei if name in n.reasons] for name in names}
    groups["any"] = [n for n in nuclei if n.reasons]
    groups["none"] = [n for n in nuclei if not n.reasons]
    for name, group in groups.items():
        bad = sum(n.wrong for n in group)
        part = bad / max(1, len(group))
        out(f"| {name} | {len(group)} | {part:.2f} | {bad / max(1, wrong):.2f} |\n")


def read(folder: Path, model: Model, count: int, size: int) -> list[list[Nucleus]]:
    """Return the nuclei of so many training images, spread over the split."""
    names = names_of_split(folder, "train")
    found = find_pairs(folder / "images", folder / "labels")
    pairs = [p for p in found if p.name in names]
    images = []
    for pair in pairs[:: max(1, len(pairs) // count)][:count]:
        loaded = load_pair(pair)
        truth = np.asarray(loaded.labels, np.int32)
        y, x = (max(0, (n - size) // 2) for n in truth.shape)
        window = slice(y, y + size), slice(x, x + size)
        image = normalise_image(np.asarray(loaded.image))[window]
        result = segment_image(np.ascontiguousarray(image), model)
        images.append(judge(result, truth[window]))
    return images


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--adapter")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--size", type=int, default=500, help="pixels of a crop")
    parser.add_argument("--fit", action="store_true")
    parsed = parser.parse_args()
    model = load_model(adapter=parsed.adapter)
    images = read(parsed.folder, model, parsed.images, parsed.size)
    if parsed.fit:
        weights = fit([n for image in images[::2] for n in image])
        sys.stdout.write(f"weights and bias: {weights.round(2).tolist()}\n")
    report([n for image in images[1::2] for n in image])
    return 0


if __name__ == "__main__":
    sys.exit(main())
