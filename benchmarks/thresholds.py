"""Try thresholds of proposals and decoding on real images that serve for no test.

::

    python benchmarks/thresholds.py ../shared/data/dsb2018 --split val
    python benchmarks/thresholds.py ../shared/data/monuseg2018 --split train --every 4 \
        --adapter runs/monuseg/run --leave-out runs/monuseg/data/images

Proposals, embeddings and masks are computed once; then only what a threshold changes.
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
from accuracy import names_of_split

from napari_sac.core.config import DecodeConfig, ProposalConfig
from napari_sac.core.datasets.pairs import find_pairs, load_pair
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


@dataclass(frozen=True, eq=False)
class Field:
    """An image of which all is known but the thresholds."""

    truth: npt.NDArray[np.int32]
    prompts: Prompts
    embedding: Embedding


def read_field(pair_image: npt.ArrayLike, truth: npt.ArrayLike, model: Model) -> Field:
    """Return the proposals and the embedding of an image."""
    image = normalise_image(np.asarray(pair_image))
    found = find_proposals(image, model, ProposalConfig())
    scale = embedding_scale(model, found.diameter)
    embedding = embed_image(image, model, scale=scale)
    return Field(np.asarray(truth, np.int32), found.prompts, embedding)


def decode(field: Field, model: Model, *, negatives: bool) -> list[ObjectMask]:
    """Return the masks of all proposals."""
    if len(field.prompts) == 0:
        return []
    state = PromptState.MOVED if negatives else PromptState.AUTO
    prompts = replace(
        field.prompts, state=np.full(len(field.prompts), state.value, "<U8")
    )
    return decode_prompts(field.embedding, prompts, model, DecodeConfig())


def score(
    field: Field, masks: list[ObjectMask], threshold: float, config: DecodeConfig
) -> ImageScores:
    """Return the metrics of an image at these thresholds."""
    prompts = field.prompts.select(field.prompts.score >= threshold)
    shown = set(prompts.object_id.tolist())
    masks = [m for m in masks if m.object_id in shown]
    labels = assemble_labels(masks, field.truth.shape, config, prompts=prompts)
    return evaluate_labels(labels, field.truth)


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
    out = sys.stdout.write
    out("| negatives | score | IoU | overlap | Dice | AJI | AP50 | mean AP |\n")
    out("|---|---|---|---|---|---|---|---|\n")
    for negatives in (True, False):
        decoded = [decode(field, model, negatives=negatives) for field in fields]
        for threshold, minimum, overlap in itertools.product(
            (0.3, 0.5), (0.0, 0.3, 0.4, 0.5, 0.6), (0.4, 0.5)
        ):
            config = DecodeConfig(minimum_iou=minimum, overlap_threshold=overlap)
            x = mean_scores(
                [
                    score(field, masks, threshold, config)
                    for field, masks in zip(fields, decoded, strict=True)
                ]
            )
            out(
                f"| {'yes' if negatives else 'no'} | {threshold} | {minimum} "
                f"| {overlap} | {x.dice:.3f} | {x.aji:.3f} | {x.ap50:.3f} "
                f"| {x.ap:.3f} |\n"
            )
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
