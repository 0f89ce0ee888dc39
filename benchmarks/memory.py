"""Measure how much memory finding nuclei takes, beside what is reckoned with.

::

    python benchmarks/memory.py

Prints the highest memory of the process above that before, for a drawn field whose
nuclei need not be resampled, and what ``memory_of_maps`` says, by which images are
refused.
"""

from __future__ import annotations

import argparse
import sys
import threading

import numpy as np
import psutil
import torch
from skimage.draw import disk

from napari_sac.core.config import ProposalConfig
from napari_sac.core.inference.generator_maps import GENERATOR_DIAMETER, memory_of_maps
from napari_sac.core.inference.proposals import find_proposals
from napari_sac.core.models.registry import load_model

_PITCH = 48
"""Pixels from one nucleus to the next."""


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Memory of finding nuclei.")
    parser.add_argument(
        "--side", type=int, default=3072, help="of the field, in pixels"
    )
    parser.add_argument("--strategy", default="centroid")
    parsed = parser.parse_args()
    side, config = parsed.side, ProposalConfig(strategy=parsed.strategy)
    torch.set_num_threads(1)
    cell = np.full((_PITCH, _PITCH, 3), 20, np.uint8)
    cell[disk((_PITCH / 2, _PITCH / 2), GENERATOR_DIAMETER / 2)] = 200
    image = np.tile(cell, (side // _PITCH, side // _PITCH, 1))
    model, process = load_model(device="cpu"), psutil.Process()
    before, highest, over = process.memory_info().rss, 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not over.wait(0.02):
            highest = max(highest, process.memory_info().rss - before)

    watching = threading.Thread(target=watch)
    watching.start()
    found = find_proposals(image, model, config, diameter=GENERATOR_DIAMETER)
    over.set()
    watching.join()
    sys.stdout.write(f"{len(found.prompts)} proposals in {image.shape[:2]}\n")
    reckoned = memory_of_maps((image.shape[0], image.shape[1]), 1.0)
    sys.stdout.write(f"{highest / 1e9:.2f} GB, reckoned {reckoned / 1e9:.2f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
