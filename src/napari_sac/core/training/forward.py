"""What the networks compute in a training step, and in which precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from napari_sac.core.config import DecodeConfig
from napari_sac.core.inference.generator_maps import SUREST
from napari_sac.core.inference.window_decoding import (
    NO_POINT,
    decode_windows,
    gather_windows,
    window_origins,
)
from napari_sac.core.training.sampling import PromptBatch

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from napari_sac.core.models.registry import ModelSpec
    from napari_sac.core.training.sampling import Crops

_CLICK_BLUR = 5
"""Side, in mask pixels, of the square that a wrong part must fill to be clicked."""


def native_bfloat16(device: torch.device) -> bool:
    """Return whether bfloat16 is computed by the processor itself.

    Where it is emulated it is slower than float32: 15 s against 4 s a step of
    ``sac_tiny`` on two cores with AVX2 alone. torch says which instructions a CPU has
    (``torch.cpu.get_capabilities``).
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def window_of_step(step: int, spec: ModelSpec, grid: int) -> int:
    """Return the side in tokens of a step's windows.

    Every fourth step sees the larger window that a large nucleus grows into, if one
    fits into an embedding of side ``grid``.
    """
    wide = step % 4 == 3 and 2 * spec.window <= grid
    return spec.window * (2 if wide else 1)


def encoder_input(sam: Sam, image: Tensor) -> Tensor:
    """Return pixels in [0, 255] as the image encoder takes them."""
    pixels: Tensor = (image - sam.pixel_mean) / sam.pixel_std
    return pixels


def encode(sam: Sam, pixels: Tensor, *, checkpointing: bool = False) -> Tensor:
    """Return the embedding of crops, of any size that is a multiple of the patch.

    Parameters
    ----------
    sam : Sam
    pixels : (B, 3, S, S) float tensor
        As :func:`encoder_input` returns them. Where S is less than the model's input,
        positions are as in a corner of it.
    checkpointing : bool
        Whether to compute each block twice, and keep nothing of it in between.

    Returns
    -------
    (B, C, s, s) float tensor
    """
    encoder = sam.image_encoder
    tokens = encoder.patch_embed(pixels)
    if encoder.pos_embed is not None:
        tokens = tokens + encoder.pos_embed[:, : tokens.shape[1], : tokens.shape[2]]
    for block in encoder.blocks:
        if checkpointing and torch.is_grad_enabled():
            tokens = checkpoint(block, tokens, use_reentrant=False)
        else:
            tokens = block(tokens)
    embedding: Tensor = encoder.neck(tokens.permute(0, 3, 1, 2))
    return embedding


def decode_crops(
    sam: Sam, spec: ModelSpec, features: Tensor, prompts: PromptBatch, window: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return mask logits, predicted IoU and first tokens of each prompt's window."""
    patch = spec.architecture.patch_size
    origins = window_origins(prompts.points_yx[:, 0], window, features.shape[-1], patch)
    windows = gather_windows(features, prompts.image_index, origins, window)
    logits, predicted_iou = decode_windows(
        sam,
        windows,
        origins,
        prompts.points_yx,
        prompts.signs,
        local_frame=spec.local_frame,
    )
    return logits, predicted_iou, origins


def foreground_cells(maps: Tensor, grid: int) -> Tensor:
    """Return what decoding adds to each mask, at the resolution of masks.

    The generator learns from its own loss alone: no gradient comes back this way.

    Parameters
    ----------
    maps : (B, 2, S, S) float tensor
        Logits of the prompt generator.
    grid : int
        Side of the embedding, in tokens.

    Returns
    -------
    (B, 4 grid, 4 grid) float tensor
    """
    clipped = maps[:, :1].detach().float().clamp(-SUREST, SUREST)
    cells = F.interpolate(
        clipped, (4 * grid, 4 * grid), mode="bilinear", antialias=True
    )
    return DecodeConfig.generator_weight * cells[:, 0]


def windows_of_cells(
    cells: Tensor, prompts: PromptBatch, origins: Tensor, window: int
) -> Tensor:
    """Return the part (P, 4 K, 4 K) of the cells that each prompt's mask covers.

    Parameters
    ----------
    cells : (B, 4 g, 4 g) float tensor
    prompts : PromptBatch
    origins : (P, 2) int64 tensor
        First token of each window.
    window : int
        Side K of the windows in tokens.
    """
    return gather_windows(cells[:, None], prompts.image_index, 4 * origins, 4 * window)[
        :, 0
    ]


def decode_whole(
    sam: Sam, spec: ModelSpec, features: Tensor, whole: PromptBatch
) -> tuple[Tensor, Tensor]:
    """Return logits and predicted IoU of one decoding with all prompts of a crop."""
    return decode_windows(
        sam,
        features[whole.image_index],
        torch.zeros(1, 2, dtype=torch.int64, device=features.device),
        whole.points_yx,
        whole.signs,
        local_frame=spec.local_frame,
    )


def whole_crop_prompt(crops: Crops, prompts: PromptBatch, i: int) -> PromptBatch:
    """Return all positives of crop ``i`` as one prompt for every nucleus."""
    device = crops.image.device
    rows = (prompts.image_index == i) & (prompts.label > 0)
    points = prompts.points_yx[rows, 0][None]
    signs = torch.ones(points.shape[:2], dtype=torch.int64, device=device)
    if points.shape[1] == 0:
        points = torch.zeros(1, 1, 2, device=device)
        signs = torch.full((1, 1), NO_POINT, device=device)
    one = torch.ones(1, dtype=torch.int64, device=device)
    return PromptBatch(one * i, one, points, signs)


def whole_crop_targets(
    crops: Crops, whole: PromptBatch, cell: int
) -> tuple[Tensor, Tensor]:
    """Return the foreground of a crop at its mask's resolution, and where it counts."""
    foreground, known = (
        F.avg_pool2d(plane.float()[whole.image_index, None], cell)[:, 0]
        for plane in (crops.labels > 0, crops.known)
    )
    return foreground, (known > 0.99).float()


def corrective_clicks(
    logits: Tensor,
    truth: Tensor,
    valid: Tensor,
    origins: Tensor,
    prompts: PromptBatch,
    spec: ModelSpec,
) -> PromptBatch:
    """Return the prompts with one click more each: where the mask is most wrong.

    Positive where a part is missing, negative where there is too much, as a person
    would click; no point where the mask is right.

    Parameters
    ----------
    logits, truth, valid : (P, h, w) float tensors
        As for :func:`~napari_sac.core.training.losses.mask_losses`.
    origins : (P, 2) int64 tensor
        First token of each window.
    prompts : PromptBatch
    spec : ModelSpec
    """
    patch = spec.architecture.patch_size
    wrong = ((logits.detach() > 0) != (truth > 0.5)).float() * valid
    missing = wrong * (truth > 0.5)
    parts = torch.stack([missing, wrong - missing], dim=1)
    # the middle of a wrong part: where the most of its surroundings is wrong too
    depth = F.avg_pool2d(
        parts, _CLICK_BLUR, stride=1, padding=_CLICK_BLUR // 2, count_include_pad=True
    )
    depth = (depth * parts).flatten(1)
    best, place = depth.max(1)
    height, width = logits.shape[1:]
    negative = place // (height * width)
    row, column = place % (height * width) // width, place % width
    mask_pixel = patch / 4
    yx = (torch.stack([row, column], 1) + 0.5) * mask_pixel - 0.5 + origins * patch
    sign = torch.where(best > 0, 1 - negative, NO_POINT)
    return PromptBatch(
        prompts.image_index,
        prompts.label,
        torch.cat([prompts.points_yx, yx[:, None].to(prompts.points_yx)], 1),
        torch.cat([prompts.signs, sign[:, None]], 1),
    )
