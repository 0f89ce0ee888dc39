"""A widened generator gives the same maps, and can then learn more."""

from __future__ import annotations

import pytest
import torch

from napari_sac.core.models.prompt_generator import PromptGenerator
from napari_sac.core.training.growth import widen_generator


@pytest.fixture
def narrow() -> PromptGenerator:
    torch.manual_seed(3)
    generator = PromptGenerator((4, 5, 6, 7))
    # running statistics that are not those of a fresh network
    for _ in range(3):
        generator(2 * torch.randn(2, 3, 32, 32) + 1)
    return generator.eval()


@pytest.mark.parametrize("widths", [(4, 5, 6, 7), (4, 9, 6, 12), (8, 10, 12, 14)])
def test_the_maps_are_the_same(
    narrow: PromptGenerator, widths: tuple[int, ...]
) -> None:
    wide = widen_generator(narrow, widths)
    assert wide.widths == widths
    assert not wide.training
    image = torch.randn(2, 3, 48, 32)
    torch.testing.assert_close(wide(image), narrow(image))


def test_what_was_there_learns_to_hear_what_is_new(narrow: PromptGenerator) -> None:
    wide = widen_generator(narrow, (8, 10, 12, 14))
    wide(torch.randn(2, 3, 32, 32)).square().mean().backward()
    unheard = wide.head.weight[:, 4:]
    assert not unheard.any()
    assert wide.head.weight.grad is not None
    assert wide.head.weight.grad[:, 4:].abs().min() > 0


@pytest.mark.parametrize("widths", [(4, 5, 6, 6), (8, 10, 12)])
def test_no_channel_and_no_level_is_lost(
    narrow: PromptGenerator, widths: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="not wider"):
        widen_generator(narrow, widths)
