"""Train the shipped base model and its prompt generator from scratch.

::

    python -m napari_sac.core.training.base_model \
        --data ../shared/data/dsb2018 ../shared/data/nucls --output runs/sac_tiny

Started again, it goes on where it was stopped. The model card in
``docs/reference/models`` says what came out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import nn

from napari_sac.core.config import TrainingConfig
from napari_sac.core.models.attention import fuse_qkv
from napari_sac.core.models.prompt_generator import PromptGenerator
from napari_sac.core.models.registry import get_spec
from napari_sac.core.models.sam import build_sam
from napari_sac.core.models.weight_files import write_generator, write_weights
from napari_sac.core.training.trainer import (
    TrainingState,
    load_training_images,
    make_optimizer,
    train,
)


def build_state(config: TrainingConfig, name: str = "sac_tiny") -> TrainingState:
    """Return freshly initialised networks of a registered model's sizes."""
    spec = get_spec(name)
    torch.manual_seed(config.seed)
    sam = build_sam(spec.architecture).train()
    for parameter_name, parameter in sam.image_encoder.named_parameters():
        if "rel_pos" in parameter_name:
            nn.init.trunc_normal_(parameter, std=0.02)
    generator = PromptGenerator().train()
    auxiliary = nn.Conv2d(spec.architecture.prompt_dim, 4 * 16, 1)
    for module in (sam.image_encoder.patch_embed, generator):
        module.to(memory_format=torch.channels_last)
    optimizer = make_optimizer((sam, generator, auxiliary), config)
    return TrainingState(spec, sam, generator, auxiliary, optimizer)


def write_shipped_weights(state: TrainingState, folder: Path) -> None:
    """Write the averaged weights in half precision, with SAM's names, as they ship."""
    state.use_averages()
    sam = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in fuse_qkv(state.sam.state_dict()).items()
    }
    write_weights(folder / f"{state.spec.name}.safetensors", sam)
    write_generator(folder / "prompt_generator.safetensors", state.generator)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of this module."""
    parser = argparse.ArgumentParser(description="Train sac_tiny from scratch.")
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=TrainingConfig.steps)
    parser.add_argument("--max-minutes", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args(arguments)
    config = TrainingConfig(
        steps=parsed.steps, max_minutes=parsed.max_minutes, seed=parsed.seed
    )
    state = build_state(config)
    images = load_training_images(parsed.data, state.spec.nucleus_diameter)
    sys.stderr.write(f"{len(images)} images\n")
    train(state, images, parsed.output, config)
    write_shipped_weights(state, parsed.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
