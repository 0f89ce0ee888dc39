"""Train an adapter: LoRA in the image encoder, the mask decoder, the prompt generator.

::

    python -m napari_sac.core.training.adapter \
        --data ../shared/data/monuseg2018 --output runs/he --name he

With ``--start`` it learns on from an adapter that is here; with ``--masks-only`` that
adapter's prompt generator stays as it is. Where the base has learned on since, give
``--base-before`` the weights that it had. Started again, it goes on where it was
stopped.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from napari_sac.core.config import DEFAULT_MODEL, FinetuneConfig, TrainingConfig
from napari_sac.core.device import DEVICE_NAMES, select_device
from napari_sac.core.models.adapter import (
    AdapterInfo,
    find_adapter,
    restore_adapter,
    save_adapter,
)
from napari_sac.core.models.lora import inject_lora, set_trainable
from napari_sac.core.models.registry import (
    load_model,
    weights_path,
    weights_sha256,
)
from napari_sac.core.models.weight_files import read_weights
from napari_sac.core.training.optimization import TrainingState, make_optimizer
from napari_sac.core.training.preparation import mark_proposals
from napari_sac.core.training.trainer import (
    load_brown_images,
    load_training_images,
    train,
)

if TYPE_CHECKING:
    from segment_anything.modeling import Sam


def build_adapter_state(
    model_name: str,
    config: TrainingConfig,
    rank: int,
    device: str = "cpu",
    start: AdapterInfo | None = None,
) -> TrainingState:
    """Return a base model with LoRA, fresh or as in ``start``, ready to train.

    The batch normalisations keep the statistics of the base: crops of a few slides are
    too much alike to replace them. The base need not be the one that ``start`` was
    trained on, if only the sizes are the same: it learns on either way.

    Raises
    ------
    IncompatibleAdapterError
        If ``start`` is damaged or of other sizes.
    """
    model = load_model(model_name, device="cpu")
    torch.manual_seed(config.seed)
    if start is None:
        inject_lora(model.sam, rank)
        generator = model.generator
    else:
        generator = restore_adapter(model.sam, start)
    set_trainable(model.sam)
    generator.requires_grad_(True)
    for module in (model.sam, generator):
        module.to(device)
    optimizer = make_optimizer((model.sam, generator), config)
    return TrainingState(model.spec, model.sam, generator, None, optimizer)


def follow_base(sam: Sam, before: Path, now: Path) -> None:
    """Add to an adapter's mask decoder what that of its base has learned since.

    LoRA is an addition already. On MoNuSeg's training images ``he`` begins so at an
    AP50 of 0.56, and at 0.53 with its decoder as it was (0.58 on the old base).

    Parameters
    ----------
    sam : Sam
        With the adapter in it; changed in place.
    before, now : Path
        Weight files of the base.

    Raises
    ------
    WeightsError
        If one of them cannot be read.
    """
    old, new = read_weights(before), read_weights(now)
    with torch.no_grad():
        for name, parameter in sam.mask_decoder.named_parameters():
            key = f"mask_decoder.{name}"
            parameter.add_(new[key].to(parameter) - old[key].to(parameter))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of this module."""
    parsed = _parse(arguments)
    start = find_adapter(parsed.start) if parsed.start else None
    state = _train(parsed, start)
    info = _describe(parsed, start, state)
    save_adapter(info.path, state.sam, state.generator, info, half=True)
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train an adapter on labelled images.")
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--title", default="")
    parser.add_argument("--description", default="")
    parser.add_argument("--licence", default="")
    parser.add_argument("--tissue", default="", help="what the images show")
    parser.add_argument("--trained-on", default="", help="the data, in words")
    parser.add_argument(
        "--rank", type=int, default=FinetuneConfig.rank, help="of a fresh LoRA"
    )
    parser.add_argument(
        "--start", help="name or folder of the adapter to learn on from"
    )
    parser.add_argument(
        "--base-before",
        type=Path,
        metavar="FILE",
        help="weights of the base that --start was trained on, if it learned on since",
    )
    parser.add_argument(
        "--masks-only",
        action="store_true",
        help="leave the prompt generator as it is",
    )
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--max-minutes", type=float, default=TrainingConfig.max_minutes)
    parser.add_argument(
        "--rate", type=float, default=TrainingConfig.learning_rate, help="the highest"
    )
    parser.add_argument(
        "--prompts",
        type=int,
        default=TrainingConfig.prompts_per_crop,
        help="on each crop, at most",
    )
    parser.add_argument(
        "--mild",
        type=float,
        default=TrainingConfig.mild,
        help="part of the crops whose scale and colours stay near the image's own",
    )
    parser.add_argument(
        "--weigh-neighbours",
        action="store_true",
        help="have pixels of other nuclei weigh as much as those of a mask's own",
    )
    parser.add_argument(
        "--brown",
        action="store_true",
        help="learn from the images as if most of them were stained brown",
    )
    parser.add_argument("--seed", type=int, default=TrainingConfig.seed)
    parser.add_argument("--device", choices=DEVICE_NAMES, default="auto")
    return parser.parse_args(arguments)


def _train(parsed: argparse.Namespace, start: AdapterInfo | None) -> TrainingState:
    """Return the networks after the training, with their averages in place."""
    config = TrainingConfig(
        steps=parsed.steps,
        max_minutes=parsed.max_minutes,
        seed=parsed.seed,
        mild=parsed.mild,
        weigh_neighbours=parsed.weigh_neighbours,
        prompts_per_crop=parsed.prompts,
        learning_rate=parsed.rate,
        warm_up_steps=50,
        averaging=0.99,
    )
    device = select_device(parsed.device).name
    state = build_adapter_state(parsed.model, config, parsed.rank, device, start)
    if parsed.base_before:
        follow_base(state.sam, parsed.base_before, weights_path(state.spec))
    if parsed.masks_only:
        state.generator.requires_grad_(False)
    proposing = replace(
        load_model(parsed.model, device=device), generator=state.generator
    )
    size = state.spec.nucleus_diameter
    if parsed.brown:
        loaded = load_brown_images(parsed.data, size, parsed.seed)
    else:
        loaded = load_training_images(parsed.data, size)
    images = [mark_proposals(image, proposing) for image in loaded]
    sys.stderr.write(f"{len(images)} images\n")
    train(state, images, parsed.output, config)
    state.use_averages()
    return state


def _describe(
    parsed: argparse.Namespace, start: AdapterInfo | None, state: TrainingState
) -> AdapterInfo:
    """Return what is noted of the adapter; what was not said is as in ``start``."""
    return AdapterInfo(
        name=parsed.name,
        path=parsed.output / parsed.name,
        title=parsed.title or (start.title if start else parsed.name),
        description=parsed.description or (start.description if start else ""),
        base=parsed.model,
        base_sha256=weights_sha256(state.spec),
        licence=parsed.licence or (start.licence if start else ""),
        versions={p: version(p) for p in ("torch", "peft")},
        data=parsed.trained_on or (start.data if start else ""),
        tissue=parsed.tissue or (start.tissue if start else ""),
        created=datetime.now(UTC).date().isoformat(),
        parent=start.name if start and start.name != parsed.name else "",
    )


if __name__ == "__main__":
    sys.exit(main())
