"""Small SVG charts without a library: bars with errors, curves, scatter."""

from collections.abc import Sequence
from html import escape

COLOURS = ("#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#0f766e", "#a16207", "#be185d", "#475569")
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 300, 46, 28


def colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def bars(values: Sequence[tuple[str, float, float]]) -> str:
    """Horizontal bars of (name, percentage, standard deviation)."""
    row, label = 34, 150
    scale = (WIDTH - label - 110) / 100
    parts = []
    for i, (name, mean, error) in enumerate(values):
        y, end = 6 + i * row, label + mean * scale
        parts.append(f'<text x="{label - 8}" y="{y + 17}" text-anchor="end">{escape(name[:20])}</text>')
        parts.append(f'<rect x="{label}" y="{y}" width="{mean * scale:.1f}" height="24" rx="3" fill="{colour(i)}"/>')
        low, high = end - error * scale, end + error * scale
        parts.append(
            f'<path d="M{low:.1f} {y + 12}H{high:.1f}M{low:.1f} {y + 6}v12M{high:.1f} {y + 6}v12" class="error"/>'
        )
        parts.append(f'<text x="{high + 8:.1f}" y="{y + 17}">{mean:.1f} ± {error:.1f}</text>')
    return _svg("".join(parts), len(values) * row + 8, "top-1 accuracy of each set")


def curves(series: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> str:
    """Lines of (fraction of the epochs in [0, 1], top-1 in %), one for each name."""
    parts = [_axes("fraction of the epochs")]
    for i, (_, points) in enumerate(series):
        line = " ".join(f"{_x(x):.1f},{_y(y / 100):.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour(i)}" stroke-width="2"/>')
        x, y = points[-1]
        parts.append(f'<circle cx="{_x(x):.1f}" cy="{_y(y / 100):.1f}" r="2.5" fill="{colour(i)}"/>')
    return _svg("".join(parts), HEIGHT, "learning curves")


def scatter(groups: Sequence[Sequence[tuple[float, float, int]]]) -> str:
    """Two groups of points (x, y, class): the real images small and pale, the synthetic ones large with an outline."""
    everything = [point for group in groups for point in group]
    xs, ys = [p[0] for p in everything], [p[1] for p in everything]
    (x0, x1), (y0, y1) = (min(xs), max(xs)), (min(ys), max(ys))
    parts = []
    for group, style in zip(groups, ('r="2" opacity="0.3"', 'r="5" class="synthetic"'), strict=False):
        for x, y, label in group:
            cx, cy = (x - x0) / ((x1 - x0) or 1) * (WIDTH - 20) + 10, (y - y0) / ((y1 - y0) or 1) * (HEIGHT + 60) + 10
            parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" {style} fill="{_hue(label)}"/>')
    return _svg("".join(parts), HEIGHT + 80, "real and synthetic images in two principal components")


def _hue(label: int) -> str:
    return f"hsl({label * 137 % 360} 70% 45%)"


def _x(fraction: float) -> float:
    return LEFT + fraction * (WIDTH - LEFT - 12)


def _y(fraction: float) -> float:
    return (HEIGHT - BOTTOM) - fraction * (HEIGHT - BOTTOM - 10)


def _axes(below: str) -> str:
    """Grid lines and labels of the percentages, and the label of the horizontal axis."""
    lines = []
    for tick in range(0, 101, 25):
        y = _y(tick / 100)
        lines.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - 12}" class="grid"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>')
    lines.append(f'<text x="{WIDTH - 12}" y="{HEIGHT - 6}" text-anchor="end">{escape(below)}</text>')
    return "".join(lines)


def _svg(content: str, height: float, title: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">{content}</svg>'
