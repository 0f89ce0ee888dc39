"""Decode prompts from a window of the embedding: the one place with SAM's (x, y).

A nucleus covers few of an embedding's tokens, so SAM's mask decoder is given only a
K x K window around each prompt, with those tokens' positional encoding, and only that
window is upsampled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

NO_POINT = -1
"""SAM's label of a row that pads a prompt to the length of its neighbours."""


def window_origins(
    points_yx: Tensor, window: int, grid: int, patch_size: int
) -> Tensor:
    """Return the first token (y, x) of each prompt's window.

    Parameters
    ----------
    points_yx : (P, 2) float tensor
        Where to centre, in pixels of the encoder's input.
    window, grid : int
        Side of the window and of the embedding, in tokens.
    patch_size : int
        Pixels a token.

    Returns
    -------
    (P, 2) int64 tensor
        Windows lie inside the embedding, so those near its border are not centred.
    """
    token_edge = torch.round((points_yx + 0.5) / patch_size)
    origins = token_edge.to(torch.int64) - window // 2
    return origins.clamp(0, grid - window)


def gather_windows(
    features: Tensor, image_index: Tensor, origins: Tensor, window: int
) -> Tensor:
    """Return windows (P, C, window, window) cut from features (B, C, h, w).

    Parameters
    ----------
    features : (B, C, h, w) float tensor
    image_index : (P,) int64 tensor
        Which of the B embeddings each window is cut from.
    origins : (P, 2) int64 tensor
        First token (y, x) of each window.
    window : int
        Side of the windows in tokens.
    """
    steps = torch.arange(window, device=features.device)
    rows = (origins[:, 0, None] + steps)[:, :, None]
    columns = (origins[:, 1, None] + steps)[:, None, :]
    windows = features.permute(0, 2, 3, 1)[image_index[:, None, None], rows, columns]
    return windows.permute(0, 3, 1, 2)


def decode_windows(
    sam: Sam,
    windows: Tensor,
    origins: Tensor,
    points_yx: Tensor,
    signs: Tensor,
    *,
    local_frame: bool,
) -> tuple[Tensor, Tensor]:
    """Return mask logits and predicted IoU of each prompt, from its window alone.

    Parameters
    ----------
    sam : Sam
        Its prompt encoder and mask decoder are used; single-mask output.
    windows : (P, C, K, K) float tensor
        As :func:`gather_windows` returns them.
    origins : (P, 2) int64 tensor
        First token (y, x) of each window in its embedding.
    points_yx : (P, N, 2) float tensor
        The prompts' points in pixels of the encoder's input.
    signs : (P, N) int tensor
        1 positive, 0 negative, -1 no point.
    local_frame : bool
        Whether positions count from the middle of the window (a model trained so sees
        each nucleus alike, wherever it lies) or from the corner of the embedding
        (Meta's models).

    Returns
    -------
    logits : (P, 4 K, 4 K) float tensor
    predicted_iou : (P,) float tensor
    """
    window = windows.shape[-1]
    encoder = sam.prompt_encoder
    grid = encoder.image_embedding_size[0]
    patch_size = encoder.input_image_size[0] / grid
    if local_frame:
        frame = torch.full_like(origins, (grid - window) // 2)
        points_yx = points_yx + ((frame - origins) * patch_size)[:, None]
    else:
        frame = origins
    sparse, _ = encoder(points=(points_yx.flip(-1), signs), boxes=None, masks=None)
    encoding = encoder.get_dense_pe()
    if local_frame:
        start = (grid - window) // 2
        encoding = encoding[..., start : start + window, start : start + window]
        encoding = encoding.expand(len(windows), -1, -1, -1)
    else:
        first = torch.zeros(len(windows), dtype=torch.int64, device=windows.device)
        encoding = gather_windows(encoding, first, frame, window)
    source = windows + encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    return _predict_single_mask(sam, source, encoding, sparse)


def _predict_single_mask(
    sam: Sam, source: Tensor, encoding: Tensor, sparse: Tensor
) -> tuple[Tensor, Tensor]:
    """Do what ``MaskDecoder.predict_masks`` does, with an embedding for each prompt."""
    decoder = sam.mask_decoder
    count, channels, height, width = source.shape
    output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([output_tokens.expand(count, -1, -1), sparse], dim=1)
    states, image_tokens = decoder.transformer(source, encoding, tokens)
    image_tokens = image_tokens.transpose(1, 2).reshape(count, channels, height, width)
    upscaled = decoder.output_upscaling(image_tokens)
    weights = decoder.output_hypernetworks_mlps[0](states[:, 1])
    logits = torch.einsum("pc,pchw->phw", weights, upscaled)
    predicted_iou = decoder.iou_prediction_head(states[:, 0])[:, 0]
    return logits, cast("Tensor", predicted_iou)
