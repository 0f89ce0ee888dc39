"""Train an adapter: LoRA in the image encoder, the mask decoder, the prompt generator.

::

    python -m napari_sac.core.training.adapter \
        --data ../shared/data/monuseg2018 --output runs/he --name he

Started again, it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

from napari_sac.core.config import TrainingConfig
from napari_sac.core.device import DEVICE_NAMES, select_device
from napari_sac.core.models.adapter import AdapterInfo, save_adapter
from napari_sac.core.models.lora import inject_lora, set_trainable
from napari_sac.core.models.registry import load_model, weights_sha256
from napari_sac.core.training.trainer import (
    TrainingState,
    load_training_images,
    make_optimizer,
    train,
)


def build_adapter_state(
    model_name: str, config: TrainingConfig, rank: int, device: str = "cpu"
) -> TrainingState:
    """Return a base model with a fresh LoRA, ready to train.

    The batch normalisations keep the statistics of the base: crops of a few slides are
    too much alike to replace them.
    """
    model = load_model(model_name, device="cpu")
    inject_lora(model.sam, rank)
    set_trainable(model.sam)
    model.generator.requires_grad_(True)
    for module in (model.sam, model.generator):
        module.to(device)
    optimizer = make_optimizer((model.sam, model.generator), config)
    return TrainingState(model.spec, model.sam, model.generator, None, optimizer)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of this module."""
    parser = argparse.ArgumentParser(description="Train an adapter on labelled images.")
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--model", default="sac_tiny")
    parser.add_argument("--title", default="")
    parser.add_argument("--description", default="")
    parser.add_argument("--licence", default="")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--max-minutes", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=DEVICE_NAMES, default="auto")
    parsed = parser.parse_args(arguments)
    config = TrainingConfig(
        steps=parsed.steps,
        max_minutes=parsed.max_minutes,
        seed=parsed.seed,
        warm_up_steps=50,
        averaging=0.99,
    )
    device = select_device(parsed.device).name
    state = build_adapter_state(parsed.model, config, parsed.rank, device)
    images = load_training_images(parsed.data, state.spec.nucleus_diameter)
    sys.stderr.write(f"{len(images)} images\n")
    train(state, images, parsed.output, config)
    state.use_averages()
    folder = parsed.output / parsed.name
    info = AdapterInfo(
        name=parsed.name,
        path=folder,
        title=parsed.title or parsed.name,
        description=parsed.description,
        base=parsed.model,
        base_sha256=weights_sha256(state.spec),
        licence=parsed.licence,
        versions={p: version(p) for p in ("torch", "peft")},
    )
    save_adapter(folder, state.sam, state.generator, info)
    return 0


if __name__ == "__main__":
    sys.exit(main())
