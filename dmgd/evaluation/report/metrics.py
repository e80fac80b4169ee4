"""The set metrics: which way is better, and what each means."""

import math
from collections.abc import Mapping
from typing import Any

from dmgd.evaluation.report.page import Section, grid, named
from dmgd.evaluation.report.rows import FULL

# Name in the evaluation → title, the value that is best (±∞: the higher or lower the better), meaning.
METRICS: dict[str, tuple[str, float, str]] = {
    "OT": ("OT ↓", -math.inf, "optimal-transport cost to ten support points of each class"),
    "coverage": ("coverage ↑", math.inf, "share of real images that have a made one in their neighbourhood"),
    "density": ("density ↑", math.inf, "how many real neighbourhoods a made image lies in; 1 is as dense as the data"),
    "diversity": ("diversity → 1", 1, "mean distance within a class, relative to that of real images"),
    "nearest": (
        "nearest → 1",
        1,
        "median distance to the nearest real image; 1 is as far as real ones from each other",
    ),
    "near copies": (
        "near copies ↓",
        -math.inf,
        "images that nearly repeat a training image; selections of real images do",
    ),
    "Fréchet": ("Fréchet ↓", -math.inf, "squared Fréchet distance of two Gaussians to all training images"),
    "detail": ("detail → 1", 1, "sharpness relative to that of real images; 0.1 is blurred, noise is above 1"),
    "probe": ("probe ↑ %", math.inf, "top-1 of a linear classifier that is fitted to the set's features"),
}


def metrics_section(result: Mapping[str, Any], called: Mapping[str, str]) -> Section:
    """A row for each metric with the value of every set, and what the metrics mean; `called` are the sets' names on the
    page. The best value is emphasised; all images are no contender."""
    measured = {called[name]: values for name, values in result.get("metrics", {}).items()}
    if not measured:
        return Section("Set metrics", "")
    settings, rows, best, meanings = result["settings"], [], set(), dict[str, str]()
    for i, name in enumerate(next(iter(measured.values()))):
        values = [of_set[name] for of_set in measured.values()]
        title, target, meaning = METRICS.get(name, (name, math.nan, ""))
        rows.append([title, *map(rounded, values)])
        meanings[title] = meaning
        ranked = {j + 1: _distance(values[j], target) for j, own in enumerate(measured) if own != FULL}
        best |= {(i, j) for j, distance in ranked.items() if distance == min(ranked.values())}
    note = (
        f"At {settings['measured_size']} pixels, in {settings['features']}, against the training images. "
        "↑ higher is better, ↓ lower is better, → 1 nearer to one is better."
    )
    return Section("Set metrics", grid(["metric", *measured], rows, best=frozenset(best)) + named(meanings), note)


def _distance(value: float, target: float) -> float:
    """How far from the best."""
    return -value if target == math.inf else value if target == -math.inf else abs(value - target)


def rounded(value: float) -> str:
    """The number with three significant digits; whole numbers as they are."""
    if not math.isfinite(value):
        return "–"
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
