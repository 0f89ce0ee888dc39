"""Time what happens after a click: from the edited prompts to the new labels.

::

    python benchmarks/interaction.py
    python benchmarks/interaction.py --quick --json interaction.json

A tile of drawn nuclei is embedded and decoded once and then laid side by side, until
there are so many prompts as asked for. Each click is an edit of one nucleus: a nucleus
added, a negative, a point moved, a nucleus rejected or deleted. The times are those of
the library; what the window adds (layers, drawing) is not among them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from skimage.draw import disk

from napari_sac.core.config import DecodeConfig
from napari_sac.core.inference.embedding import Embedding, embed_image
from napari_sac.core.inference.generator_maps import ForegroundLogits
from napari_sac.core.inference.instances import assemble_labels
from napari_sac.core.inference.live import (
    touched_nuclei,
    update_labels,
)
from napari_sac.core.inference.predictor import decode_prompts, neighbour_reach
from napari_sac.core.inference.tiles import TileAxis
from napari_sac.core.models.registry import Model, load_model
from napari_sac.core.types import NEGATIVE, ObjectMask, Prompts

EDITS = ("add", "negative", "move", "reject", "delete")
PARTS = ("touched", "decode", "draw", "click")
SPACE = 3.0
"""Square diameters of the image for each nucleus."""


@dataclass(frozen=True, eq=False)
class Field:
    """An image with many prompts, decoded."""

    embedding: Embedding
    prompts: Prompts
    masks: dict[int, ObjectMask]
    labels: npt.NDArray[np.uint32]


def draw_tile(
    size: int, diameter: float, count: int, seed: int = 0
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Return a square image of bright discs, and their centres (count, 2)."""
    rng = np.random.default_rng(seed)
    image = rng.normal(40, 6, (size, size))
    taken = np.zeros((size, size), bool)
    centres: list[npt.NDArray[np.float64]] = []
    while len(centres) < count:
        centre = rng.uniform(diameter / 2, size - diameter / 2, 2)
        if taken[disk(centre, 0.55 * diameter, shape=taken.shape)].any():
            continue
        taken[disk(centre, 0.5 * diameter, shape=taken.shape)] = True
        inside = disk(centre, diameter * rng.uniform(0.4, 0.5), shape=taken.shape)
        image[inside] = rng.normal(170, 12, len(inside[0]))
        centres.append(centre)
    grey = np.clip(image, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2), np.array(centres)


def build_field(model: Model, config: DecodeConfig, count: int) -> Field:
    """Return a decoded field of ``count`` prompts: one tile, laid side by side."""
    size = model.spec.architecture.image_size
    diameter = model.spec.nucleus_diameter
    per_tile = min(count, int((size / diameter) ** 2 / SPACE))
    image, centres = draw_tile(size, diameter, per_tile)
    tile = embed_image(image, model, scale=1.0)
    decoded = decode_prompts(tile, Prompts.from_points(centres), model, config)
    side = int(np.ceil(np.sqrt(count / per_tile)))
    origins = tuple(size * i for i in range(side))
    axis = TileAxis(origins, tuple(float(o) for o in origins[1:]))
    corners = [(y, x) for y in origins for x in origins]
    points = np.concatenate([centres + corner for corner in corners])[:count]
    prompts = Prompts.from_points(points, score=0.8)
    masks = {}
    for number, (y, x) in enumerate(corners):
        for mask in decoded:
            object_id = number * per_tile + mask.object_id
            origin = (mask.origin_yx[0] + y, mask.origin_yx[1] + x)
            if object_id <= count:
                masks[object_id] = replace(mask, object_id=object_id, origin_yx=origin)
    shape = (side * size, side * size)
    embedding = Embedding(
        key="tiled",
        model_key=tile.model_key,
        image_shape=shape,
        scale=1.0,
        rows=axis,
        columns=axis,
        features=tile.features.repeat(len(corners), 1, 1, 1),
        foreground=ForegroundLogits(np.tile(tile.foreground.logits, (side, side)), 1.0),
    )
    labels = assemble_labels(masks.values(), shape, config, prompts=prompts)
    return Field(embedding, prompts, masks, labels)


def edit(field: Field, action: str, rng: np.random.Generator) -> Prompts:
    """Return the prompts after one click somewhere in the field."""
    prompts = field.prompts
    row = int(rng.integers(len(prompts)))
    if action in ("add", "negative"):
        new = action == "add"
        point = Prompts.from_points(
            rng.uniform(0, field.labels.shape) if new else prompts.yx[row] + (9, 5),
            object_id=prompts.object_id.max() + 1 if new else prompts.object_id[row],
            sign=1 if new else NEGATIVE,
            state="added",
        )
        return Prompts.concatenate([prompts, point])
    if action == "delete":
        return prompts.select(np.arange(len(prompts)) != row)
    state, yx = prompts.state.copy(), prompts.yx.copy()
    state[row] = {"move": "moved", "reject": "rejected"}[action]
    if action == "move":
        yx[row] += (3, -2)
    return replace(prompts, state=state, yx=yx)


def time_click(
    field: Field,
    model: Model,
    config: DecodeConfig,
    after: Prompts,
) -> dict[str, float]:
    """Return the seconds of each part; ``click`` is touched, decode and draw."""
    reach = neighbour_reach(field.embedding, model)
    start = time.perf_counter()
    touched = touched_nuclei(field.prompts, after, config, reach)
    found = time.perf_counter()
    update_labels(
        field.labels,
        field.masks,
        field.embedding,
        after,
        model,
        config,
        touched=touched,
    )
    end = time.perf_counter()
    decode_prompts(
        field.embedding, after, model, config, reuse=field.masks, only=touched
    )
    decoded = time.perf_counter()
    return {
        "touched": found - start,
        "decode": decoded - end,
        "draw": max(0.0, (end - found) - (decoded - end)),
        "click": end - start,
    }


def measure(
    model: Model, config: DecodeConfig, count: int, clicks: int
) -> dict[str, list[float]]:
    """Return the milliseconds of each part for every click."""
    field = build_field(model, config, count)
    rng = np.random.default_rng(count)
    times: dict[str, list[float]] = {part: [] for part in PARTS}
    for i in range(-len(EDITS), clicks):
        after = edit(field, EDITS[i % len(EDITS)], rng)
        seconds = time_click(field, model, config, after)
        if i < 0:  # to warm up
            continue
        for part in PARTS:
            times[part].append(1000 * seconds[part])
    return times


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="sac_tiny")
    parser.add_argument("--adapter")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--prompts", type=int, nargs="+", default=[100, 1000, 2000, 10000]
    )
    parser.add_argument("--clicks", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="25 clicks each")
    parser.add_argument("--json", type=Path)
    parsed = parser.parse_args()
    model = load_model(parsed.model, adapter=parsed.adapter, device=parsed.device)
    clicks = 25 if parsed.quick else parsed.clicks
    out = sys.stdout.write
    out(f"{model.device.title}, {torch.get_num_threads()} threads, ")
    out(f"torch {torch.__version__}; milliseconds, median / 95th percentile\n\n")
    out("| prompts | " + " | ".join(PARTS) + " |\n")
    out("|---" * (len(PARTS) + 1) + "|\n")
    record = {}
    for count in parsed.prompts:
        times = measure(model, DecodeConfig(), count, clicks)
        values = {
            part: {
                "median": float(np.median(t)),
                "p95": float(np.percentile(t, 95)),
            }
            for part, t in times.items()
        }
        cells = [f"{v['median']:.1f} / {v['p95']:.1f}" for v in values.values()]
        out(f"| {count:,} | " + " | ".join(cells) + " |\n")
        sys.stdout.flush()
        record[str(count)] = values
    if parsed.json:
        parsed.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
