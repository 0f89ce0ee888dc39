"""What ships is as good on real images as when it was trained, within chance.

A few images: a change that costs accuracy alone shows here, and by how much is for
``benchmarks/accuracy.py`` to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from skimage import data

from napari_sac.core.datasets.pairs import find_pairs, load_pair
from napari_sac.core.evaluation.metrics import evaluate_labels, mean_scores
from napari_sac.core.inference.segment import segment_image
from napari_sac.core.io import normalise_image
from napari_sac.core.models.registry import load_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "begins", "adapter", "floor"),
    [
        # three of fluorescence and one of stained tissue, of the validation images
        (
            "dsb2018",
            ("0287e7ee", "5cc036b6", "ea00f5a9", "2255d5ab"),
            None,
            {"dice": 0.88, "aji": 0.71, "ap50": 0.75, "ap": 0.48},
        ),
        (
            "monuseg2018",
            ("TCGA-18-5592", "TCGA-49-4488", "TCGA-B0-5710"),
            "he",
            {"dice": 0.77, "aji": 0.55, "ap50": 0.55, "ap": 0.25},
        ),
    ],
)
def test_real_images_are_segmented_as_well_as_before(
    data_folder: Path,
    folder: str,
    begins: tuple[str, ...],
    adapter: str | None,
    floor: dict[str, float],
) -> None:
    model = load_model("sac_tiny", adapter=adapter, device="cpu")
    place = data_folder / folder
    pairs = [
        pair
        for pair in find_pairs(place / "images", place / "labels")
        if pair.name.startswith(begins)
    ]
    assert len(pairs) == len(begins)
    scores = []
    for pair in pairs:
        loaded = load_pair(pair)
        part = np.s_[:320, :320]
        image = normalise_image(loaded.image)[part]
        truth = loaded.labels[part].astype(np.int32)
        scores.append(evaluate_labels(segment_image(image, model).labels, truth))
    found = mean_scores(scores)
    for name, least in floor.items():
        assert getattr(found, name) > least, found


def test_nuclei_in_brown_glands_are_found_with_the_adapter_for_them() -> None:
    """A gland of scikit-image's picture, with some forty nuclei in its cells."""
    gland = normalise_image(data.immunohistochemistry()[305:505, 245:390])
    found = {}
    for adapter in (None, "ihc"):
        model = load_model("sac_tiny", adapter=adapter, device="cpu")
        found[adapter] = segment_image(gland, model, diameter=13.0)
    with_it = found["ihc"].labels
    assert len(np.unique(with_it)) - 1 > 30
    assert len(np.unique(found[None].labels)) - 1 < 10
    # nuclei are bluer than the brown between them
    red, _, blue = np.moveaxis(gland.astype(float), -1, 0)
    inside, brown = with_it > 0, (with_it == 0) & (red > blue + 40)
    assert (blue - red)[inside].mean() > (blue - red)[brown].mean() + 40
