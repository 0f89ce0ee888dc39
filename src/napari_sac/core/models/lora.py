"""LoRA on q and v of SAM's image encoder, in peft's own form.

``h = W x + (alpha / rank) B A x``: A and B are trained, W is not. B begins as zero, so
a fresh LoRA changes nothing. peft injects into the model in place; it stays a ``Sam``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from peft import LoraConfig
    from segment_anything.modeling import Sam
    from torch import Tensor, nn

PEFT_PREFIX = "base_model.model."
"""What peft puts before every name in ``adapter_model.safetensors``."""

_OURS = re.compile(
    r"base_model\.model\.image_encoder\.blocks\.\d+\.attn\.[qv]\.lora_[AB]\.weight"
)
_A, _B = ".lora_A.weight", ".lora_B.weight"


def lora_config(
    rank: int, alpha: float | None = None, blocks: Iterable[int] | None = None
) -> LoraConfig:
    """Return peft's configuration of LoRA on q and v.

    Parameters
    ----------
    rank : int
        Width of the bottleneck, 1 or more.
    alpha : float, optional
        Scale of the update times ``rank``; by default ``rank``, so that the scale is 1.
    blocks : iterable of int, optional
        Indices of the encoder's blocks to adapt; by default all.
    """
    from peft import LoraConfig

    numbers = r"\d+" if blocks is None else f"({'|'.join(map(str, blocks))})"
    return LoraConfig(
        r=rank,
        lora_alpha=rank if alpha is None else alpha,  # type: ignore[arg-type]
        lora_dropout=0.0,
        bias="none",
        target_modules=rf"image_encoder\.blocks\.{numbers}\.attn\.[qv]",
    )


def inject_lora(
    sam: Sam,
    rank: int,
    alpha: float | None = None,
    blocks: Iterable[int] | None = None,
) -> None:
    """Add a fresh LoRA to ``sam``, in place; see :func:`lora_config`.

    Raises
    ------
    ValueError
        If the attention of ``sam`` is not split, or no block has one of the numbers.
    """
    from peft import inject_adapter_in_model

    inject_adapter_in_model(lora_config(rank, alpha, blocks), sam)


def lora_state_dict(sam: Sam) -> dict[str, Tensor]:
    """Return the injected LoRA under the names of ``adapter_model.safetensors``.

    Raises
    ------
    ValueError
        If ``sam`` has no LoRA.
    """
    from peft import get_peft_model_state_dict

    if not hasattr(sam, "peft_config"):
        raise ValueError("the model has no LoRA: call inject_lora first")
    state = get_peft_model_state_dict(sam)
    return {PEFT_PREFIX + name: tensor for name, tensor in state.items()}


def set_trainable(sam: Sam, *, lora: bool = True) -> None:
    """Have the mask decoder learn, and with ``lora`` that; all else never does."""
    for name, parameter in sam.named_parameters():
        parameter.requires_grad_(
            name.startswith("mask_decoder.") or (lora and ".lora_" in name)
        )


def describe_lora_misfit(sam: Sam, weights: Mapping[str, Tensor]) -> str | None:
    """Return in words why a LoRA file cannot be merged into ``sam``, or None."""
    layers = dict(sam.image_encoder.named_modules())
    if not weights:
        return "it has no LoRA weights"
    for name, tensor in weights.items():
        layer = layers.get(_layer_name(name))
        partner = weights.get(
            name.replace(_A, _B) if name.endswith(_A) else name.replace(_B, _A)
        )
        if not name.endswith((_A, _B)) or not isinstance(layer, torch.nn.Linear):
            return f"there is no layer for {name}"
        if partner is None or partner is tensor:
            return f"{name} has no partner"
        a, b = (tensor, partner) if name.endswith(_A) else (partner, tensor)
        if (*b.shape[:1], *a.shape[1:]) != layer.weight.shape or a.shape[:1] != (
            b.shape[1:]
        ):
            return f"{name} has the shape {tuple(tensor.shape)}"
    return None


def describe_training_misfit(weights: Mapping[str, Tensor]) -> str | None:
    """Return in words why a LoRA that can be merged cannot be trained on, or None."""
    for name in weights:
        if not _OURS.fullmatch(name):
            return f"{name} is not on q or v"
    if len({len(tensor) for name, tensor in weights.items() if name.endswith(_A)}) > 1:
        return "its layers have several ranks"
    return None


def merge_lora_weights(sam: Sam, weights: Mapping[str, Tensor], scale: float) -> None:
    """Add the LoRA of a file to the base weights of ``sam``, in place.

    The same as injecting, loading and merging with peft, whose import takes as long as
    torch's own: for inference it is not needed.

    Parameters
    ----------
    sam : Sam
        With split attention and no LoRA injected.
    weights : mapping of str to tensor
        As :func:`lora_state_dict` returns it.
    scale : float
        LoRA's alpha divided by its rank.
    """
    layers = dict(sam.image_encoder.named_modules())
    for name, a in weights.items():
        if name.endswith(_A):
            layer: nn.Linear = layers[_layer_name(name)]
            b = weights[name.replace(_A, _B)]
            update = scale * (b.float() @ a.float())
            with torch.no_grad():
                layer.weight += update.to(layer.weight)


def _layer_name(name: str) -> str:
    """Return which module of the image encoder a LoRA tensor belongs to."""
    return (
        name.removeprefix(PEFT_PREFIX)
        .removeprefix("image_encoder.")
        .removesuffix(_A)
        .removesuffix(_B)
    )
