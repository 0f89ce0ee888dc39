"""A wider prompt generator that begins where a narrower one has arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_sac.core.models.prompt_generator import PromptGenerator

if TYPE_CHECKING:
    from collections.abc import Sequence


def widen_generator(
    generator: PromptGenerator, widths: Sequence[int]
) -> PromptGenerator:
    """Return a generator of more channels that gives the same maps.

    What there was hears nothing from the new channels until training lets it; the new
    channels hear everything, and begin with random weights.

    Parameters
    ----------
    generator : PromptGenerator
    widths : sequence of int
        As many as it has, none smaller.

    Raises
    ------
    ValueError
        If a level would be lost or become narrower.

    References
    ----------
    Chen et al. 2015, Net2Net (arXiv 1511.05641), for growing without forgetting; that
    new channels are random and unheard, in place of copies, is our choice.
    """
    before = generator.widths
    if len(widths) != len(before) or any(
        new < old for new, old in zip(widths, before, strict=True)
    ):
        raise ValueError(f"{tuple(widths)} is not wider than {before}")
    wide = PromptGenerator(widths).train(generator.training)
    inputs = [torch.arange(12)] + [torch.arange(width) for width in before]
    for old, new, heard in zip(generator.down, wide.down, inputs, strict=False):
        _copy_block(old, new, heard)
    below_old, below_new = before[-1], wide.widths[-1]
    for level, (old, new) in enumerate(zip(generator.up, wide.up, strict=True)):
        skip = before[-2 - level]
        # the input is what comes from below, then what was skipped across
        heard = torch.cat([torch.arange(below_old), below_new + torch.arange(skip)])
        _copy_block(old, new, heard)
        below_old, below_new = skip, wide.widths[-2 - level]
    _copy_convolution(generator.head, wide.head, torch.arange(below_old))
    return wide


def _copy_block(old: nn.Module, new: nn.Module, heard: torch.Tensor) -> None:
    for before, after in zip(old.children(), new.children(), strict=True):
        if isinstance(before, nn.Conv2d) and isinstance(after, nn.Conv2d):
            _copy_convolution(before, after, heard)
            heard = torch.arange(before.out_channels)
        elif isinstance(before, nn.BatchNorm2d):
            values = after.state_dict()
            for name, value in before.state_dict().items():
                if value.ndim:
                    values[name][: len(value)] = value


def _copy_convolution(old: nn.Conv2d, new: nn.Conv2d, heard: torch.Tensor) -> None:
    with torch.no_grad():
        new.weight[: old.out_channels] = 0
        new.weight[: old.out_channels, heard] = old.weight
        if old.bias is not None and new.bias is not None:
            new.bias[: old.out_channels] = old.bias
