"""Curves as SVG, for a report and for a dock; needs nothing that loads slowly."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH, _HEIGHT = 460, 220
_COLOURS = ("#1f6fb4", "#d1495b", "#3a8f5c", "#8e6bb0", "#b0802c")


def draw_curves(
    title: str,
    steps: Sequence[float],
    lines: dict[str, list[float]],
    *,
    size: tuple[int, int] = (_WIDTH, _HEIGHT),
    colours: Sequence[str] = _COLOURS,
) -> str:
    """Return an SVG of lines over the steps, with axes and a key.

    Parameters
    ----------
    title : str
    steps : sequence of float
    lines : dict of str to list of float
        One value a step each.
    size : (int, int), optional
        Width and height in pixels; the text is as large in any.
    colours : sequence of str, optional
        Of the lines.
    """
    width, height = size
    values = [v for line in lines.values() for v in line if math.isfinite(v)]
    low, high = min(values, default=0.0), max(values, default=1.0)
    high = high if high > low else low + 1
    last = max(*steps, 1)
    left, bottom, top = 46, 28, 24
    right = 14 + 7 * max(map(len, lines), default=0)

    def place(x: float, y: float) -> str:
        across = left + (width - left - right) * x / last
        up = height - bottom - (height - top - bottom) * (y - low) / (high - low)
        return f"{across:.1f},{up:.1f}"

    parts = [
        f'<svg width="{width}" height="{height}" role="img" font-size="11" '
        f'font-family="sans-serif"><title>{escape(title)}</title>',
        f'<text x="{left}" y="14">{escape(title)}</text>',
        f'<polyline fill="none" stroke="#888" points="{place(0, high)} '
        f'{place(0, low)} {place(last, low)}"/>',
    ]
    for value in (low, high):
        _, y = place(0, value).split(",")
        parts.append(
            f'<text x="{left - 4}" y="{y}" text-anchor="end">{value:.3g}</text>'
        )
    for step in (0, last):
        x, _ = place(step, low).split(",")
        parts.append(
            f'<text x="{x}" y="{height - 10}" text-anchor="middle">{step:.0f}</text>'
        )
    for i, (name, line) in enumerate(lines.items()):
        points = " ".join(
            place(x, y) for x, y in zip(steps, line, strict=True) if math.isfinite(y)
        )
        colour = colours[i % len(colours)]
        parts.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="2" '
            f'points="{points}"/>'
            f'<text x="{width - right + 6}" y="{top + 8 + 15 * i}" fill="{colour}">'
            f"{escape(name)}</text>"
        )
    return "".join(parts) + "</svg>"
