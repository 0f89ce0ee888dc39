"""Train the shipped base model and its prompt generator, from scratch or on.

::

    python -m napari_sac.core.training.base_model \
        --data ../shared/data/dsb2018 ../shared/data/nucls --output runs/sac_tiny

With ``--generator-only`` the prompt generator alone learns on, from what is shipped,
and only ``prompt_generator.safetensors`` is written; ``--widths`` gives it more
channels first. With ``--masks-only`` it is SAM that learns on beside the generator as
it is, and only ``sac_tiny.safetensors`` is written. Started again, it goes on where it
was stopped. The model card in ``docs/reference/models`` says what came out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from napari_sac.core.config import DEFAULT_MODEL, STAINS, TrainingConfig
from napari_sac.core.device import DEVICE_NAMES, select_device
from napari_sac.core.models.attention import fuse_qkv
from napari_sac.core.models.prompt_generator import PromptGenerator
from napari_sac.core.models.registry import get_spec, load_model
from napari_sac.core.models.sam import build_sam
from napari_sac.core.models.weight_files import write_generator, write_weights
from napari_sac.core.training.growth import widen_generator
from napari_sac.core.training.optimization import TrainingState, make_optimizer
from napari_sac.core.training.preparation import mark_proposals
from napari_sac.core.training.trainer import (
    generator_step,
    load_training_images,
    train,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from torch import Tensor

    from napari_sac.core.training.sampling import TrainingImage

_MANY_STEPS = 100_000
"""More than fit into the minutes, which then decide."""

_GENERATOR_RATE, _MASKS_RATE = 6e-4, 3e-4
"""Highest rates of what learns on alone."""

_GENERATOR_FILE = "prompt_generator.safetensors"


def build_state(config: TrainingConfig, device: str = "cpu") -> TrainingState:
    """Return freshly initialised networks of the shipped model's sizes."""
    spec = get_spec(DEFAULT_MODEL)
    torch.manual_seed(config.seed)
    sam = build_sam(spec.architecture).train()
    for parameter_name, parameter in sam.image_encoder.named_parameters():
        if "rel_pos" in parameter_name:
            nn.init.trunc_normal_(parameter, std=0.02)
    generator = PromptGenerator().train()
    auxiliary = nn.Conv2d(spec.architecture.prompt_dim, 4 * 16, 1)
    for module in (sam, generator, auxiliary):
        module.to(device)
    for module in (sam.image_encoder.patch_embed, generator):
        module.to(memory_format=torch.channels_last)
    optimizer = make_optimizer((sam, generator, auxiliary), config)
    return TrainingState(spec, sam, generator, auxiliary, optimizer)


def build_generator_state(
    config: TrainingConfig,
    device: str = "cpu",
    widths: Sequence[int] = (),
) -> TrainingState:
    """Return a shipped model of which only the prompt generator will learn.

    With ``widths`` it is widened first, as
    :func:`~napari_sac.core.training.growth.widen_generator` does.
    """
    model = load_model(DEFAULT_MODEL, device="cpu")
    model.sam.requires_grad_(False).to(device)
    torch.manual_seed(config.seed)
    generator = widen_generator(model.generator, widths or model.generator.widths)
    generator.requires_grad_(True).train()
    generator.to(device).to(memory_format=torch.channels_last)
    optimizer = make_optimizer((generator,), config)
    return TrainingState(model.spec, model.sam, generator, None, optimizer)


def build_masks_state(config: TrainingConfig, device: str = "cpu") -> TrainingState:
    """Return a shipped model of which all but the prompt generator will learn."""
    model = load_model(DEFAULT_MODEL, device="cpu")
    model.sam.requires_grad_(True).train().to(device)
    model.sam.image_encoder.patch_embed.to(memory_format=torch.channels_last)
    model.generator.requires_grad_(False).to(device)
    optimizer = make_optimizer((model.sam,), config)
    return TrainingState(model.spec, model.sam, model.generator, None, optimizer)


def write_sam(state: TrainingState, folder: Path) -> None:
    """Write SAM in half precision, with its own names, as it ships."""
    sam = fuse_qkv(state.sam.state_dict())
    write_weights(folder / f"{state.spec.name}.safetensors", sam, half=True)


def train_base(parsed: argparse.Namespace) -> None:
    """Train all networks from scratch."""
    config = TrainingConfig(
        steps=_steps(parsed),
        max_minutes=parsed.max_minutes,
        seed=parsed.seed,
        mild=parsed.mild,
        learning_rate=parsed.rate or TrainingConfig.learning_rate,
    )
    state = build_state(config, device=select_device(parsed.device).name)
    images = _load_images(parsed, state)
    weights = weigh_coloured(images, parsed.coloured)
    train(state, images, parsed.output, config, weights=weights)
    state.use_averages()
    write_sam(state, parsed.output)
    write_generator(parsed.output / _GENERATOR_FILE, state.generator)


def train_masks(parsed: argparse.Namespace) -> None:
    """Train the shipped image encoder and mask decoder on, and write the averages.

    Prompts lie where the generator proposes them, also where it is wrong: masks of
    false proposals are to be empty, and known to be bad.
    """
    config = TrainingConfig(
        steps=_steps(parsed),
        max_minutes=parsed.max_minutes,
        seed=parsed.seed,
        mild=parsed.mild,
        prompts_per_crop=32,
        learning_rate=parsed.rate or _MASKS_RATE,
        warm_up_steps=60,
        averaging=0.995,
    )
    device = select_device(parsed.device).name
    state = build_masks_state(config, device=device)
    proposing = load_model(state.spec.name, device=device)
    images = [mark_proposals(i, proposing) for i in _load_images(parsed, state)]
    weights = weigh_coloured(images, parsed.coloured)
    train(state, images, parsed.output, config, weights=weights)
    state.use_averages()
    write_sam(state, parsed.output)


def train_generator(parsed: argparse.Namespace) -> None:
    """Train the shipped prompt generator on, and write the averages."""
    config = TrainingConfig(
        steps=_steps(parsed),
        max_minutes=parsed.max_minutes,
        seed=parsed.seed,
        prompts_per_crop=1,
        mild=parsed.mild,
        learning_rate=parsed.rate or _GENERATOR_RATE,
        warm_up_steps=60,
        averaging=0.997,
    )
    device = select_device(parsed.device).name
    state = build_generator_state(config, device=device, widths=parsed.widths)
    start = {k: v.clone() for k, v in state.generator.state_dict().items()}
    images = _load_images(parsed, state)
    weights = weigh_coloured(images, parsed.coloured)
    train(state, images, parsed.output, config, generator_step, weights)
    state.use_averages()
    keep_part(state.generator, start, parsed.keep)
    write_generator(parsed.output / _GENERATOR_FILE, state.generator)


def weigh_coloured(
    images: Sequence[TrainingImage], times: float
) -> npt.NDArray[np.float64]:
    """Return how often each image (N,) is drawn, those in colour ``times`` as often.

    Stained tissue is in colour, and is rarer and harder than fluorescence.
    """
    grey = [
        bool(
            torch.equal(i.image[0], i.image[1]) and torch.equal(i.image[1], i.image[2])
        )
        for i in images
    ]
    weights: npt.NDArray[np.float64] = np.where(grey, 1.0, times)
    weights /= weights.sum()
    return weights


def keep_part(network: nn.Module, start: dict[str, Tensor], part: float) -> None:
    """Move a network back towards the weights that it learned on from, in place.

    Between the two it is often as good on what it learned from, and better on what it
    did not (Wortsman et al. 2022, Robust fine-tuning of zero-shot models).

    Parameters
    ----------
    network : Module
    start : dict of str to Tensor
        Its state before.
    part : float
        How much of that to keep, in [0, 1].
    """
    for name, tensor in network.state_dict().items():
        if tensor.dtype.is_floating_point:
            tensor.lerp_(start[name], part)


def _steps(parsed: argparse.Namespace) -> int:
    if parsed.steps:
        return int(parsed.steps)
    return _MANY_STEPS if parsed.max_minutes else TrainingConfig.steps


def _load_images(
    parsed: argparse.Namespace, state: TrainingState
) -> list[TrainingImage]:
    images = load_training_images(
        parsed.data, state.spec.nucleus_diameter, stains=parsed.stains
    )
    sys.stderr.write(f"{len(images)} images\n")
    return images


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of this module."""
    parser = argparse.ArgumentParser(description="Train sac_tiny, from scratch or on.")
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument(
        "--steps",
        type=int,
        help=f"by default {TrainingConfig.steps}, or as many as fit into the minutes",
    )
    parser.add_argument("--max-minutes", type=float, default=TrainingConfig.max_minutes)
    parser.add_argument(
        "--rate",
        type=float,
        help=f"the highest; by default {TrainingConfig.learning_rate}, with "
        f"--generator-only {_GENERATOR_RATE}, with --masks-only {_MASKS_RATE}",
    )
    parser.add_argument("--seed", type=int, default=TrainingConfig.seed)
    parser.add_argument(
        "--mild",
        type=float,
        default=TrainingConfig.mild,
        help="part of the crops whose scale and colours stay near the image's own",
    )
    parser.add_argument(
        "--coloured",
        type=float,
        default=1.0,
        help="how many times as often images in colour are drawn, by default "
        "%(default)g; a stain of them alone (--stains) counts as grey",
    )
    parser.add_argument(
        "--stains",
        nargs="+",
        choices=STAINS,
        default=(),
        help="images in colour are also learned from as these stains of them alone",
    )
    parser.add_argument("--device", choices=DEVICE_NAMES, default="auto")
    part = parser.add_mutually_exclusive_group()
    part.add_argument(
        "--masks-only",
        dest="train",
        action="store_const",
        const=train_masks,
        help="train the shipped image encoder and mask decoder on, and nothing else",
    )
    part.add_argument(
        "--generator-only",
        dest="train",
        action="store_const",
        const=train_generator,
        help="train the shipped prompt generator on, and nothing else",
    )
    parser.add_argument(
        "--widths",
        type=int,
        nargs="+",
        default=(),
        help="channels that the prompt generator gets before it learns on alone",
    )
    parser.set_defaults(train=train_base)
    parser.add_argument(
        "--keep",
        type=float,
        default=0.0,
        help="part of the weights that the prompt generator learned on from to keep",
    )
    parsed = parser.parse_args(arguments)
    parsed.train(parsed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
