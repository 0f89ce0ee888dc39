"""The trainable prompt generator: a small U-Net on the raw image.

Here is the network alone. How its maps become prompts is in
:mod:`napari_sac.core.inference.proposals`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

GENERATOR_STRIDE = 16
"""Image sizes are padded to a multiple of this."""


def generator_input(pixels: Tensor) -> Tensor:
    """Return pixels in [0, 255], of any type and shape, as the generator takes them."""
    return (pixels.float() - 127.5) / 128


class PromptGenerator(nn.Module):
    """U-Net from an image to a foreground map and a distance-to-border map.

    All normalisation is by batch statistics frozen at inference, so that each output
    pixel depends on the pixels within :meth:`receptive_radius` and on nothing else:
    a tiled run equals an untiled one.

    Parameters
    ----------
    widths : sequence of int
        Channels at stride 2, 4, 8 and 16.

    References
    ----------
    The auto-prompt generator of Segment Any Cell, M = F(theta_u, I)
    (arXiv 2401.13220). The U-Net and the distance map are our choice.
    """

    def __init__(self, widths: Sequence[int] = (32, 64, 96, 128)) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.down = nn.ModuleList()
        before = 3 * 4
        for width in self.widths:
            self.down.append(_double_convolution(before, width))
            before = width
        self.up = nn.ModuleList()
        for width in reversed(self.widths[:-1]):
            self.up.append(_double_convolution(before + width, width))
            before = width
        self.head = nn.Conv2d(before, 2 * 4, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the two maps as logits.

        Parameters
        ----------
        image : (B, 3, H, W) float tensor
            As :func:`generator_input` gives it; H and W multiples of
            ``GENERATOR_STRIDE``.

        Returns
        -------
        (B, 2, H, W) float tensor
            Channel 0: foreground logit. Channel 1: logit of the distance to the
            border divided by its maximum in the nucleus.
        """
        x = F.pixel_unshuffle(image, 2)
        skips = []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        for block, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat([x, skip], dim=1))
        return F.pixel_shuffle(self.head(x), 2)

    def receptive_radius(self) -> int:
        """Return how far, in pixels, an output pixel can see; a multiple of the stride.

        Two 3 x 3 convolutions at stride s reach 2 s pixels, once on the way down and
        once on the way up; pooling and repeating add up to one stride more.
        """
        radius = 0
        deepest = len(self.widths) - 1
        for level in range(deepest + 1):
            stride = 2 ** (level + 1)
            radius += (2 if level == deepest else 4) * stride + stride
        return -(-radius // GENERATOR_STRIDE) * GENERATOR_STRIDE


def _double_convolution(before: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
