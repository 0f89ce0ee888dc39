"""What the tests look at: drawn nuclei, and models built in milliseconds."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from skimage.draw import disk

from napari_sac.core.device import select_device
from napari_sac.core.models.prompt_generator import PromptGenerator
from napari_sac.core.models.registry import Model, get_spec
from napari_sac.core.models.sam import SamArchitecture, build_sam


class Nuclei(NamedTuple):
    """A synthetic image and its truth."""

    image: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]


def draw_nuclei(
    shape: tuple[int, int] = (160, 200),
    count: int = 12,
    radius: float = 11,
    seed: int = 0,
) -> Nuclei:
    """Return bright discs that do not touch, on a dark noisy ground."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    image = rng.normal(30, 4, shape)
    placed = 0
    for _ in range(2000):
        if placed == count:
            break
        centre = rng.uniform(radius + 2, np.array(shape) - radius - 2)
        around = disk(centre, radius + 4, shape=shape)
        if labels[around].any():
            continue
        placed += 1
        inside = disk(centre, radius * rng.uniform(0.8, 1), shape=shape)
        labels[inside] = placed
        image[inside] = rng.normal(190, 8, len(inside[0]))
    grey = np.clip(image, 0, 255).astype(np.uint8)
    return Nuclei(np.repeat(grey[..., None], 3, axis=2), labels)


def build_tiny_model(seed: int = 0, *, local_frame: bool = True) -> Model:
    """Return a model whose SAM sees 64 x 64 pixels in 8 x 8 tokens."""
    torch.manual_seed(seed)
    architecture = SamArchitecture(
        image_size=64,
        patch_size=8,
        embed_dim=16,
        depth=2,
        num_heads=2,
        global_blocks=(1,),
        window_size=4,
        prompt_dim=16,
        decoder_mlp_dim=32,
        decoder_heads=2,
        num_multimask_outputs=0,
        stem_widths=(8, 8),
        absolute_positions=False,
        position_scale=2.0,
    )
    spec = replace(
        get_spec("sac_tiny"), sizes=architecture, window=4, local_frame=local_frame
    )
    return Model(
        spec=spec,
        sam=build_sam(architecture).requires_grad_(False),
        generator=PromptGenerator((4, 4, 4, 4)).eval().requires_grad_(False),
        device=select_device("cpu"),
        adapter=None,
        key=f"tiny {seed}",
    )


class BrightnessGenerator(torch.nn.Module):
    """Stands in for a trained generator: bright is foreground, blurred is distance."""

    def receptive_radius(self) -> int:
        """Return the reach of the blur below."""
        return 32

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return foreground and distance logits (B, 2, H, W) of (B, 3, H, W)."""
        bright = (image.mean(1, keepdim=True) > 0).float()
        inside = torch.nn.functional.avg_pool2d(bright, 17, stride=1, padding=8)
        return torch.cat([bright * 12 - 6, inside.logit(1e-3)], dim=1)
