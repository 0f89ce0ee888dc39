"""Measure a model on real images with known truth, and draw what it got wrong.

::

    python benchmarks/accuracy.py ../shared/data/dsb2018 --split test
    python benchmarks/accuracy.py ../shared/data/monuseg2018 --split val --adapter he

Prints the means over images for the decoded masks and, beside them, for the prompt
generator alone (the watershed of its maps). With ``--true-points`` a third row shows
the masks that a person gets who clicks once into the middle of every nucleus: between
it and the first row lies what better prompts could gain. With ``--semantic`` one more
row shows semantic mode, all points in one decoding, by those measures that ask for no
single nuclei. ``--sam`` and ``--generator``
take other weights than the shipped ones. With ``--stain`` that stain of an image alone
is looked at, and images without colours are left out. With ``--brown`` those in colour
are made to look as if they were stained brown, each in its own way, and in every run
the same. ``--overlays DIR`` writes a picture of each image: truth in green, decoded
outlines in magenta, prompts as points.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from skimage.segmentation import find_boundaries

from napari_sac.core.config import STAINS, DecodeConfig, ProposalConfig, Stain
from napari_sac.core.datasets.pairs import find_pairs, load_pair, names_of_split
from napari_sac.core.evaluation.metrics import (
    METRIC_NAMES,
    ImageScores,
    evaluate_labels,
    mean_scores,
)
from napari_sac.core.inference.proposals import find_proposals, generator_labels
from napari_sac.core.inference.segment import (
    Segmentation,
    segment_image,
    segment_points,
)
from napari_sac.core.io import normalise_image
from napari_sac.core.labels import innermost_pixels
from napari_sac.core.models.attention import split_qkv
from napari_sac.core.models.registry import Model, load_model
from napari_sac.core.models.weight_files import read_generator, read_weights
from napari_sac.core.training.brown_stain import stain_brown
from napari_sac.core.training.targets import typical_diameter


def labels_of_generator(
    image: npt.NDArray[np.uint8], model: Model, diameter: float
) -> npt.NDArray[np.int32]:
    """Return what the generator alone sees, at the image's own pixels."""
    config = ProposalConfig()
    maps = find_proposals(image, model, config, diameter=diameter).maps
    regions = generator_labels(maps, config)
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * maps.scale).astype(int), m - 1)
        for n, m in zip(image.shape[:2], regions.shape, strict=True)
    )
    sampled: npt.NDArray[np.int32] = regions[rows][:, columns]
    return sampled


def true_points(truth: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Return the innermost pixel (N, 2) of each nucleus."""
    return innermost_pixels(truth, edge_is_border=False).astype(float)


def with_weights(model: Model, sam: Path | None, generator: Path | None) -> Model:
    """Return the model with the weights of other files, where they are given."""
    if sam is not None:
        state = split_qkv(read_weights(sam))
        model.sam.load_state_dict({k: v.float() for k, v in state.items()})
    if generator is not None:
        model = replace(model, generator=read_generator(generator))
    return model


def draw_overlay(
    image: npt.NDArray[np.uint8], truth: npt.NDArray[np.int32], result: Segmentation
) -> npt.NDArray[np.uint8]:
    """Return the image with outlines of truth and result, and the prompts."""
    zoom = max(1, round(900 / max(image.shape[:2])))
    big = image.repeat(zoom, 0).repeat(zoom, 1).copy()
    for labels, colour in ((truth, (0, 220, 0)), (result.labels, (255, 0, 255))):
        outlines = find_boundaries(
            labels.repeat(zoom, 0).repeat(zoom, 1).astype(np.int64), mode="inner"
        )
        big[outlines] = colour
    for y, x in result.prompts.yx:
        row, column = int((y + 0.5) * zoom), int((x + 0.5) * zoom)
        big[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = (255, 220, 0)
    return big


def seen_image(
    image: npt.NDArray[np.generic],
    truth: npt.NDArray[np.int32],
    stain: Stain | None,
    number: int,
    *,
    brown: bool,
) -> npt.NDArray[np.uint8] | None:
    """Return what is looked at, or None of a grey image where stains are asked for."""
    seen = normalise_image(image)
    if (stain or brown) and (seen == seen[..., :1]).all():
        return None
    if brown:
        seen = stain_brown(seen, truth, np.random.default_rng(number))
    return normalise_image(seen, stain=stain) if stain else seen


def measure(
    image: npt.NDArray[np.uint8],
    truth: npt.NDArray[np.int32],
    model: Model,
    *,
    true_points_too: bool,
    semantic_too: bool,
) -> tuple[Segmentation, dict[str, ImageScores]]:
    """Return the segmentation of an image, and the scores of each way to have one."""
    result = segment_image(image, model)
    regions = labels_of_generator(image, model, result.diameter)
    found = {"decoded": result.labels, "generator alone": regions}
    if true_points_too:
        found["true points"] = segment_points(
            image, true_points(truth), model, diameter=result.diameter
        ).labels
    if semantic_too:
        found["semantic"] = segment_image(
            image,
            model,
            decode_config=DecodeConfig(mode="semantic"),
            diameter=result.diameter,
        ).labels
    return result, {name: evaluate_labels(x, truth) for name, x in found.items()}


def line(name: str, scores: ImageScores) -> str:
    """Return one row of the table."""
    values = "  ".join(f"{getattr(scores, m):6.3f}" for m in METRIC_NAMES)
    return f"{name:<28}{values}"


def parse_arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", default="sac_tiny")
    parser.add_argument("--adapter")
    parser.add_argument("--every", type=int, default=1, help="only each Nth image")
    parser.add_argument("--first", type=int, default=0, help="leave out those before")
    parser.add_argument("--true-points", action="store_true")
    parser.add_argument("--semantic", action="store_true")
    parser.add_argument("--stain", choices=STAINS)
    parser.add_argument("--brown", action="store_true")
    parser.add_argument("--sam", type=Path, help="weight file")
    parser.add_argument("--generator", type=Path, help="weight file")
    parser.add_argument("--overlays", type=Path)
    parser.add_argument("--json", type=Path)
    parsed = parser.parse_args()
    if parsed.adapter and (parsed.sam or parsed.generator):
        # an adapter changes just these: with others it would be measured by half
        parser.error("--adapter cannot be measured with --sam or --generator")
    return parsed


def main() -> int:
    """Run the benchmark."""
    parsed = parse_arguments()
    model = with_weights(
        load_model(parsed.model, adapter=parsed.adapter), parsed.sam, parsed.generator
    )
    names = names_of_split(parsed.folder, parsed.split)
    found = find_pairs(parsed.folder / "images", parsed.folder / "labels")
    pairs = [p for p in found if p.name in names][parsed.first :: parsed.every]
    rows: dict[str, list[ImageScores]] = {}
    size_errors: list[float] = []
    seconds: dict[str, float] = {}
    out = sys.stdout.write
    out(f"{'image':<28}{'  '.join(f'{m:>6}' for m in METRIC_NAMES)}\n")
    for number, pair in enumerate(pairs):
        loaded = load_pair(pair)
        truth = loaded.labels.astype(np.int32)
        image = seen_image(
            loaded.image, truth, parsed.stain, number, brown=parsed.brown
        )
        if image is None:
            continue
        result, measured = measure(
            image,
            truth,
            model,
            true_points_too=parsed.true_points,
            semantic_too=parsed.semantic,
        )
        for name, scores in measured.items():
            rows.setdefault(name, []).append(scores)
        for stage, value in result.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + value
        diameter = typical_diameter(truth)
        if diameter is not None:
            size_errors.append(abs(np.log(result.diameter / diameter)))
        note = f"  d {result.diameter:.1f}, truth {diameter or 0:.1f}"
        out(line(pair.name[:26], measured["decoded"]) + note + "\n")
        sys.stdout.flush()
        if parsed.overlays:
            from skimage.io import imsave

            parsed.overlays.mkdir(parents=True, exist_ok=True)
            picture = draw_overlay(image, truth, result)
            imsave(parsed.overlays / f"{pair.name}.png", picture, check_contrast=False)
    if not size_errors:
        sys.exit(
            f"The split {parsed.split} of {parsed.folder} has no image with nuclei to "
            "measure; with --stain and --brown only images in colour count."
        )
    means = {name: mean_scores(scores) for name, scores in rows.items()}
    semantic = means.pop("semantic", None)
    for name, scores in means.items():
        out(line(name, scores) + "\n")
    if semantic:
        out(f"{'semantic':<28}dice {semantic.dice:.3f}, iou {semantic.iou:.3f}\n")
    out(
        f"nucleus size: {np.mean(size_errors):.1%} off in the mean, "
        f"{np.max(size_errors):.1%} at most\n"
    )
    spent = ", ".join(f"{stage} {value:.1f}" for stage, value in seconds.items())
    out(f"{len(rows['decoded'])} images; seconds: {spent}\n")
    if parsed.json:
        record = {
            name: {m: getattr(s, m) for m in METRIC_NAMES} for name, s in means.items()
        }
        parsed.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
