"""Small SVG charts without a library: bars with errors, curves, scatter."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy import ndarray

from dmgd.evaluation.significance import plus_minus

COLOURS = ("#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#0f766e", "#a16207", "#be185d", "#475569")
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 300, 46, 28


def colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def key(names: Iterable[str]) -> str:
    """The colour of each name."""
    items = "".join(f'<b style="background:{colour(i)}"></b>{escape(name)}' for i, name in enumerate(names))
    return f'<p class="key">{items}</p>'


def bars(scores: Sequence[dict[str, Any]]) -> str:
    """Horizontal bars of the scores in an evaluation's JSON: top-1 after the last epoch, with standard deviations."""
    row, label = 34, 150
    scale = (WIDTH - label - 110) / 100
    parts = []
    for i, score in enumerate(scores):
        mean, error = score["top1"]["mean"], score["top1"]["std"]
        y, end = 6 + i * row, label + mean * scale
        low, high = end - error * scale, end + error * scale
        parts += [
            f'<text x="{label - 8}" y="{y + 17}" text-anchor="end">{escape(score["name"][:20])}</text>',
            f'<rect x="{label}" y="{y}" width="{mean * scale:.1f}" height="24" rx="3" fill="{colour(i)}"/>',
            f'<path d="M{low:.1f} {y + 12}H{high:.1f}M{low:.1f} {y + 6}v12M{high:.1f} {y + 6}v12" class="error"/>',
            f'<text x="{high + 8:.1f}" y="{y + 17}">{plus_minus(score["top1"])}</text>',
        ]
    return _svg(parts, len(scores) * row + 8, "top-1 accuracy of each set")


def curves(series: Iterable[Sequence[tuple[float, float]]]) -> str:
    """Lines of (fraction of the epochs in [0, 1], top-1 in %), with the percentages as grid lines."""

    def y_of(percentage: float) -> float:
        return (HEIGHT - BOTTOM) - percentage / 100 * (HEIGHT - BOTTOM - 10)

    parts = []
    for tick in range(0, 101, 25):
        parts.append(f'<path d="M{LEFT} {y_of(tick):.1f}H{WIDTH - 12}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y_of(tick) + 4:.1f}" text-anchor="end">{tick}</text>')
    parts.append(f'<text x="{WIDTH - 12}" y="{HEIGHT - 6}" text-anchor="end">fraction of the epochs</text>')
    for i, points in enumerate(series):
        line = [(f"{LEFT + x * (WIDTH - LEFT - 12):.1f}", f"{y_of(y):.1f}") for x, y in points]
        path, (x, y) = " ".join(map(",".join, line)), line[-1]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour(i)}" stroke-width="2"/>')
        parts.append(f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour(i)}"/>')
    return _svg(parts, HEIGHT, "learning curves")


def scatter(groups: Sequence[tuple[ndarray, ndarray]]) -> str:
    """Two groups of coordinates (n, 2) and labels: the real images small and pale, the synthetic ones large with an
    outline."""
    everything = np.concatenate([rows for rows, _ in groups]).astype(float)
    low, extent = everything.min(0), np.ptp(everything, 0)
    parts = []
    for (rows, labels), style in zip(groups, ('r="2" opacity="0.3"', 'r="5" class="synthetic"'), strict=True):
        positions = (rows - low) / np.where(extent == 0, 1, extent) * (WIDTH - 20, HEIGHT + 60) + 10
        for (x, y), label in zip(positions, labels, strict=True):
            fill = f"hsl({label * 137 % 360} 70% 45%)"
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" {style} fill="{fill}"/>')
    return _svg(parts, HEIGHT + 80, "real and synthetic images in two principal components")


def _svg(parts: Sequence[str], height: float, title: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{title}">{"".join(parts)}</svg>'
