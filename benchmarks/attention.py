"""Time SAM's attention by the explicit product and by the fused kernel, on this CPU.

The rule in ``core/models/attention.py`` comes from these numbers. One row a shape: a
window of ``sac_tiny`` (64 tokens), of ViT-B (196), a whole tile of ``sac_tiny`` (1024).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]

SHAPES = {
    "64 tokens": (128, 4, 64, 64, 48),
    "196 tokens": (25, 12, 196, 96, 64),
    "1024 tokens": (8, 4, 1024, 112, 48),
}


def explicit(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return attention by two products and a softmax."""
    return (q @ k.transpose(-2, -1)).softmax(-1) @ v


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return attention by the fused kernel, which wants equal widths."""
    wide_v = F.pad(v, (0, q.shape[-1] - v.shape[-1]))
    out = F.scaled_dot_product_attention(q, k, wide_v, scale=1.0)
    return out[..., : v.shape[-1]]


def train(how: Attention, *x: Tensor) -> None:
    """Run forward and backward."""
    how(*x).sum().backward()


def infer(how: Attention, *x: Tensor) -> None:
    """Run forward alone."""
    with torch.inference_mode():
        how(*x)


def milliseconds(call: Callable[[], object], repeats: int = 7) -> float:
    """Return the median time of a call."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2] * 1e3


def main() -> int:
    """Print the table."""
    out = sys.stdout.write
    out("shape          type       pass        explicit ms   fused ms\n")
    for name, (batch, heads, tokens, width, value_width) in SHAPES.items():
        for dtype in (torch.float32, torch.bfloat16):
            shape = (batch, heads, tokens)
            q, k, v = (
                torch.randn(*shape, w, dtype=dtype, requires_grad=True)
                for w in (width, width, value_width)
            )

            for label, run in (("train", train), ("inference", infer)):
                times = [
                    milliseconds(partial(run, how, q, k, v))
                    for how in (explicit, fused)
                ]
                kind = str(dtype).removeprefix("torch.")
                out(f"{name:<14} {kind:<10} {label:<10} ")
                out(f"{times[0]:12.1f} {times[1]:10.1f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
