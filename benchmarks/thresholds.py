"""Try thresholds of proposals and decoding on real images that serve for no test.

::

    python benchmarks/thresholds.py ../shared/data/dsb2018 --split val
    python benchmarks/thresholds.py ../shared/data/monuseg2018 --split train --every 4 \
        --adapter runs/monuseg/run --leave-out runs/monuseg/data/images
    python benchmarks/thresholds.py ../shared/data/dsb2018 --split val \
        --weights 0 0.2 0.5 1 2

With ``--weights`` only the weight of the generator in the masks changes (decision
0017), and the last row is the generator alone. Else thresholds are tried: proposals,
embeddings and masks are computed once; then only what a threshold changes.
"negatives" decodes each proposal with its nearest neighbour as a negative, as if a
person had placed them all; else they are decoded freely (decision 0016).
"""

from __future__ import annotations

import argparse
import itertools
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from accuracy import labels_of_generator

from napari_sac.core.config import DecodeConfig, ProposalConfig
from napari_sac.core.datasets.pairs import find_pairs, load_pair, names_of_split
from napari_sac.core.evaluation.metrics import (
    ImageScores,
    evaluate_labels,
    mean_scores,
)
from napari_sac.core.inference.embedding import Embedding, embed_image
from napari_sac.core.inference.instances import assemble_labels
from napari_sac.core.inference.predictor import decode_prompts
from napari_sac.core.inference.proposals import find_proposals
from napari_sac.core.inference.segment import embedding_scale
from napari_sac.core.io import normalise_image
from napari_sac.core.models.registry import Model, load_model
from napari_sac.core.types import ObjectMask, Prompts, PromptState

METRICS = ("Dice", "AJI", "AP50", "mean AP")


@dataclass(frozen=True, eq=False)
class Field:
    """An image of which all is known but the thresholds."""

    image: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.int32]
    diameter: float
    prompts: Prompts
    embedding: Embedding


def read_field(pair_image: npt.ArrayLike, truth: npt.ArrayLike, model: Model) -> Field:
    """Return the proposals and the embedding of an image."""
    image = normalise_image(np.asarray(pair_image))
    found = find_proposals(image, model, ProposalConfig())
    scale = embedding_scale(model, found.diameter)
    embedding = embed_image(image, model, scale=scale)
    truth = np.asarray(truth, np.int32)
    return Field(image, truth, found.diameter, found.prompts, embedding)


def decode(
    field: Field, model: Model, config: DecodeConfig, *, negatives: bool
) -> list[ObjectMask]:
    """Return the masks of all proposals."""
    if len(field.prompts) == 0:
        return []
    state = PromptState.MOVED if negatives else PromptState.AUTO
    prompts = replace(
        field.prompts, state=np.full(len(field.prompts), state.value, "<U8")
    )
    return decode_prompts(field.embedding, prompts, model, config)


def score(
    field: Field, masks: list[ObjectMask], threshold: float, config: DecodeConfig
) -> ImageScores:
    """Return the metrics of an image at these thresholds."""
    prompts = field.prompts.select(field.prompts.score >= threshold)
    shown = set(prompts.object_id.tolist())
    masks = [m for m in masks if m.object_id in shown]
    labels = assemble_labels(masks, field.truth.shape, config, prompts=prompts)
    return evaluate_labels(labels, field.truth)


def row(*cells: object) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(map(str, cells))} |\n"


def numbers(scores: list[ImageScores]) -> list[str]:
    """Return the cells of mean scores."""
    x = mean_scores(scores)
    return [f"{value:.3f}" for value in (x.dice, x.aji, x.ap50, x.ap)]


def sweep_weights(fields: list[Field], model: Model, weights: list[float]) -> None:
    """Print what the generator's weight in the masks changes, and it alone."""
    out = sys.stdout.write
    out(row("weight", *METRICS) + "|---" * 5 + "|\n")
    threshold = ProposalConfig().score_threshold
    for weight in weights:
        config = DecodeConfig(generator_weight=weight)
        scores = [
            score(
                field,
                decode(field, model, config, negatives=False),
                threshold,
                config,
            )
            for field in fields
        ]
        out(row(weight, *numbers(scores)))
        sys.stdout.flush()
    alone = [
        evaluate_labels(labels_of_generator(f.image, model, f.diameter), f.truth)
        for f in fields
    ]
    out(row("generator alone", *numbers(alone)))


def sweep_thresholds(fields: list[Field], model: Model) -> None:
    """Print what the thresholds change."""
    out = sys.stdout.write
    out(row("negatives", "score", "IoU", "overlap", *METRICS) + "|---" * 8 + "|\n")
    for negatives in (True, False):
        decoded = [
            decode(field, model, DecodeConfig(), negatives=negatives)
            for field in fields
        ]
        for threshold, minimum, overlap in itertools.product(
            (0.3, 0.5), (0.0, 0.3, 0.4, 0.5, 0.6), (0.4, 0.5)
        ):
            config = DecodeConfig(minimum_iou=minimum, overlap_threshold=overlap)
            scores = [
                score(field, masks, threshold, config)
                for field, masks in zip(fields, decoded, strict=True)
            ]
            named = "yes" if negatives else "no"
            out(row(named, threshold, minimum, overlap, *numbers(scores)))
            sys.stdout.flush()


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--adapter")
    parser.add_argument("--every", type=int, default=1, help="only each Nth image")
    parser.add_argument(
        "--leave-out", type=Path, help="folder of images that the adapter has learned"
    )
    parser.add_argument(
        "--weights", type=float, nargs="+", help="of the generator in the masks"
    )
    parsed = parser.parse_args()
    model = load_model(adapter=parsed.adapter)
    names = names_of_split(parsed.folder, parsed.split)
    if parsed.leave_out is not None:
        names -= {file.stem for file in parsed.leave_out.iterdir()}
    pairs = find_pairs(parsed.folder / "images", parsed.folder / "labels")
    fields = []
    for pair in [p for p in pairs if p.name in names][:: parsed.every]:
        loaded = load_pair(pair)
        fields.append(read_field(loaded.image, loaded.labels, model))
    if parsed.weights:
        sweep_weights(fields, model, parsed.weights)
    else:
        sweep_thresholds(fields, model)
    return 0


if __name__ == "__main__":
    sys.exit(main())
