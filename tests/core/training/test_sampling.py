"""Crops and prompts for training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import draw_nuclei

from napari_sac.core.training.sampling import (
    Crops,
    TrainingImage,
    draw_crops,
    draw_prompts,
    prepare_image,
)


@pytest.fixture
def prepared() -> TrainingImage:
    nuclei = draw_nuclei((120, 150), count=8, radius=9)
    return prepare_image(nuclei.image, nuclei.labels, 24.0)


def test_images_are_brought_to_the_models_scale(prepared: TrainingImage) -> None:
    areas = np.bincount(prepared.labels.numpy().ravel())[1:]
    diameter = 2 * np.sqrt(np.median(areas) / np.pi)
    assert diameter == pytest.approx(24, abs=1)
    assert prepared.image.shape[1:] == prepared.labels.shape
    assert prepared.labels.max() == 8


def test_an_image_without_nuclei_keeps_its_size() -> None:
    empty = prepare_image(
        np.zeros((30, 40, 3), np.uint8), np.zeros((30, 40), int), 24.0
    )
    assert empty.labels.shape == (30, 40)


def test_image_labels_and_distance_stay_aligned(prepared: TrainingImage) -> None:
    """Nuclei are bright in the drawing: so in every turned, zoomed crop too."""
    crops = draw_crops([prepared], 12, 96, np.random.default_rng(0))
    assert crops.image.shape == (12, 3, 96, 96)
    assert crops.image.min() >= 0
    assert crops.image.max() <= 255
    for image, labels, distance in zip(
        crops.image, crops.labels, crops.distance, strict=True
    ):
        inside = labels > 0
        if not inside.any() or inside.all():
            continue
        grey = image.mean(0)
        contrast = (grey[inside].mean() - grey[~inside].mean()).abs()
        assert contrast > 20
        assert distance[inside].mean() > distance[~inside].mean() + 0.2


def test_distance_is_over_the_maximum_of_what_the_crop_shows(
    prepared: TrainingImage,
) -> None:
    crops = draw_crops([prepared], 12, 48, np.random.default_rng(0))
    for labels, distance in zip(crops.labels, crops.distance, strict=True):
        for number in labels.unique().tolist():
            if number and (labels == number).sum() > 20:
                assert distance[labels == number].max() == pytest.approx(1.0)


def test_outside_the_image_is_known_background_of_the_padding_value() -> None:
    small = prepare_image(
        np.full((20, 20, 3), 250, np.uint8), np.ones((20, 20), int), 20.0
    )
    crops = draw_crops([small], 4, 96, np.random.default_rng(0))
    corner = (slice(None), slice(0, 4), slice(0, 4))
    assert (crops.labels[corner] == 0).all()
    assert crops.known[corner].all()
    assert (crops.image[:, :, :4, :4] == 127.5).all()


def test_the_same_seed_draws_the_same(prepared: TrainingImage) -> None:
    first, second = (
        draw_crops([prepared], 3, 64, np.random.default_rng(7)) for _ in range(2)
    )
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.labels, second.labels)


def test_prompts_lie_in_what_they_ask_for(prepared: TrainingImage) -> None:
    rng = np.random.default_rng(0)
    crops = draw_crops([prepared], 6, 128, rng)
    prompts = draw_prompts(crops, 16, rng, background=1.0, negatives=1.0)
    for i, label, points, signs in zip(
        prompts.image_index,
        prompts.label,
        prompts.points_yx,
        prompts.signs,
        strict=True,
    ):
        y, x = points[0].long()
        assert crops.labels[i, y, x] == label
        assert signs[0] == 1
        if signs[1] == 0:
            y, x = points[1].long()
            assert crops.labels[i, y, x] not in (0, label)
    assert (prompts.label == 0).any(), "some ask for nothing"
    assert (prompts.signs[:, 1] == 0).any(), "some have a negative"


def test_what_was_not_reviewed_is_not_asked_for() -> None:
    labels = torch.zeros(1, 40, 40, dtype=torch.int64)
    labels[0, 5:15, 5:15], labels[0, 20:35, 20:35] = 1, 2
    known = torch.zeros(1, 40, 40, dtype=torch.bool)
    known[0, :18] = True
    crops = Crops(torch.zeros(1, 3, 40, 40), labels, (labels > 0).float(), known)
    prompts = draw_prompts(crops, 16, np.random.default_rng(0), background=1.0)
    assert set(prompts.label.tolist()) == {0, 1}
    assert (prompts.points_yx[:, 0, 0] < 18).all()
