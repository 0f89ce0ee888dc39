"""One step of fine-tuning: LoRA, mask decoder and prompt generator together.

Every crop has a loss of its own and the step's loss is their mean, so how the crops are
spread over processes, or over time where memory is short, does not change the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_sac.core.inference.generator_maps import GENERATOR_DIAMETER
from napari_sac.core.models.prompt_generator import GENERATOR_STRIDE, generator_input
from napari_sac.core.training.forward import (
    corrective_clicks,
    decode_crops,
    decode_whole,
    encode,
    encoder_input,
    foreground_cells,
    native_bfloat16,
    whole_crop_prompt,
    whole_crop_targets,
    window_of_step,
    windows_of_cells,
)
from napari_sac.core.training.losses import (
    generator_loss,
    mask_loss,
    mask_losses,
    mask_targets,
)
from napari_sac.core.training.optimization import SEMANTIC_WEIGHT, TrainingState
from napari_sac.core.training.sampling import (
    Crops,
    PromptBatch,
    TrainingImage,
    draw_crops,
    draw_prompts,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_sac.core.config import FinetuneConfig
    from napari_sac.core.training.memory import Plan

PARTS = ("loss", "maps", "masks", "corrected", "semantic", "iou")
"""What a step reports: the loss and what it is made of, and the masks' mean IoU."""

_CACHE_SEED = 1_000_000
_GENERATOR_EVERY = 4
_NEGATIVES = 0.8
_BACKGROUND = 0.3


@dataclass(frozen=True, eq=False)
class CachedCrop:
    """A crop that was drawn and looked at before the first step.

    Parameters
    ----------
    crop : Crops
        A single one.
    features : (1, C, s, s) float tensor
        Its embedding.
    cells : (1, 4 s, 4 s) float tensor
        What the generator adds to its masks.
    """

    crop: Crops
    features: Tensor
    cells: Tensor


@dataclass(frozen=True, eq=False)
class Pool:
    """What steps draw crops from.

    Parameters
    ----------
    images : sequence of TrainingImage
    weights : (N,) float
        How often each is drawn; sums to 1.
    cached : tuple of CachedCrop
        In quick mode: what is drawn from instead of the images.
    """

    images: Sequence[TrainingImage]
    weights: npt.NDArray[np.float64]
    cached: tuple[CachedCrop, ...] = ()


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops of one step with their prompts.

    Parameters
    ----------
    crops : Crops
    prompts : PromptBatch
    features : (B, C, s, s) float tensor or None
        Embeddings, if they are known already.
    cells : (B, 4 s, 4 s) float tensor or None
        What the generator added to their masks before it learned, if it is known.
    numbers : tuple of int
        The place of each crop in the step.
    """

    crops: Crops
    prompts: PromptBatch
    features: Tensor | None
    cells: Tensor | None
    numbers: tuple[int, ...]


def draw_batch(
    pool: Pool,
    numbers: Sequence[int],
    step: int,
    size: int,
    config: FinetuneConfig,
) -> Batch:
    """Return some of a step's crops; each has random numbers of its own."""
    crops, prompts, cached = [], [], []
    for i in numbers:
        rng = np.random.default_rng([config.seed, step, i])
        if pool.cached:
            cached.append(pool.cached[rng.integers(len(pool.cached))])
            crop = cached[-1].crop
        else:
            crop = draw_crops(
                pool.images, 1, size, rng, weights=pool.weights, mild=True
            )
        crops.append(crop)
        prompts.append(
            draw_prompts(
                crop,
                config.prompts_per_crop,
                rng,
                background=_BACKGROUND,
                negatives=_NEGATIVES,
            )
        )
    return Batch(
        Crops.concatenate(crops),
        PromptBatch.concatenate(prompts),
        torch.cat([one.features for one in cached]) if cached else None,
        torch.cat([one.cells for one in cached]) if cached else None,
        tuple(numbers),
    )


def add_gradients(
    state: TrainingState, batch: Batch, config: FinetuneConfig, plan: Plan
) -> dict[str, float]:
    """Add the gradients of some of a step's crops, and return their part of the loss.

    The parts of all crops of a step add up to its loss; ``iou`` and ``masks`` count
    crops without a prompt as 0.
    """
    device = state.device
    crops, prompts = batch.crops.to(device), batch.prompts.to(device)
    grid = plan.crop // state.spec.architecture.patch_size
    window = window_of_step(state.step, state.spec, grid)
    if window > state.spec.window:
        prompts = prompts.select(prompts.rank_in_crop() % 3 == 0)
    low = native_bfloat16(device)
    seen, share = _generator_turn(batch, state.step, config)
    scaled = _at_generator_scale(crops, state.spec.nucleus_diameter)
    generated = scaled.rows(seen)
    with torch.autocast(device.type, torch.bfloat16, enabled=low):
        maps = state.generator(generator_input(generated.image)) if seen else None
        if batch.features is not None:
            features = batch.features.to(device)
        else:
            pixels = encoder_input(state.sam, crops.image)
            features = encode(state.sam, pixels, checkpointing=plan.checkpointing)
        cells = _cells(state, batch, scaled, maps, seen, features.shape[-1])
    parts = dict.fromkeys(PARTS, torch.zeros((), device=device, requires_grad=True))
    if maps is not None:
        losses = [
            generator_loss(maps[i : i + 1], generated.rows([i]))
            for i in range(len(seen))
        ]
        parts["maps"] = share * torch.stack(losses).sum()
    if len(prompts.label):
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            parts |= _mask_parts(state, crops, prompts, features, cells, window)
    scale = 1 / config.batch_size
    parts = {name: value * scale for name, value in parts.items()}
    turn = state.step % config.batch_size
    if turn in batch.numbers:
        row = batch.numbers.index(turn)
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            parts["semantic"] = _semantic_part(
                state, crops, prompts, features, cells, row
            )
    learned = ("maps", "masks", "corrected", "semantic")
    loss = torch.stack([parts[name] for name in learned]).sum()
    loss.backward()
    parts["loss"] = loss
    return {name: float(value.detach()) for name, value in parts.items()}


def _generator_turn(
    batch: Batch, step: int, config: FinetuneConfig
) -> tuple[list[int], float]:
    """Return the rows that the generator learns from, and how much each of them counts.

    In quick mode it takes four fifths of a step's time, and most nuclei of a picture
    are learned from one crop as well as from four: it sees every fourth.
    """
    every = min(_GENERATOR_EVERY, config.batch_size) if config.quick else 1
    turn = [(i + step) % every == 0 for i in range(config.batch_size)]
    rows = [row for row, number in enumerate(batch.numbers) if turn[number]]
    return rows, config.batch_size / sum(turn)


def _at_generator_scale(crops: Crops, nucleus_diameter: float) -> Crops:
    """Return the crops at the scale that the generator sees in use."""
    if nucleus_diameter == GENERATOR_DIAMETER:
        return crops
    side = crops.image.shape[-1] * GENERATOR_DIAMETER / nucleus_diameter
    size = [max(1, round(side / GENERATOR_STRIDE)) * GENERATOR_STRIDE] * 2
    planes = [crops.labels, crops.known, crops.distance]
    if crops.hard is not None:
        planes.append(crops.hard)
    stacked = torch.stack([plane.float() for plane in planes], dim=1)
    nearest = F.interpolate(stacked, size, mode="nearest-exact")
    return Crops(
        F.interpolate(crops.image, size, mode="bilinear", antialias=True),
        nearest[:, 0].to(torch.int64),
        nearest[:, 2],
        nearest[:, 1] > 0.5,
        None if crops.hard is None else nearest[:, 3] > 0.5,
        crops.points,
    )


def _cells(
    state: TrainingState,
    batch: Batch,
    scaled: Crops,
    maps: Tensor | None,
    seen: Sequence[int],
    grid: int,
) -> Tensor:
    """Return what the generator adds to the masks of each crop, as in use.

    Where it learns from a crop its present maps are there anyway. Elsewhere what it
    said at first must do: to ask it again takes a quarter of a quick step more.
    """
    if maps is not None and len(maps) == len(scaled.labels):
        return foreground_cells(maps, grid)
    if batch.cells is not None:
        cells = batch.cells.to(state.device, copy=True)
    else:
        cells = _generator_cells(state, scaled, grid)
    if maps is not None:
        cells[list(seen)] = foreground_cells(maps, grid)
    return cells


def _generator_cells(state: TrainingState, scaled: Crops, grid: int) -> Tensor:
    """Return what the generator adds to masks, without learning from it."""
    with torch.no_grad():
        maps = state.generator(generator_input(scaled.image))
    return foreground_cells(maps, grid)


def _mask_parts(
    state: TrainingState,
    crops: Crops,
    prompts: PromptBatch,
    features: Tensor,
    cells: Tensor,
    window: int,
) -> dict[str, Tensor]:
    """Return the sums over crops of their mean mask losses, before and after a click.

    Every second prompt gets a corrective click.
    """
    patch = state.spec.architecture.patch_size
    logits, quality, origins = decode_crops(
        state.sam, state.spec, features, prompts, window
    )
    # a person sees, clicks and keeps masks that the generator had its say in
    said = windows_of_cells(cells, prompts, origins, window)
    logits = logits + said
    truth, valid, _ = mask_targets(
        crops, prompts, origins * patch, window * patch, patch // 4
    )
    losses, true_iou = mask_losses(logits, quality, truth, valid)
    again = prompts.rank_in_crop() % 2 == state.step % 2
    parts = {
        "masks": _sum_of_means(losses, prompts.image_index) / 2,
        "corrected": losses.sum() * 0,
        "iou": _sum_of_means(
            true_iou[prompts.label > 0], prompts.image_index[prompts.label > 0]
        ),
    }
    if not bool(again.any()):
        return parts
    clicked = corrective_clicks(
        logits[again],
        truth[again],
        valid[again],
        origins[again],
        prompts.select(again),
        state.spec,
    )
    logits, quality, origins = decode_crops(
        state.sam, state.spec, features, clicked, window
    )
    logits = logits + said[again]
    losses, _ = mask_losses(logits, quality, truth[again], valid[again])
    parts["corrected"] = _sum_of_means(losses, clicked.image_index) / 2
    return parts


def _semantic_part(
    state: TrainingState,
    crops: Crops,
    prompts: PromptBatch,
    features: Tensor,
    cells: Tensor,
    row: int,
) -> Tensor:
    cell = state.spec.architecture.patch_size // 4
    whole = whole_crop_prompt(crops, prompts, row)
    logits, quality = decode_whole(state.sam, state.spec, features, whole)
    logits = logits + cells[whole.image_index]
    loss, _ = mask_loss(logits, quality, *whole_crop_targets(crops, whole, cell))
    return SEMANTIC_WEIGHT * loss


def _sum_of_means(values: Tensor, group: Tensor) -> Tensor:
    """Return the sum over groups of the mean of their values."""
    if len(values) == 0:
        return values.sum()
    counts = torch.bincount(group)
    return (values / counts[group]).sum()


def cache_crops(
    state: TrainingState, pool: Pool, count: int, config: FinetuneConfig, size: int
) -> Pool:
    """Return the pool with crops drawn and looked at once: the encoder does not learn.

    Parameters
    ----------
    state : TrainingState
    pool : Pool
    count : int
        How many crops.
    config : FinetuneConfig
    size : int
        Their side in pixels.
    """
    cached = []
    device = state.device
    for i in range(count):
        rng = np.random.default_rng([config.seed, _CACHE_SEED, i])
        crop = draw_crops(pool.images, 1, size, rng, weights=pool.weights, mild=True)
        pixels = encoder_input(state.sam, crop.image.to(device))
        with (
            torch.no_grad(),
            torch.autocast(
                device.type, torch.bfloat16, enabled=native_bfloat16(device)
            ),
        ):
            features = encode(state.sam, pixels)
            scaled = _at_generator_scale(crop.to(device), state.spec.nucleus_diameter)
            cells = _generator_cells(state, scaled, features.shape[-1])
        cached.append(CachedCrop(crop, features.float().cpu(), cells.cpu()))
    return Pool(pool.images, pool.weights, tuple(cached))
