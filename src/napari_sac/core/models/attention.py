"""Exact fast attention for SAM's image encoder, with q, k and v as separate layers.

SAM adds a decomposed relative position bias ``q . Rh + q . Rw`` to the attention
scores. That sum is an inner product, so it fits into ``q`` and ``k`` as extra
channels, and plain scaled dot product attention computes the same numbers without
ever building the (tokens x tokens) bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from segment_anything.modeling.image_encoder import get_rel_pos
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from segment_anything.modeling import ImageEncoderViT


class SplitAttention(nn.Module):
    """Multi-head attention that equals SAM's ``Attention``, with q, k, v split.

    LoRA adapts ``q`` and ``v`` (and not ``k``), which SAM's fused ``qkv`` does not
    allow: a peft adapter on it would share one low-rank input between the three.

    Parameters
    ----------
    dim : int
        Token width; a multiple of ``num_heads``.
    num_heads : int
        Number of heads.
    bias : bool
        Whether q, k and v have a bias.
    rel_pos_sizes : (int, int) or None
        Lengths of ``rel_pos_h`` and ``rel_pos_w``; None for no relative positions.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        bias: bool,
        rel_pos_sizes: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim, bias=bias)
        self.k = nn.Linear(dim, dim, bias=bias)
        self.v = nn.Linear(dim, dim, bias=bias)
        self.proj = nn.Linear(dim, dim)
        self.use_rel_pos = rel_pos_sizes is not None
        if rel_pos_sizes is not None:
            head_dim = dim // num_heads
            self.rel_pos_h = nn.Parameter(torch.zeros(rel_pos_sizes[0], head_dim))
            self.rel_pos_w = nn.Parameter(torch.zeros(rel_pos_sizes[1], head_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return attended tokens.

        Parameters
        ----------
        x : (B, H, W, dim) float tensor

        Returns
        -------
        (B, H, W, dim) float tensor
        """
        b, h, w, dim = x.shape
        tokens = x.reshape(b, h * w, dim)
        q, k, v = (
            layer(tokens).view(b, h * w, self.num_heads, -1).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        head_dim = q.shape[-1]
        scaled_q = q * head_dim**-0.5
        if self.use_rel_pos:
            scaled_q, k = self._with_position_channels(scaled_q, q, k, h, w)
        out = _attend(scaled_q, k, v).transpose(1, 2).reshape(b, h, w, dim)
        return cast("Tensor", self.proj(out))

    def _with_position_channels(
        self, scaled_q: Tensor, q: Tensor, k: Tensor, h: int, w: int
    ) -> tuple[Tensor, Tensor]:
        b, heads = q.shape[:2]
        rel_h = get_rel_pos(h, h, _near(self.rel_pos_h, h)).to(q.dtype)
        rel_w = get_rel_pos(w, w, _near(self.rel_pos_w, w)).to(q.dtype)
        grid = q.reshape(b, heads, h, w, -1)
        bias_h = torch.einsum("bnhwc,hkc->bnhwk", grid, rel_h)
        bias_w = torch.einsum("bnhwc,wkc->bnhwk", grid, rel_w)
        rows = torch.eye(h, dtype=k.dtype, device=k.device).repeat_interleave(w, dim=0)
        columns = torch.eye(w, dtype=k.dtype, device=k.device).repeat(h, 1)
        position = torch.cat([rows, columns], dim=1).expand(b, heads, -1, -1)
        bias = torch.cat([bias_h, bias_w], dim=-1).flatten(2, 3)
        return torch.cat([scaled_q, bias], dim=-1), torch.cat([k, position], dim=-1)


def _near(rel_pos: Tensor, length: int) -> Tensor:
    """Return the entries for distances below ``length``.

    SAM would stretch the table over an input that is smaller than its own; to train on
    smaller crops, near has to stay near.
    """
    spare = max(0, len(rel_pos) - (2 * length - 1))
    return rel_pos[spare // 2 : len(rel_pos) - spare // 2]


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T) v; v may be narrower than q and k."""
    tokens, low_precision = q.shape[-2], q.dtype != torch.float32
    if q.device.type == "cpu" and tokens <= (1024 if low_precision else 256):
        # benchmarks/attention.py: in bfloat16 up to four times faster than the fused
        # kernel, in float32 about as fast for windows
        return (q @ k.transpose(-2, -1)).softmax(dim=-1) @ v
    # the fused kernels want equal widths that are multiples of 8
    width = -(-q.shape[-1] // 8) * 8
    q, k, wide_v = (F.pad(x, (0, width - x.shape[-1])) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, wide_v, scale=1.0)
    return out[..., : v.shape[-1]]


def split_attention(encoder: ImageEncoderViT) -> None:
    """Replace, in place, every attention of a SAM encoder by :class:`SplitAttention`.

    The output is the same up to rounding (1e-5 relative in float32).
    """
    for block in encoder.blocks:
        stock = block.attn
        weight = stock.qkv.weight
        split = SplitAttention(
            weight.shape[1],
            stock.num_heads,
            bias=stock.qkv.bias is not None,
            rel_pos_sizes=(len(stock.rel_pos_h), len(stock.rel_pos_w))
            if stock.use_rel_pos
            else None,
        ).to(weight.device, weight.dtype)
        state = split_qkv({f"attn.{k}": v for k, v in stock.state_dict().items()})
        split.load_state_dict({k.removeprefix("attn."): v for k, v in state.items()})
        split.train(stock.training)
        block.attn = split


def split_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return SAM's state dict with ``attn.qkv`` as ``attn.q``, ``.k``, ``.v``."""
    result: dict[str, Tensor] = {}
    for name, value in state.items():
        if "attn.qkv." in name:
            for part, chunk in zip("qkv", value.chunk(3), strict=True):
                result[name.replace("attn.qkv.", f"attn.{part}.")] = chunk.clone()
        else:
            result[name] = value
    return result


def fuse_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the inverse of :func:`split_qkv`: SAM's own names."""
    result: dict[str, Tensor] = {}
    for name, value in state.items():
        if "attn.q." in name:
            parts = [state[name.replace("attn.q.", f"attn.{p}.")] for p in "qkv"]
            result[name.replace("attn.q.", "attn.qkv.")] = torch.cat(parts)
        elif "attn.k." not in name and "attn.v." not in name:
            result[name] = value
    return result
