"""Time the stages from an image to labels, after one run to warm up.

::

    python benchmarks/speed.py IMAGE --adapter he
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

from napari_sac.core.inference.segment import segment_image
from napari_sac.core.io import normalise_image, read_image
from napari_sac.core.models.registry import load_model


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("--model", default="sac_tiny")
    parser.add_argument("--adapter")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=3)
    parsed = parser.parse_args()
    start = time.perf_counter()
    model = load_model(parsed.model, adapter=parsed.adapter, device=parsed.device)
    out = sys.stdout.write
    out(f"{model.device.title}, torch {torch.__version__}\n")
    out(f"loading the model  {time.perf_counter() - start:6.2f} s\n")
    image = normalise_image(read_image(parsed.image))
    segment_image(image, model)
    results = [segment_image(image, model) for _ in range(parsed.repeats)]
    for stage in results[0].seconds:
        value = statistics.median(r.seconds[stage] for r in results)
        out(f"{stage:<18} {value:6.2f} s\n")
    total = statistics.median(sum(r.seconds.values()) for r in results)
    height, width = image.shape[:2]
    out(f"{'together':<18} {total:6.2f} s for {height} x {width} pixels, ")
    out(f"{len(results[0].prompts)} prompts\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
