"""What every training keeps to: its state, its optimizer, its rates, its averages."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segment_anything.modeling import Sam

    from napari_sac.core.config import TrainingConfig
    from napari_sac.core.models.prompt_generator import PromptGenerator
    from napari_sac.core.models.registry import ModelSpec

SEMANTIC_WEIGHT = 0.15
"""Of the loss of the one decoding with all prompts, beside that of single nuclei."""


@dataclass(eq=False)
class TrainingState:
    """All that a checkpoint holds: networks, optimizer, averages, how far it is.

    ``auxiliary`` reads dense maps off the embedding while the base model is trained,
    and is thrown away afterwards; None for adapters.
    """

    spec: ModelSpec
    sam: Sam
    generator: PromptGenerator
    auxiliary: nn.Module | None
    optimizer: torch.optim.Optimizer
    averages: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0
    seconds: float = 0.0

    @property
    def device(self) -> torch.device:
        """Where the networks lie."""
        device: torch.device = next(self.sam.parameters()).device
        return device

    def networks(self) -> nn.ModuleDict:
        """Return what is saved, under stable names."""
        parts: dict[str, nn.Module] = {"sam": self.sam, "generator": self.generator}
        if self.auxiliary is not None:
            parts["auxiliary"] = self.auxiliary
        return nn.ModuleDict(parts)

    def use_averages(self) -> None:
        """Put the running averages in the place of the weights, in place."""
        self.networks().load_state_dict(self.averages, strict=False)


def make_optimizer(
    modules: Sequence[nn.Module], config: TrainingConfig
) -> torch.optim.Optimizer:
    """Return AdamW over what requires gradients; only matrices decay."""
    trained = [p for m in modules for p in m.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {
                "params": [p for p in trained if p.ndim > 1],
                "weight_decay": config.weight_decay,
            },
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(0.9, 0.98),
    )


def learning_rate(step: int, done: float, config: TrainingConfig) -> float:
    """Return the rate of a step: a linear start, then a cosine down to 2 percent.

    Parameters
    ----------
    step : int
    done : float
        Part of the training that is over, in [0, 1].
    config : TrainingConfig
    """
    warm = min(1.0, (step + 1) / config.warm_up_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return config.learning_rate * warm * (0.02 + 0.98 * cosine)


def clip_gradients(state: TrainingState) -> None:
    """Shorten the gradients of SAM and of the generator, each by themselves."""
    nn.utils.clip_grad_norm_(state.sam.parameters(), 1.0)
    nn.utils.clip_grad_norm_(state.generator.parameters(), 2.0)


def averaging_decay(step: int, highest: float) -> float:
    """Return the decay of the averages: less at first, to forget the first weights."""
    return min(highest, (1 + step) / (10 + step))


def mean_row(
    step: int, seconds: float, rate: float, recent: list[dict[str, float]]
) -> dict[str, float]:
    """Return a row of ``curve.csv``: the means of the last steps' losses."""
    row = {"step": float(step), "seconds": round(seconds, 1), "rate": rate}
    for name in recent[0]:
        values = np.array([one[name] for one in recent])
        known = values[~np.isnan(values)]
        row[name] = round(float(known.mean()), 4) if len(known) else math.nan
    return row
