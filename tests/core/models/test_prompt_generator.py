"""The prompt generator's network."""

from __future__ import annotations

import pytest
import torch

from napari_sac.core.models.prompt_generator import (
    GENERATOR_STRIDE,
    PromptGenerator,
)


@pytest.fixture
def generator() -> PromptGenerator:
    torch.manual_seed(0)
    network = PromptGenerator((4, 4, 4, 4))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def test_two_maps_of_the_input_size(generator: PromptGenerator) -> None:
    with torch.inference_mode():
        assert generator(torch.zeros(2, 3, 32, 48)).shape == (2, 2, 32, 48)


def test_nothing_beyond_the_receptive_radius_changes_a_pixel(
    generator: PromptGenerator,
) -> None:
    radius = generator.receptive_radius()
    assert radius % GENERATOR_STRIDE == 0
    size = 2 * radius + 3 * GENERATOR_STRIDE
    image = torch.rand(1, 3, 16, size)
    changed = image.clone()
    changed[..., :GENERATOR_STRIDE] = torch.rand(1, 3, 16, GENERATOR_STRIDE) + 5
    with torch.inference_mode():
        difference = (generator(image) - generator(changed)).abs().amax((0, 1, 2))
    beyond = GENERATOR_STRIDE + radius
    assert float(difference[beyond:].max()) == 0
    assert float(difference[:beyond].max()) > 0
