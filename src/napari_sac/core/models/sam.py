"""Build SAM at any size from the ``segment-anything`` package's own parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import Tensor, nn

from napari_sac.core.models.attention import split_attention


@dataclass(frozen=True)
class SamArchitecture:
    """The sizes of a SAM.

    Parameters
    ----------
    image_size : int
        Side of the square input, in pixels.
    patch_size : int
        Stride of the image encoder, in pixels.
    embed_dim, depth, num_heads : int
        Width, number of blocks and number of heads of the image encoder.
    global_blocks : tuple of int
        Indices of the blocks that attend to the whole input; others attend in windows.
    window_size : int
        Side of those windows, in tokens.
    prompt_dim : int
        Width of the prompt encoder and of the mask decoder.
    decoder_mlp_dim, decoder_heads : int
        Hidden width and number of heads of the mask decoder's transformer.
    num_multimask_outputs : int
        Masks beside the single one; 3 in Meta's models.
    stem_widths : tuple of int
        Channels at stride 2, 4, ... of a convolutional stem in place of SAM's single
        patch convolution; empty for SAM's own. The last is followed by ``embed_dim``.
    absolute_positions : bool
        Whether the encoder adds learned absolute positions.
    position_scale : float
        Spread of the random frequencies of the positional encoding; 1 in Meta's.
    pixel_mean, pixel_std : (float, float, float)
        Normalisation of RGB values in [0, 255].
    """

    image_size: int = 1024
    patch_size: int = 16
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)
    window_size: int = 14
    prompt_dim: int = 256
    decoder_mlp_dim: int = 2048
    decoder_heads: int = 8
    num_multimask_outputs: int = 3
    stem_widths: tuple[int, ...] = ()
    absolute_positions: bool = True
    position_scale: float = 1.0
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    @property
    def grid_size(self) -> int:
        """Side of the embedding, in tokens."""
        return self.image_size // self.patch_size


VIT_B = SamArchitecture()
VIT_L = SamArchitecture(
    embed_dim=1024, depth=24, num_heads=16, global_blocks=(5, 11, 17, 23)
)
VIT_H = SamArchitecture(
    embed_dim=1280, depth=32, num_heads=16, global_blocks=(7, 15, 23, 31)
)
SAC_TINY = SamArchitecture(
    image_size=256,
    patch_size=8,
    embed_dim=192,
    depth=6,
    num_heads=4,
    global_blocks=(3,),
    window_size=8,
    prompt_dim=128,
    decoder_mlp_dim=512,
    decoder_heads=4,
    num_multimask_outputs=0,
    stem_widths=(32, 64),
    absolute_positions=False,
    position_scale=2.0,
    pixel_mean=(127.5, 127.5, 127.5),
    pixel_std=(64.0, 64.0, 64.0),
)


def build_sam(architecture: SamArchitecture, *, split: bool = True) -> Sam:
    """Return a SAM with random weights, in evaluation mode.

    Parameters
    ----------
    architecture : SamArchitecture
        The sizes.
    split : bool
        Whether to replace the stock attention by the exact fast one, with q, k and v
        as separate layers. State dicts of stock models load only into ``split=False``.
    """
    a = architecture
    encoder = ImageEncoderViT(
        img_size=a.image_size,
        patch_size=a.patch_size,
        embed_dim=a.embed_dim,
        depth=a.depth,
        num_heads=a.num_heads,
        mlp_ratio=4,
        out_chans=a.prompt_dim,
        qkv_bias=True,
        norm_layer=_layer_norm,
        use_abs_pos=a.absolute_positions,
        use_rel_pos=True,
        window_size=a.window_size,
        global_attn_indexes=a.global_blocks,
    )
    if a.stem_widths:
        encoder.patch_embed = ConvolutionalStem(a.stem_widths, a.embed_dim)
    prompt_encoder = PromptEncoder(
        embed_dim=a.prompt_dim,
        image_embedding_size=(a.grid_size, a.grid_size),
        input_image_size=(a.image_size, a.image_size),
        mask_in_chans=16,
    )
    prompt_encoder.pe_layer.positional_encoding_gaussian_matrix *= a.position_scale
    mask_decoder = MaskDecoder(
        num_multimask_outputs=a.num_multimask_outputs,
        transformer=TwoWayTransformer(
            depth=2,
            embedding_dim=a.prompt_dim,
            mlp_dim=a.decoder_mlp_dim,
            num_heads=a.decoder_heads,
        ),
        transformer_dim=a.prompt_dim,
        iou_head_depth=3,
        iou_head_hidden_dim=a.prompt_dim,
    )
    sam = Sam(
        image_encoder=encoder,
        prompt_encoder=prompt_encoder,
        mask_decoder=mask_decoder,
        pixel_mean=list(a.pixel_mean),
        pixel_std=list(a.pixel_std),
    )
    if split:
        split_attention(encoder)
    return sam.eval()


class ConvolutionalStem(nn.Module):
    """Overlapping convolutions in place of SAM's one patch convolution.

    A small ViT learns fine borders much sooner from a stem that has seen more than its
    own patch (Xiao et al. 2021, "Early convolutions help transformers see better").

    Parameters
    ----------
    widths : tuple of int
        Channels at stride 2, 4, ...; one residual pair of convolutions each.
    embed_dim : int
        Channels of the result, at one more halving.
    """

    def __init__(self, widths: tuple[int, ...], embed_dim: int) -> None:
        super().__init__()
        stages = []
        before = 3
        for width in (*widths, embed_dim):
            stages.append(_ConvolutionalStage(before, width))
            before = width
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (B, H / s, W / s, embed_dim) of an image (B, 3, H, W)."""
        result: Tensor = self.stages(x).permute(0, 2, 3, 1)
        return result


class _ConvolutionalStage(nn.Module):
    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.refine = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return torch.relu(x + self.refine(x))


def _layer_norm(dim: int) -> nn.LayerNorm:
    return nn.LayerNorm(dim, eps=1e-6)
