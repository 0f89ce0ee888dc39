"""The training of the shipped weights: crops in, weights out.

Which parameters learn is decided by the caller (``requires_grad``), and so is which
batch normalisations follow the data (``train()`` and ``eval()``).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_sac.core.datasets.pairs import (
    SPLITS_FILE,
    composed_name,
    find_pairs,
    load_pair,
    names_of_split,
)
from napari_sac.core.errors import LabelFormatError
from napari_sac.core.io import atomic_path, normalise_image
from napari_sac.core.models.prompt_generator import generator_input
from napari_sac.core.training.brown_stain import stain_brown
from napari_sac.core.training.forward import (
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
from napari_sac.core.training.losses import generator_loss, mask_loss, mask_targets
from napari_sac.core.training.optimization import (
    SEMANTIC_WEIGHT,
    TrainingState,
    averaging_decay,
    clip_gradients,
    learning_rate,
    mean_row,
)
from napari_sac.core.training.sampling import (
    Crops,
    PromptBatch,
    TrainingImage,
    draw_crops,
    draw_prompts,
    prepare_image,
)
from napari_sac.core.training.tables import append_row, drop_rows_after

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_sac.core.config import Stain, TrainingConfig
    from napari_sac.core.datasets.pairs import LabelledImage

Step = Callable[[TrainingState, Crops, PromptBatch, "TrainingConfig"], dict[str, float]]
"""Learns from a batch and returns the parts of its loss."""

_BROWN_VIEWS = 3
_GREY_TAKEN = 3
"""Of grey images every so many-th is stained brown: tissue is in colour, and rarer."""


def train(
    state: TrainingState,
    images: list[TrainingImage],
    output: Path,
    config: TrainingConfig,
    step: Step | None = None,
    weights: npt.NDArray[np.float64] | None = None,
) -> None:
    """Train, in place, until the steps or the minutes are used up.

    A ``checkpoint.pt`` in ``output`` is taken up where it ends. It is written every 100
    steps, and a line of ``curve.csv`` every 20. Each step draws from its own random
    numbers, so a training that was killed and taken up ends as one that was not.

    Parameters
    ----------
    state : TrainingState
    images : list of TrainingImage
    output : Path
    config : TrainingConfig
    step : callable, optional
        What is done with a batch; :func:`train_step` by default.
    weights : (len(images),) float, optional
        How often each image is drawn; sums to 1.
    """
    output.mkdir(parents=True, exist_ok=True)
    checkpoint, curve = output / "checkpoint.pt", output / "curve.csv"
    if checkpoint.exists():
        load_checkpoint(state, checkpoint)
    drop_rows_after(curve, state.step)
    recent: list[dict[str, float]] = []
    last = time.monotonic()
    while (done := _fraction(state, config)) < 1:
        rate = learning_rate(state.step, done, config)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        size = state.spec.architecture.image_size
        rng = np.random.default_rng([config.seed, state.step])
        mild = round(config.mild * config.batch_size)
        crops = Crops.concatenate(
            [
                draw_crops(images, count, size, rng, weights=weights, mild=is_mild)
                for count, is_mild in ((config.batch_size - mild, False), (mild, True))
                if count
            ]
        )
        prompts = draw_prompts(crops, config.prompts_per_crop, rng)
        if (prompts.label > 0).any():
            recent.append((step or train_step)(state, crops, prompts, config))
            update_averages(state, config.averaging)
        state.step += 1
        now = time.monotonic()
        state.seconds, last = state.seconds + now - last, now
        if state.step % 20 == 0 and recent:
            row = mean_row(state.step, state.seconds, rate, recent)
            append_row(curve, row)
            sys.stderr.write(" ".join(f"{k}={v:.4g}" for k, v in row.items()) + "\n")
            recent = []
        if state.step % 100 == 0:
            save_checkpoint(state, checkpoint)
    save_checkpoint(state, checkpoint)


def train_step(
    state: TrainingState, crops: Crops, prompts: PromptBatch, config: TrainingConfig
) -> dict[str, float]:
    """Do one step of all that may learn and return the parts of the loss."""
    architecture, device = state.spec.architecture, state.device
    window = window_of_step(state.step, state.spec, architecture.grid_size)
    if window > state.spec.window:
        prompts = prompts.select(torch.arange(len(prompts.label)) % 3 == 0)
    crops, prompts = crops.to(device), prompts.to(device)
    image = encoder_input(state.sam, crops.image)
    image = image.contiguous(memory_format=torch.channels_last)
    whole = whole_crop_prompt(crops, prompts, state.step % len(crops.labels))
    low = config.bfloat16 and native_bfloat16(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=low):
        maps = state.generator(generator_input(crops.image))
        features = encode(state.sam, image)
        logits, predicted_iou, origins = decode_crops(
            state.sam, state.spec, features, prompts, window
        )
        whole_logits, whole_iou = decode_whole(state.sam, state.spec, features, whole)
    # the masks are taught as they are used: with the generator's say
    cells = foreground_cells(maps, features.shape[-1])
    logits = logits + windows_of_cells(cells, prompts, origins, window)
    whole_logits = whole_logits + cells[whole.image_index]
    patch = architecture.patch_size
    truth, valid, others = mask_targets(
        crops, prompts, origins * patch, window * patch, patch // 4
    )
    of_masks, true_iou = mask_loss(
        logits,
        predicted_iou,
        truth,
        valid,
        others if config.weigh_neighbours else None,
    )
    of_whole, _ = mask_loss(
        whole_logits, whole_iou, *whole_crop_targets(crops, whole, patch // 4)
    )
    parts = {"masks": of_masks, "semantic": SEMANTIC_WEIGHT * of_whole}
    if maps.requires_grad:
        parts["maps"] = generator_loss(maps, crops)
    if state.auxiliary is not None:
        dense = F.pixel_shuffle(state.auxiliary(features.float()), 4)
        parts["auxiliary"] = auxiliary_loss(dense, crops, state.spec.nucleus_diameter)
    state.optimizer.zero_grad()
    torch.stack(list(parts.values())).sum().backward()
    clip_gradients(state)
    state.optimizer.step()
    logged = {name: value.item() for name, value in parts.items()}
    return logged | {"iou": true_iou[prompts.label > 0].mean().item()}


def generator_step(
    state: TrainingState, crops: Crops, prompts: PromptBatch, config: TrainingConfig
) -> dict[str, float]:
    """Do one step of the prompt generator alone, with balanced weights."""
    device = state.device
    crops = crops.to(device)
    low = config.bfloat16 and native_bfloat16(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=low):
        image = generator_input(crops.image)
        maps = state.generator(image.contiguous(memory_format=torch.channels_last))
    loss = generator_loss(maps, crops, balanced=True)
    state.optimizer.zero_grad()
    loss.backward()
    clip_gradients(state)
    state.optimizer.step()
    return {"maps": loss.item()}


def auxiliary_loss(maps: Tensor, crops: Crops, nucleus_diameter: float) -> Tensor:
    """Return the loss of dense maps (B, 4, S / 2, S / 2) read off the embedding.

    Foreground, distance to the border and the way to the nucleus's middle: without
    them the encoder learns next to nothing for hundreds of steps.
    """
    cell = crops.labels.shape[-1] // maps.shape[-1]
    labels = crops.labels[:, ::cell, ::cell]
    known = crops.known[:, ::cell, ::cell].float()
    foreground = (labels > 0).float()
    entropy = F.binary_cross_entropy_with_logits(
        maps[:, 0], foreground, reduction="none"
    )
    distance = F.avg_pool2d(crops.distance[:, None], cell)[:, 0]
    error = (maps[:, 1].sigmoid() - distance).abs()
    offsets = torch.stack([_offsets_to_middle(one) for one in labels])
    offsets = offsets * cell / nucleus_diameter
    away = F.smooth_l1_loss(maps[:, 2:], offsets, beta=0.1, reduction="none").sum(1)
    total = entropy + 2 * error + 2 * away * foreground
    return (total * known).sum() / known.sum().clamp(min=1)


def _offsets_to_middle(labels: Tensor) -> Tensor:
    """Return (2, h, w): the way (y, x) from each pixel to its nucleus's mean."""
    height, width = labels.shape
    flat = labels.ravel()
    count = torch.bincount(flat).clamp(min=1)
    rows, columns = (
        torch.arange(n, device=labels.device).float() for n in (height, width)
    )
    y = rows[:, None].expand(height, width).ravel()
    x = columns[None].expand(height, width).ravel()
    parts = [(torch.bincount(flat, c) / count)[flat] - c for c in (y, x)]
    return torch.stack(parts).reshape(2, height, width)


def update_averages(state: TrainingState, decay: float) -> None:
    """Move the running averages of the weights, which are what is kept in the end."""
    decay = averaging_decay(state.step, decay)
    for name, value in state.networks().state_dict().items():
        if not value.dtype.is_floating_point:
            continue
        if name not in state.averages:
            state.averages[name] = value.detach().clone()
        else:
            state.averages[name].lerp_(value.detach(), 1 - decay)


def save_checkpoint(state: TrainingState, path: Path) -> None:
    """Write all that is needed to go on, atomically.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    # given a path, torch raises something else than OSError where it cannot write
    with atomic_path(path) as partial, partial.open("wb") as file:
        torch.save(
            {
                "networks": state.networks().state_dict(),
                "optimizer": state.optimizer.state_dict(),
                "averages": state.averages,
                "step": state.step,
                "seconds": state.seconds,
            },
            file,
        )


def load_checkpoint(state: TrainingState, path: Path) -> None:
    """Take up the training where ``path`` left it."""
    saved: dict[str, Any] = torch.load(
        path, weights_only=True, map_location=state.device
    )
    state.networks().load_state_dict(saved["networks"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.averages = saved["averages"]
    state.step, state.seconds = saved["step"], saved["seconds"]


def load_training_images(
    folders: Sequence[Path], nucleus_diameter: float, *, stains: Sequence[Stain] = ()
) -> list[TrainingImage]:
    """Return the training images of folders with ``images`` and ``labels``.

    Parameters
    ----------
    folders : sequence of Path
        Of each, the images that ``splits.csv`` (columns ``id`` and ``split``) calls
        ``train``; without that file all whose name does not begin with ``test``.
    nucleus_diameter : float
        Each image is resampled so that its typical nucleus has this diameter.
    stains : sequence of Stain
        An image in colour is there once more for each: that stain of it alone.

    Raises
    ------
    LabelFormatError
        If there is nothing to train on.
    """
    images = []
    for loaded in _training_pairs(folders):
        whole = normalise_image(loaded.image)
        views = [whole]
        if _has_colours(whole):
            views += [normalise_image(loaded.image, stain=s) for s in stains]
        images += [
            prepare_image(view, loaded.labels, nucleus_diameter) for view in views
        ]
    return images


def load_brown_images(
    folders: Sequence[Path], nucleus_diameter: float, seed: int
) -> list[TrainingImage]:
    """Return training images, most of which look as if they were stained brown.

    An image in colour is there as it is, and three times stained brown; of the grey
    ones every third, once, and brown.

    The parameters are those of :func:`load_training_images`; ``seed`` decides on the
    brown.

    Raises
    ------
    LabelFormatError
        If there is nothing to train on.
    """
    images = []
    for number, loaded in enumerate(_training_pairs(folders)):
        whole = normalise_image(loaded.image)
        coloured = _has_colours(whole)
        if not coloured and number % _GREY_TAKEN:
            continue
        views = [whole] if coloured else []
        views += [
            stain_brown(whole, loaded.labels, np.random.default_rng([seed, number, i]))
            for i in range(_BROWN_VIEWS if coloured else 1)
        ]
        images += [
            prepare_image(view, loaded.labels, nucleus_diameter) for view in views
        ]
    return images


def _training_pairs(folders: Sequence[Path]) -> Iterator[LabelledImage]:
    """Load the training images of folders one after the other."""
    found = False
    for folder in folders:
        listed = (folder / SPLITS_FILE).exists()
        train = names_of_split(folder, "train") if listed else ()
        names = {composed_name(name) for name in train}
        for pair in find_pairs(folder / "images", folder / "labels"):
            name = composed_name(pair.name)
            if name in names if listed else not name.startswith("test"):
                found = True
                yield load_pair(pair)
    if not found:
        raise LabelFormatError(
            f"There are no training images in {', '.join(map(str, folders))}. "
            "Each needs an images and a labels folder with files of the same names."
        )


def _has_colours(image: npt.NDArray[np.uint8]) -> bool:
    return bool((image != image[..., :1]).any())


def _fraction(state: TrainingState, config: TrainingConfig) -> float:
    of_steps = state.step / config.steps
    of_time = state.seconds / (60 * config.max_minutes) if config.max_minutes else 0.0
    return max(of_steps, of_time)
