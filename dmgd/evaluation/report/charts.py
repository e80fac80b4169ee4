"""Charts as HTML and SVG, without a library: they take the width that there is, and their text keeps its size."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from dmgd.evaluation.report.rows import Row

DASHES = ("none", "7 3", "2 3", "9 3 2 3", "12 4", "4 2 1 2", "1 3", "none")


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers at equal distances, from at most `low` to at least `high`, about `most` of them."""
    raw = max(high - low, 1e-9) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 10) for i in range(first, last + 1)]


def percent_ticks(rows: Iterable[Row]) -> list[float]:
    """Ticks from 0 to what all bars and intervals need, at most 100 %."""
    highest = max(max(row.top1["mean"], (row.interval or (0, 0))[1], row.published or 0) for row in rows)
    return [tick for tick in ticks(0, min(100, max(highest, 1)), 4) if tick <= 100]


def bars(rows: Sequence[Row], scale: Sequence[float], caption: str) -> str:
    """A table of horizontal bars with 95 % intervals, mean ± standard deviation and how the row compares; a diamond is
    a published figure. `scale` are the axis' ticks, the first is 0."""

    def at(value: float) -> str:
        return f"{min(100, max(0, 100 * value / scale[-1])):.2f}%"

    lines = []
    for row in rows:
        mean, marks = row.top1["mean"], f'<i style="--c:var(--c{row.colour});width:{at(row.top1["mean"])}"></i>'
        said = f"{row.name}: {mean:.1f} %"
        if row.interval:
            low, high = max(0, row.interval[0]), min(scale[-1], row.interval[1])
            marks += f'<i class="whisker" style="left:{at(low)};width:{at(high - low)}"></i>'
            said += f", 95 % interval {row.interval[0]:.1f} to {row.interval[1]:.1f}"
        if row.published:
            marks += f'<i class="published" style="left:{at(row.published)}"></i>'
            said += f", published {row.published:.1f} %"
        lines.append(
            f'<tr><th scope="row">{escape(row.name)}<small>{row.counted}</small></th>'
            f'<td><div class="track" role="img" aria-label="{escape(said)}" title="{escape(said)}">{marks}</div></td>'
            f'<td class="value"><b>{mean:.1f}</b> ± {row.top1["std"]:.1f}{_versus(row.versus)}</td></tr>'
        )
    labels = "".join(f'<span style="left:{at(tick)}">{_short(tick)}</span>' for tick in scale)
    axis = f'<tr class="axis" aria-hidden="true"><td></td><td><div>{labels}</div></td><td></td></tr>'
    head = "".join(f'<th scope="col">{name}</th>' for name in ("set", "top-1 in %", "mean ± standard deviation"))
    return (
        f'<div><h3>{escape(caption)}</h3><table class="bars" style="--step:{at(scale[1])}">'
        f'<thead class="unseen"><tr>{head}</tr></thead><tbody>{"".join(lines)}{axis}</tbody></table></div>'
    )


@dataclass(frozen=True)
class Line:
    """A line of points (x in [0, 1], y), with the band (low, high) around them, if there is one."""

    name: str
    colour: int
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float]] = ()


def plot(lines: Sequence[Line], caption: str, x_title: str, y_title: str, x_ticks: Sequence[tuple[float, str]]) -> str:
    """A chart of lines with grid, ticks, titles of both axes and a key. `x_ticks` are (position in [0, 1], text)."""
    values = [y for line in lines for _, y in line.points] + [y for line in lines for pair in line.band for y in pair]
    scale = ticks(min(values), max(values))
    low, extent = scale[0], (scale[-1] - scale[0]) or 1

    def y_of(value: float) -> float:
        return 100 * (value - low) / extent

    def path(points: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{100 * x:.2f},{100 - y_of(y):.2f}" for x, y in points)

    drawn = "".join(f'<path class="grid" d="M0 {100 - y_of(tick):.2f}H100"/>' for tick in scale[1:])
    for line in lines:
        colour = f'style="--c:var(--c{line.colour})"'
        if line.band:
            xs = [x for x, _ in line.points]
            lows, highs = zip(*line.band, strict=True)
            around = [*zip(xs, lows, strict=True), *reversed([*zip(xs, highs, strict=True)])]
            drawn += f'<polygon class="band" {colour} points="{path(around)}"/>'
        drawn += (
            f'<polyline class="line" {colour} stroke-dasharray="{DASHES[line.colour]}" points="{path(line.points)}">'
            f"<title>{escape(line.name)}</title></polyline>"
        )
    marks = "".join(f'<span class="y" style="bottom:{y_of(tick):.2f}%">{_short(tick)}</span>' for tick in scale)
    marks += "".join(f'<span class="x" style="left:{100 * x:.2f}%">{escape(text)}</span>' for x, text in x_ticks)
    said = "; ".join(f"{line.name} ends at {line.points[-1][1]:.1f}" for line in lines)
    return (
        f'<figure class="plot"><figcaption>{escape(caption)}</figcaption>{key(lines)}<div class="frame">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{escape(f"{caption}: {said}")}">'
        f'{drawn}</svg>{marks}<span class="x-title">{escape(x_title)}</span>'
        f'<span class="y-title">{escape(y_title)}</span></div></figure>'
    )


def key(lines: Iterable[Line]) -> str:
    """The colour and the dashes of each line."""
    items = "".join(
        f'<li><svg viewBox="0 0 28 12" aria-hidden="true"><path class="line" d="M0 6H28" '
        f'style="--c:var(--c{line.colour})" stroke-dasharray="{DASHES[line.colour]}"/></svg>{escape(line.name)}</li>'
        for line in lines
    )
    return f'<ul class="key">{items}</ul>'


def learning_curves(rows: Sequence[Row], caption: str) -> str:
    """Top-1 on the test images over the training, as a mean over the repeats with the range of all of them; empty if no
    training was tested more than once."""
    lines = [_curve(row) for row in rows if min(map(len, row.json["curves"]), default=0) > 1]
    share = [(part / 4, f"{25 * part} %") for part in range(5)]
    return plot(lines, caption, "share of the epochs", "top-1 accuracy, %", share) if lines else ""


def _curve(row: Row) -> Line:
    count = min(map(len, row.json["curves"]))
    curves = [curve[-count:] for curve in row.json["curves"]]
    values = np.array([[point["top1"] for point in curve] for curve in curves])
    epochs = [point["epoch"] for point in curves[0]]
    xs = [epoch / epochs[-1] for epoch in epochs]
    band = list(zip(values.min(0).tolist(), values.max(0).tolist(), strict=True)) if len(curves) > 1 else []
    return Line(
        f"{row.name} ({epochs[-1]:,} epochs)", row.colour, list(zip(xs, values.mean(0).tolist(), strict=True)), band
    )


def _versus(text: str) -> str:
    style = "up" if text.startswith("▲") else "down" if text.startswith("▼") else ""
    return f'<small class="{style}">{escape(text)}</small>' if text else ""


def _short(tick: float) -> str:
    return f"{tick:g}"
