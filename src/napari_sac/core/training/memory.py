"""How a step is made to fit into memory, and what one step takes.

What is tried, in this order: fewer crops at once (their gradients are added up, so the
result is the same), smaller crops, gradient checkpointing, fewer trainable blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch.autograd.graph import saved_tensors_hooks

from napari_sac.core.device import available_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn

    from napari_sac.core.device import Device
    from napari_sac.core.models.sam import SamArchitecture

USABLE_PART = 0.8
"""Part of the free memory that a step may take."""

_OPTIMIZER_FLOATS = 4
"""Beside a weight: its gradient, AdamW's two averages, and ours."""

_TEMPORARIES = 1.5
"""What a block computes and throws away, over what it keeps for the way back."""


@dataclass(frozen=True)
class Plan:
    """How a step is computed.

    Parameters
    ----------
    crop : int
        Side of the crops in pixels.
    at_once : int
        Crops computed at once.
    checkpointing : bool
        Whether blocks are computed twice instead of kept.
    blocks : int
        How many of the image encoder's last blocks learn.
    """

    crop: int
    at_once: int
    checkpointing: bool
    blocks: int

    def describe_change(self, before: Plan) -> str:
        """Return in words what is different from another plan."""
        parts = []
        if self.crop != before.crop:
            parts.append(f"crops of {self.crop} instead of {before.crop} pixels")
        if self.checkpointing and not before.checkpointing:
            parts.append("gradient checkpointing, which takes about a third longer")
        if self.blocks != before.blocks:
            parts.append(f"only the last {self.blocks} blocks learn")
        if self.at_once != before.at_once:
            parts.append(f"{self.at_once} crops at once instead of {before.at_once}")
        return "Memory is short: " + ", ".join(parts)


@dataclass(frozen=True)
class Cost:
    """What this process's share of a step takes: seconds, and bytes beside the weights.

    The bytes are of the crops that are computed at once.
    """

    seconds: float
    memory_bytes: int


def smaller_plans(plan: Plan, architecture: SamArchitecture) -> Iterator[Plan]:
    """Return plans that need less and less memory, after the given one."""
    sides = [architecture.image_size * 3 // 4, architecture.image_size // 2]
    for side in sides:
        # both networks want whole tokens
        crop = side // (step := max(16, architecture.patch_size)) * step
        if 0 < crop < plan.crop:
            plan = replace(plan, crop=crop, at_once=1)
            yield plan
    if not plan.checkpointing:
        plan = replace(plan, checkpointing=True, at_once=1)
        yield plan
    while plan.blocks > 1:
        plan = replace(plan, blocks=plan.blocks // 2, at_once=1)
        yield plan


def free_memory(device: Device) -> int:
    """Return the bytes that are free on the device now."""
    if device.name == "cuda":
        # what torch keeps for itself is free to it
        cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return int(torch.cuda.mem_get_info()[0] + cached)
    if device.name == "mps":
        return int(device.memory_bytes - torch.mps.current_allocated_memory())
    return available_memory()


def measure_memory(
    device: Device, parameters: Sequence[nn.Parameter], step: Callable[[], object]
) -> int:
    """Return the most bytes that a step takes beside the weights.

    On CUDA it is measured. Elsewhere torch does not tell a peak: what is kept for the
    way back is counted, with an allowance for what is not kept.

    Parameters
    ----------
    device : Device
    parameters : sequence of Parameter
        Of the networks, those that learn and those that do not.
    step : callable
        Computes gradients.
    """
    learning = sum(p.numel() for p in parameters if p.requires_grad) * 4
    if device.name == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        peak = int(torch.cuda.max_memory_allocated() - before)
        return peak + learning * (_OPTIMIZER_FLOATS - 1)
    # weights are kept for the way back too, but they are there already
    there = {p.untyped_storage().data_ptr() for p in parameters}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in there:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        step()
    return int(sum(kept.values()) * _TEMPORARIES) + learning * _OPTIMIZER_FLOATS
