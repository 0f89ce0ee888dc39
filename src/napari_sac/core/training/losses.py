"""The joint loss: of the prompt generator's maps and of the decoded masks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_sac.core.inference.generator_maps import GENERATOR_DIAMETER

if TYPE_CHECKING:
    from napari_sac.core.training.sampling import Crops, PromptBatch

HARD_WEIGHT = 4.0
"""Extra weight of background where a person rejected a proposal."""

IOU_WEIGHT = 3.0
"""Of the error of the predicted IoU, by which false proposals are dropped."""

TYPICAL_AREA = math.pi / 4 * GENERATOR_DIAMETER**2
"""Of a nucleus at the scale the generator works at, in pixels."""


def generator_loss(maps: Tensor, crops: Crops, *, balanced: bool = False) -> Tensor:
    """Return cross-entropy + Dice of the foreground and the error of the distance.

    Parameters
    ----------
    maps : (B, 2, S, S) float tensor
        Logits, as :class:`~napari_sac.core.models.prompt_generator.PromptGenerator`
        returns them.
    crops : Crops
        The truth; unknown pixels do not count.
    balanced : bool
        Whether a pixel of a small nucleus weighs more, so that a large nucleus beside
        it does not hide it.
    """
    known = crops.known.float()
    foreground = (crops.labels > 0).float()
    size = small_nuclei_weight(crops.labels) if balanced else torch.ones_like(known)
    # a pixel of the gap between two nuclei is rare and decides whether they merge
    gap = 1 + 3 * _gap(crops.labels)
    weight = known * size * gap
    if crops.hard is not None:
        weight = weight + HARD_WEIGHT * known * (1 - foreground) * crops.hard
    logits = maps[:, 0].float()
    entropy = F.binary_cross_entropy_with_logits(logits, foreground, reduction="none")
    entropy = (entropy * weight).sum() / weight.sum().clamp(min=1)
    probability = logits.sigmoid() * known
    dice = _dice_loss(probability.flatten(1), (foreground * known).flatten(1)).mean()
    error = F.smooth_l1_loss(
        maps[:, 1].float().sigmoid(), crops.distance, beta=0.1, reduction="none"
    )
    weight = known * size * gap * (0.3 + foreground)
    if crops.hard is not None:
        weight = weight + known * (1 - foreground) * crops.hard
    distance = (error * weight).sum() / weight.sum().clamp(min=1)
    return entropy + dice + 4 * distance


def mask_loss(
    logits: Tensor,
    predicted_iou: Tensor,
    truth: Tensor,
    valid: Tensor,
    others: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the mean loss of decoded masks, and their true IoU.

    The parameters are those of :func:`mask_losses`.
    """
    losses, true_iou = mask_losses(logits, predicted_iou, truth, valid, others)
    return losses.mean(), true_iou


def mask_losses(
    logits: Tensor,
    predicted_iou: Tensor,
    truth: Tensor,
    valid: Tensor,
    others: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the loss (P,) of each decoded mask, and its true IoU (P,).

    Parameters
    ----------
    logits : (P, h, w) float tensor
    predicted_iou : (P,) float tensor
    truth : (P, h, w) float tensor
        In [0, 1]: the part of each mask pixel that the nucleus covers.
    valid : (P, h, w) float tensor
        1 where the truth is known.
    others : (P, h, w) float tensor, optional
        The part of each mask pixel that other nuclei cover. It weighs as much as the
        nucleus itself then: a mask that flows into its neighbour is a nucleus lost.
    """
    logits = logits.float()
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    near = 0.5 + 2 * (truth > 0).float() * (truth < 1).float() + (truth > 0).float()
    if others is not None:
        near = near + others
    weight = valid * near
    entropy = (entropy * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)
    present = (truth * valid).sum((1, 2)) > 0
    dice = _dice_loss((logits.sigmoid() * valid).flatten(1), (truth * valid).flatten(1))
    with torch.no_grad():
        mask, target = (logits > 0) & (valid > 0), (truth > 0.5) & (valid > 0)
        intersection = (mask & target).sum((1, 2)).float()
        true_iou = intersection / (mask | target).sum((1, 2)).clamp(min=1)
    error = (predicted_iou.float() - true_iou) ** 2
    return 2 * entropy + dice * present + IOU_WEIGHT * error, true_iou


def mask_targets(
    crops: Crops, prompts: PromptBatch, origins: Tensor, side: int, cell: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the truth in each prompt's window, where it is known, and what is beside.

    Of a nucleus that was reviewed all is known: what is not in its label is not of it,
    be it another nucleus that nobody has looked at.

    Parameters
    ----------
    crops : Crops
    prompts : PromptBatch
    origins : (P, 2) int64 tensor
        First pixel (y, x) of each window in its crop.
    side : int
        Side of the windows in pixels.
    cell : int
        Pixels to a mask pixel; ``side`` is a multiple of it.

    Returns
    -------
    truth, valid, others : (P, side / cell, side / cell) float tensors
    """
    steps = torch.arange(side, device=origins.device)
    rows = (origins[:, 0, None] + steps)[:, :, None]
    columns = (origins[:, 1, None] + steps)[:, None, :]
    index = prompts.image_index[:, None, None]
    labels = crops.labels[index, rows, columns]
    inside = (labels == prompts.label[:, None, None]) & (labels > 0)
    reviewed = (prompts.label > 0)[:, None, None]
    known = (crops.known[index, rows, columns] | reviewed).float()
    return (
        F.avg_pool2d(inside.float()[:, None], cell)[:, 0],
        (F.avg_pool2d(known[:, None], cell)[:, 0] > 0.99).float(),
        F.avg_pool2d(((labels > 0) & ~inside).float()[:, None], cell)[:, 0],
    )


def _dice_loss(probability: Tensor, truth: Tensor) -> Tensor:
    """Return 1 - Dice for each row (Milletari et al. 2016)."""
    overlap = 2 * (probability * truth).sum(1)
    return 1 - (overlap + 1) / (probability.sum(1) + truth.sum(1) + 1)


def small_nuclei_weight(labels: Tensor) -> Tensor:
    """Return the weight of each pixel of (B, H, W) labels, from 1 to 2.5.

    It falls with the square root of the nucleus's area in the crop down to 1 at the
    typical area; background weighs 1.
    """
    weights = []
    for one in labels:
        area = torch.bincount(one.ravel().long()).clamp(min=1).float()
        of_label = (TYPICAL_AREA / area).sqrt().clamp(1.0, 2.5)
        of_label[0] = 1.0
        weights.append(of_label[one.long()])
    return torch.stack(weights)


def _gap(labels: Tensor) -> Tensor:
    """Return 1 where two different nuclei lie within 2 pixels of a pixel, else 0."""
    values = labels.float()[:, None]
    highest = F.max_pool2d(values, 5, stride=1, padding=2)
    no_label = torch.where(values > 0, values, torch.full_like(values, torch.inf))
    lowest = -F.max_pool2d(-no_label, 5, stride=1, padding=2)
    return ((highest > lowest) & torch.isfinite(lowest)).float()[:, 0]
