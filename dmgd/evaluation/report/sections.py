"""The sections that the pages of an evaluation and of a comparison have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dmgd.errors import visible
from dmgd.evaluation.examples import Examples
from dmgd.evaluation.report.class_tables import class_accuracies, confusions
from dmgd.evaluation.report.latent_map import latent_map
from dmgd.evaluation.report.page import Section, folded, settings_folded
from dmgd.evaluation.report.rows import Row
from dmgd.evaluation.report.strips import strips

BARS = (
    "Top-1 in % on the test images after the last epoch. Whiskers are the 95 % interval of the mean (Student’s t); "
    "▲ and ▼ mark significant differences, ≈ those that are not."
)
CLASSES = "Accuracy in %, the class with the lowest mean first; the darker a cell, the worse."
MAP = "Round points are real training images, square ones were made. Point at one, tap it, or use the arrow keys."
CURVES = "Means over all trainings on a method’s sets; the bands reach from the lowest to the highest."


def images_section(examples: Examples | None, names: Sequence[str], shown: Sequence[int], what: str) -> Section:
    note = f"Real training images and those of each set, {what}. {choice(names, shown)}"
    return Section("Images", strips(examples, names, shown) if examples else "", note)


def classes_section(groups: Mapping[str, Sequence[Row]], names: Sequence[str], shown: Sequence[int]) -> Section:
    """A table for each group of rows, by title; all but the first are folded away."""
    (_, first), *others = groups.items()
    content = class_accuracies(first, names, shown)
    content += "".join(folded(title, class_accuracies(rows, names, shown)) for title, rows in others)
    return Section("Classes", content, f"{CLASSES} {choice(names, shown)}")


def confusion_section(rows: Sequence[Row], names: Sequence[str], what: str) -> Section:
    return Section("Confusion", confusions(rows, names), f"In % of the true class, {what}.")


def map_section(examples: Examples | None, names: Sequence[str], shown: Sequence[int]) -> Section:
    if not examples or not examples.map:
        return Section("Map", "")
    return Section("Map", latent_map(examples, names, shown), f"Images in the {visible(examples.map.space)}. {MAP}")


def settings_section(settings: Mapping[str, Any]) -> Section:
    kept = {key: value for key, value in settings.items() if key not in ("classes", "command")}
    return Section("Settings", settings_folded(kept), "Everything that the result depends on.")


def renamed(examples: Examples | None, names: Mapping[str, str]) -> Examples | None:
    """The examples with the sets as they are called on the page."""
    if not examples:
        return None
    return replace(examples, sets=tuple(replace(one, name=names.get(one.name, one.name)) for one in examples.sets))


def choice(names: Sequence[str], shown: Sequence[int]) -> str:
    """How classes were chosen, if not all are shown."""
    if len(shown) == len(names):
        return ""
    return (
        f"{len(shown)} of the {len(names):,} classes are shown: those at even distances in the ranking by accuracy, "
        "from the worst to the best."
    )


def trainings(row: Row) -> str:
    return f"{row.top1['n']} training{'s' if row.top1['n'] > 1 else ''} on {row.counted}"
