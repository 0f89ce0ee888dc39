"""The whole way, on every kind of image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from synthetic import Nuclei, build_tiny_model

from napari_sac.core.config import DecodeConfig
from napari_sac.core.inference.segment import segment_image
from napari_sac.core.io import normalise_image

if TYPE_CHECKING:
    from napari_sac.core.models.registry import Model


def test_every_prompted_nucleus_is_reported(disc_model: Model, nuclei: Nuclei) -> None:
    keep_all = DecodeConfig(minimum_iou=0, overlap_threshold=1)
    result = segment_image(nuclei.image, disc_model, decode_config=keep_all)
    assert result.labels.shape == nuclei.labels.shape
    assert len(result.prompts) == 12
    assert [m.object_id for m in result.masks] == list(range(1, 13))
    assert set(result.seconds) == {"proposals", "embedding", "decoding", "instances"}
    assert result.diameter == pytest.approx(20, rel=0.2)


def test_the_same_image_gives_the_same_labels(
    disc_model: Model, nuclei: Nuclei
) -> None:
    first = segment_image(nuclei.image, disc_model)
    second = segment_image(nuclei.image, disc_model)
    np.testing.assert_array_equal(first.labels, second.labels)


def test_semantic_mode_is_one_binary_mask(disc_model: Model, nuclei: Nuclei) -> None:
    result = segment_image(
        nuclei.image, disc_model, decode_config=DecodeConfig(mode="semantic")
    )
    assert set(np.unique(result.labels)) <= {0, 1}
    assert result.masks == ()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 1), np.uint8),
        np.full((30, 30), 7, np.uint16),
        np.full((30, 30), np.nan),
        np.full((30, 40, 3), np.inf, np.float32),
        np.zeros((300, 2), bool),
        np.zeros((20, 20, 4), np.uint8),
    ],
    ids=["1x1", "constant", "nan", "inf", "thin", "rgba"],
)
def test_images_without_nuclei_give_none(
    tiny_model: Model, image: npt.NDArray[np.generic]
) -> None:
    model = replace(build_tiny_model(), generator=tiny_model.generator)
    result = segment_image(normalise_image(image), model, diameter=10)
    assert result.labels.shape == image.shape[:2]
    assert result.labels.max(initial=0) <= len(result.prompts)
