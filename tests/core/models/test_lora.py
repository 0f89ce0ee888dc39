"""LoRA adapts q and v and nothing else, and begins by changing nothing."""

import copy

import pytest
import torch

from napari_sac.core.models.lora import (
    describe_lora_misfit,
    inject_lora,
    lora_config,
    lora_state_dict,
    merge_lora_weights,
    set_trainable,
)
from napari_sac.core.models.sam import SamArchitecture, build_sam

ARCHITECTURE = SamArchitecture(
    image_size=64,
    patch_size=8,
    embed_dim=32,
    depth=3,
    num_heads=2,
    global_blocks=(2,),
    window_size=4,
    prompt_dim=16,
    decoder_mlp_dim=32,
)


@pytest.fixture
def sam():
    torch.manual_seed(0)
    return build_sam(ARCHITECTURE)


@pytest.fixture
def image():
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def encode(sam, image):
    with torch.inference_mode():
        return sam.image_encoder(image)


def fill(sam):
    """Give an injected LoRA weights as if it were trained."""
    generator = torch.Generator().manual_seed(2)
    for name, parameter in sam.named_parameters():
        if ".lora_" in name:
            with torch.no_grad():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def test_fresh_lora_changes_nothing(sam, image):
    before = encode(sam, image)
    kind = type(sam)
    inject_lora(sam, rank=4)
    assert type(sam) is kind
    assert torch.equal(encode(sam, image), before)


def test_only_q_and_v_have_lora(sam):
    inject_lora(sam, rank=4)
    names = {n for n, _ in sam.named_parameters() if ".lora_" in n}
    assert names == {
        f"image_encoder.blocks.{i}.attn.{layer}.lora_{matrix}.default.weight"
        for i in range(3)
        for layer in "qv"
        for matrix in "AB"
    }
    weights = dict(sam.named_parameters())
    assert weights["image_encoder.blocks.1.attn.q.lora_A.default.weight"].shape == (
        4,
        32,
    )
    assert weights["image_encoder.blocks.1.attn.v.lora_B.default.weight"].shape == (
        32,
        4,
    )


def test_chosen_blocks_alone_have_lora(sam):
    inject_lora(sam, rank=4, blocks=[0, 2])
    blocks = {n.split(".")[2] for n, _ in sam.named_parameters() if ".lora_" in n}
    assert blocks == {"0", "2"}


def test_block_that_is_not_there_is_a_wrong_call(sam):
    with pytest.raises(ValueError, match="not found"):
        inject_lora(sam, rank=4, blocks=[7])


@pytest.mark.parametrize("alpha", [None, 3, 16])
def test_merged_equals_unmerged(sam, image, alpha):
    plain, merged = encode(sam, image), copy.deepcopy(sam)
    inject_lora(sam, rank=4, alpha=alpha)
    fill(sam)
    unmerged, weights = encode(sam, image), lora_state_dict(sam)
    assert not torch.allclose(unmerged, plain, atol=0.1)
    assert describe_lora_misfit(merged, weights) is None
    merge_lora_weights(merged, weights, scale=lora_config(4, alpha).lora_alpha / 4)
    torch.testing.assert_close(encode(merged, image), unmerged, rtol=1e-4, atol=1e-5)
    assert set(merged.state_dict()) == set(build_sam(ARCHITECTURE).state_dict())


def test_names_in_files_are_those_of_peft(sam):
    inject_lora(sam, rank=2, blocks=[0])
    assert set(lora_state_dict(sam)) == {
        f"base_model.model.image_encoder.blocks.0.attn.{layer}.lora_{matrix}.weight"
        for layer in "qv"
        for matrix in "AB"
    }


def test_state_of_a_model_without_lora_is_a_wrong_call(sam):
    with pytest.raises(ValueError, match="inject_lora"):
        lora_state_dict(sam)


@pytest.mark.parametrize("lora", [True, False])
def test_what_learns_gets_gradients_and_nothing_else(sam, image, lora):
    inject_lora(sam, rank=4)
    fill(sam)
    set_trainable(sam, lora=lora)
    features = sam.image_encoder(image)
    point = (torch.tensor([[[20.0, 30.0]]]), torch.tensor([[1]]))
    sparse, dense = sam.prompt_encoder(points=point, boxes=None, masks=None)
    masks, iou = sam.mask_decoder(
        image_embeddings=features,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
    )
    (masks.square().mean() + iou.mean()).backward()
    got = {n for n, p in sam.named_parameters() if p.grad is not None}
    assert any(n.startswith("mask_decoder.") for n in got)
    assert {n for n in got if n.startswith("image_encoder.")} == {
        n for n, _ in sam.named_parameters() if lora and ".lora_" in n
    }
    assert not any(n.startswith("prompt_encoder.") for n in got)


def test_lora_that_does_not_fit_is_told(sam):
    inject_lora(sam, rank=4)
    good = lora_state_dict(sam)
    plain = build_sam(ARCHITECTURE)
    first = next(iter(good))
    half = {n: t for n, t in good.items() if n != first}
    stranger = {first.replace("blocks.0", "blocks.9"): good[first]}
    wide = {n: torch.zeros(*t.shape[:-1], t.shape[-1] + 1) for n, t in good.items()}
    assert "no partner" in describe_lora_misfit(plain, half)
    assert "no layer" in describe_lora_misfit(plain, stranger)
    assert "shape" in describe_lora_misfit(plain, wide)
    assert "no layer" in describe_lora_misfit(plain, {"x": torch.zeros(1)})
    assert "no LoRA" in describe_lora_misfit(plain, {})
    scalars = {n: torch.tensor(1.0) for n in good}
    assert "shape" in describe_lora_misfit(plain, scalars)
