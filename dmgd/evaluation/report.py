"""`report.html`: one self-contained, responsive file with images, charts and tables."""

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy import ndarray

from dmgd.evaluation import charts
from dmgd.evaluation.comparison import Evaluation, accuracy_table, ddranking_lines, metrics_table
from dmgd.evaluation.imageset import ImageSet
from dmgd.exporters.distilled import require_outside_sets
from dmgd.files import write_bytes, write_json
from dmgd.html import png_url, table
from dmgd.images import encode

SHOWN_IMAGES = 10
SHOWN_CONFUSION = 30
SHOWN_SETTINGS = (
    *("protocol", "parameters", "set", "source", "teacher"),
    *("seeds", "device", "torch", "features", "measured_size"),
)


def html_report(result: dict[str, Any], data: ImageSet, points: Sequence[tuple[ndarray, ndarray]]) -> str:
    """The page. `result` is the content of report.json, `data` the evaluated set, `points` the coordinates (n, 2) and
    labels of the real images and of the set's."""
    settings, scores = result["settings"], result["scores"]
    title = f"{settings['set']['name']} on {settings['source']['name']}"
    shown = {key: settings[key] for key in SHOWN_SETTINGS if key in settings}
    legend = "<p>Small: real. Outlined: synthetic. Colours are classes.</p>"
    sections = [
        ("Accuracy", charts.bars(scores) + table(*accuracy_table(scores)) + statements(result)),
        ("Images", contact_sheet(data)),
        ("Learning curves", charts.key(score["name"] for score in scores) + charts.curves(map(mean_curve, scores))),
        ("Real and synthetic images", legend + charts.scatter(points)),
        ("Per class", per_class(scores, data) + confusion(scores[0], data)),
        ("Set metrics", table(*metrics_table(result["metrics"])) if "metrics" in result else ""),
        ("Settings", f"<pre>{escape(json.dumps(shown, indent=1, ensure_ascii=False))}</pre>"),
    ]
    body = "".join(f"<section><h2>{escape(name)}</h2>{content}</section>" for name, content in sections if content)
    page = Template(files(__package__).joinpath("report.html").read_text(encoding="utf-8"))
    return page.substitute(title=escape(title), body=body)


def statements(result: dict[str, Any]) -> str:
    """A list of the comparisons, and of DD-Ranking's measures where they are known; empty without any."""
    lines = [f"<li>{escape(line)}</li>" for line in (*result["statements"], *ddranking_lines(result))]
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


def contact_sheet(data: ImageSet) -> str:
    """The first images of every class, one row per class."""
    pixels = data.images.permute(0, 2, 3, 1).numpy()
    rows = []
    for label, info in enumerate(data.classes):
        own = pixels[data.labels.numpy() == label][:SHOWN_IMAGES]
        strip = np.concatenate([np.pad(p, ((1, 1), (1, 1), (0, 0)), constant_values=128) for p in own], axis=1)
        zoom = max(1, 48 // pixels.shape[1])
        width = strip.shape[1] * zoom
        name = escape(info.name)
        rows.append(
            f'<div class="class"><span title="{name}">{name}</span>'
            f'<img alt="{name}" width="{width}" src="{png_url(encode(strip))}"></div>'
        )
    return "".join(rows)


def per_class(scores: Sequence[dict[str, Any]], data: ImageSet) -> str:
    """The accuracy of each class for every set, over all repeats."""
    rows = [[info.name, *(f"{score['per_class'][c]:.1f}" for score in scores)] for c, info in enumerate(data.classes)]
    return table(["class", *(score["name"] for score in scores)], rows)


def confusion(score: dict[str, Any], data: ImageSet) -> str:
    """True class by predicted class, in % of the row; empty for more than 30 classes."""
    if len(data.classes) > SHOWN_CONFUSION:
        return ""
    rows = []
    for info, counts in zip(data.classes, score["confusion"], strict=True):
        total = max(sum(counts), 1)
        rows.append([info.name, *(f"{100 * n / total:.0f}" if n else "·" for n in counts)])
    counted = table(["true \\ predicted", *(info.name[:12] for info in data.classes)], rows)
    return f"<h3>Confusion, {escape(score['name'])}, % of the true class</h3>{counted}"


def mean_curve(score: dict[str, Any]) -> list[tuple[float, float]]:
    """The mean curve over the repeats: epochs as fractions of all, and top-1 in %."""
    epochs = [point["epoch"] for point in score["curves"][0]]
    means = np.mean([[point["top1"] for point in curve] for curve in score["curves"]], axis=0)
    return [(epoch / epochs[-1], float(mean)) for epoch, mean in zip(epochs, means, strict=True)]


def write_report(evaluation: Evaluation, folder: Path) -> None:
    """Write report.json and report.html to `folder`, which may exist. Raises UsageError if it lies in a run or an
    export."""
    require_outside_sets(folder / "report.json")
    result = evaluation.to_json()
    write_json(folder / "report.json", result)
    write_bytes(folder / "report.html", html_report(result, evaluation.sets[0], evaluation.points).encode())
