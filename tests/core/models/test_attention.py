"""SplitAttention computes what SAM's stock attention computes."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from napari_sac.core.models.attention import (
    SplitAttention,
    fuse_qkv,
    split_attention,
    split_qkv,
)
from napari_sac.core.models.sam import SAC_TINY, VIT_B, build_sam

if TYPE_CHECKING:
    from segment_anything.modeling import Sam


def with_random_positions(sam: Sam) -> Sam:
    """Return the model with random relative positions: they initialise to zero."""
    for name, parameter in sam.named_parameters():
        if "rel_pos" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return sam


def relative_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("tokens", [(14, 14), (20, 24)])
@pytest.mark.parametrize("rel_pos", [True, False])
def test_one_attention_equals_stock(tokens: tuple[int, int], rel_pos: bool) -> None:
    """14 x 14 tokens take the explicit product, 20 x 24 the fused kernel."""
    torch.manual_seed(0)
    from segment_anything.modeling.image_encoder import Attention, ImageEncoderViT

    stock = Attention(32, num_heads=4, use_rel_pos=rel_pos, input_size=tokens)
    if rel_pos:
        torch.nn.init.normal_(stock.rel_pos_h)
        torch.nn.init.normal_(stock.rel_pos_w)
    holder = ImageEncoderViT(img_size=16, embed_dim=32, depth=1, num_heads=4)
    holder.blocks[0].attn = copy.deepcopy(stock)
    split_attention(holder)
    split = holder.blocks[0].attn
    assert isinstance(split, SplitAttention)
    x = torch.randn(2, *tokens, 32)
    with torch.inference_mode():
        assert relative_difference(split(x), stock(x)) < 1e-5


def test_vit_b_encoder_equals_stock() -> None:
    """Windowed and global blocks, at the size and padding of the real model."""
    torch.manual_seed(0)
    stock = with_random_positions(build_sam(VIT_B, split=False)).image_encoder
    image = torch.randn(1, 3, VIT_B.image_size, VIT_B.image_size)
    with torch.inference_mode():
        expected = stock(image)
        split_attention(stock)
        assert relative_difference(stock(image), expected) < 1e-5
    assert all(isinstance(block.attn, SplitAttention) for block in stock.blocks)
    windows = {block.window_size for block in stock.blocks}
    assert windows == {0, 14}, "both kinds of block were there"


def test_gradients_reach_q_k_v_and_positions() -> None:
    attention = SplitAttention(16, 2, bias=True, rel_pos_sizes=(7, 7))
    attention(torch.randn(1, 4, 4, 16)).sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad is not None, name


def test_fuse_is_the_inverse_of_split() -> None:
    stock = build_sam(replace(SAC_TINY, depth=2), split=False).state_dict()
    back = fuse_qkv(split_qkv(stock))
    assert back.keys() == stock.keys()
    for name, value in stock.items():
        assert torch.equal(back[name], value), name


def test_split_leaves_the_checkpoint_loadable() -> None:
    torch.manual_seed(1)
    stock = build_sam(replace(SAC_TINY, depth=2), split=False)
    split = build_sam(replace(SAC_TINY, depth=2))
    split.load_state_dict(split_qkv(stock.state_dict()))
    x = torch.randn(1, 3, 256, 256)
    with torch.inference_mode():
        assert (
            relative_difference(split.image_encoder(x), stock.image_encoder(x)) < 1e-5
        )
