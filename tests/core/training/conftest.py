"""A model of milliseconds in the place of the registered ones, and reviewed images."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pytest
from skimage.io import imsave
from synthetic import build_tiny_model, draw_nuclei

from napari_sac.core.models.registry import Model
from napari_sac.core.training.reviewed_image import ReviewedImage, review_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHA256 = "ab" * 32


@pytest.fixture
def reviewed() -> tuple[ReviewedImage, ...]:
    """Four drawn images with six nuclei each."""
    drawn = [draw_nuclei((90, 100), 6, 9, seed) for seed in range(4)]
    return tuple(
        review_image(f"field_{i}", d.image, d.labels) for i, d in enumerate(drawn)
    )


@pytest.fixture
def labelled_folder(tmp_path: Path) -> Path:
    """A folder with two drawn images and their labels, all for training."""
    folder = tmp_path / "data"
    for seed in range(2):
        drawn = draw_nuclei((80, 90), 5, 8, seed)
        for part, pixels in (
            ("images", drawn.image),
            ("labels", drawn.labels.astype(np.uint16)),
        ):
            (folder / part).mkdir(parents=True, exist_ok=True)
            imsave(folder / part / f"{seed}.png", pixels, check_contrast=False)
    return folder


@pytest.fixture
def tiny_registry(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Model]:
    """Have fine-tuning load the tiny model, the same each time."""
    original = build_tiny_model()

    def load(name: str = "sac_tiny", **_: object) -> Model:
        model = copy.deepcopy(original)
        return Model(model.spec, model.sam, model.generator, model.device, None, name)

    place = "napari_sac.core.training.run"
    monkeypatch.setattr(f"{place}.load_model", load)
    monkeypatch.setattr(f"{place}.weights_sha256", lambda _: SHA256)
    return load
