"""What a step takes of the memory."""

from __future__ import annotations

import torch
from torch import nn

from napari_sac.core.device import select_device
from napari_sac.core.training.memory import measure_memory


def test_weights_that_are_there_already_are_not_counted() -> None:
    layer = nn.Linear(1000, 1000, bias=False).requires_grad_(False)
    pixels = torch.ones(2, 1000, requires_grad=True)

    def step() -> None:
        (layer(pixels) ** 2).sum().backward()

    device = select_device("cpu")
    frozen = measure_memory(device, list(layer.parameters()), step)
    kept = 2 * 1000 * 4
    assert kept <= frozen < 10 * kept
    layer.requires_grad_(True)
    learning = measure_memory(device, list(layer.parameters()), step)
    of_optimizer = 4 * 1000 * 1000 * 4
    assert of_optimizer < learning < of_optimizer + 10 * kept
