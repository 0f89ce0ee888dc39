"""Losses are small for the truth, large for its opposite, blind to the unknown."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_sac.core.training.losses import (
    IOU_WEIGHT,
    generator_loss,
    mask_loss,
    mask_targets,
    small_nuclei_weight,
)
from napari_sac.core.training.sampling import Crops, PromptBatch


@pytest.fixture
def crops() -> Crops:
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    labels[0, 4:14, 4:14], labels[0, 18:28, 4:14] = 1, 2
    return Crops(
        image=torch.zeros(1, 3, 32, 32),
        labels=labels,
        distance=(labels > 0).float(),
        known=torch.ones(1, 32, 32, dtype=torch.bool),
    )


def maps_of(crops: Crops) -> torch.Tensor:
    truth = (crops.labels > 0).float()
    return torch.stack([truth * 20 - 10, truth * 20 - 10], dim=1)


def test_generator_loss_prefers_the_truth(crops: Crops) -> None:
    right = maps_of(crops)
    assert generator_loss(right, crops) < 0.05
    assert generator_loss(-right, crops) > 5


def test_generator_loss_ignores_the_unknown(crops: Crops) -> None:
    known = crops.known.clone()
    known[0, 16:] = False
    partial = replace(crops, known=known)
    right = maps_of(crops)
    wrong_there = right.clone()
    wrong_there[:, :, 16:] *= -1
    assert generator_loss(wrong_there, partial) == generator_loss(right, partial)


def test_a_rejected_proposal_counts_more_than_other_background(crops: Crops) -> None:
    hard = torch.zeros_like(crops.known)
    hard[0, 20:26, 20:26] = True
    rejected = replace(crops, hard=hard)
    false = maps_of(crops)
    false[:, :, 20:26, 20:26] *= -1
    elsewhere = maps_of(crops)
    elsewhere[:, :, 4:10, 20:26] *= -1
    there = generator_loss(false, rejected)
    assert there > 1.5 * generator_loss(elsewhere, rejected)
    assert there > 1.5 * generator_loss(false, crops)


def test_balanced_a_small_nucleus_counts_more(crops: Crops) -> None:
    labels = torch.zeros_like(crops.labels)
    labels[0, 2:30, 2:20], labels[0, 24:28, 24:28] = 1, 2
    uneven = replace(crops, labels=labels, distance=(labels > 0).float())
    weight = small_nuclei_weight(labels)
    assert weight[0, 0, 0] == weight[0, 5, 5] == 1
    assert weight[0, 25, 25] == 2.5
    missed = maps_of(uneven)
    missed[:, :, 24:28, 24:28] *= -1
    plain, balanced = (
        generator_loss(missed, uneven, balanced=b) for b in (False, True)
    )
    assert balanced > 1.5 * plain


def test_mask_targets_show_one_nucleus_in_its_window(crops: Crops) -> None:
    prompts = PromptBatch(
        torch.tensor([0, 0]),
        torch.tensor([1, 0]),
        torch.tensor([[[8.0, 8.0]], [[30.0, 30.0]]]),
        torch.ones(2, 1, dtype=torch.int64),
    )
    origins = torch.tensor([[0, 0], [16, 16]])
    truth, valid, others = mask_targets(crops, prompts, origins, 16, 2)
    assert truth.shape == (2, 8, 8)
    assert truth[0].sum() * 4 == 100
    assert truth[1].sum() == 0, "a prompt on the background asks for nothing"
    assert valid.all()
    assert others[0].sum() == 0
    assert not (truth * others).any()
    prompts = replace(prompts, label=torch.tensor([2, 0]))
    _, _, others = mask_targets(crops, prompts, origins, 16, 2)
    assert others[0].sum() * 4 == 100, "of another prompt it is another nucleus"


def test_of_a_reviewed_nucleus_all_is_known(crops: Crops) -> None:
    prompts = PromptBatch(
        torch.tensor([0, 0]),
        torch.tensor([1, 0]),
        torch.tensor([[[8.0, 8.0]], [[8.0, 8.0]]]),
        torch.ones(2, 1, dtype=torch.int64),
    )
    known = torch.zeros_like(crops.known)
    known[0, :16, :16] = True
    sparse = replace(crops, known=known)
    _, valid, _ = mask_targets(sparse, prompts, torch.zeros(2, 2).long(), 32, 2)
    assert valid[0].all(), "a neighbour that nobody reviewed is not this nucleus"
    assert valid[1].sum() * 4 == 256, "where nothing was reviewed there may be one"


def test_a_mask_that_flows_into_its_neighbour_costs_more() -> None:
    truth, others = torch.zeros(2, 1, 8, 8)
    truth[0, 1:7, 1:4] = 1
    others[0, 1:7, 4:7] = 1
    valid = torch.ones_like(truth)
    into_neighbour = torch.zeros_like(truth)
    into_neighbour[0, 1:7, 1:7] = 1
    logits = into_neighbour * 20 - 10
    iou = torch.full((1,), 0.5)
    plain, _ = mask_loss(logits, iou, truth, valid)
    taught, _ = mask_loss(logits, iou, truth, valid, others)
    assert taught > 1.2 * plain
    right, _ = mask_loss(truth * 20 - 10, torch.ones(1), truth, valid, others)
    assert right < 0.05


def test_mask_loss_is_small_for_the_truth_and_its_iou() -> None:
    truth = torch.zeros(1, 8, 8)
    truth[0, 2:6, 2:6] = 1
    logits = truth * 20 - 10
    valid = torch.ones_like(truth)
    good, iou = mask_loss(logits, torch.ones(1), truth, valid)
    assert iou.tolist() == [1]
    assert good < 0.05
    misjudged, _ = mask_loss(logits, torch.zeros(1), truth, valid)
    assert misjudged - good == pytest.approx(IOU_WEIGHT, abs=1e-4)
    wrong, iou = mask_loss(-logits, torch.zeros(1), truth, valid)
    assert iou.tolist() == [0]
    assert wrong > 5
