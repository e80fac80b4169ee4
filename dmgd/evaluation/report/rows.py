"""What charts and tables show of a training: the same for the scores of an evaluation and the rows of a comparison."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmgd.errors import visible
from dmgd.evaluation.significance import LEVEL, is_significant
from dmgd.mosaics import counted

FULL = "full"
FULL_COLOUR, COLOURS = 7, 8

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """The trainings on one method's sets, under the same terms.

    `top1` has mean, std and n, in %; `interval` is the 95 % interval of the mean, None for a single training.
    `versus` says how it compares, for example "▲ 5.1 above random". `json` has "per_class", "confusion", "curves".
    """

    name: str
    colour: int
    images: int
    top1: Mapping[str, float]
    interval: tuple[float, float] | None
    versus: str
    json: Json
    published: float | None = None

    @property
    def counted(self) -> str:
        """How many images, such as "100 images", or "400 parts in 100 images" of mosaics."""
        tiles = self.json.get("tiles", 1)
        return f"{self.images:,} images" if tiles == 1 else counted(self.images, tiles)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """What each set is called on a page: sets that are named by their path by its last part, if only one has it."""
    last = {name: name.rstrip("/").rsplit("/", 1)[-1] for name in names}
    return {name: visible(part if list(last.values()).count(part) == 1 else name) for name, part in last.items()}


def first_synonyms(names: Sequence[str]) -> list[str]:
    """The classes' names for little space: "tench" of "tench, Tinca tinca", if no other class is called so."""
    first = [name.split(",")[0] for name in names]
    count = Counter(first)
    return [short if count[short] == 1 else name for short, name in zip(first, names, strict=True)]


def evaluation_rows(result: Json, called: Mapping[str, str]) -> list[Row]:
    """The rows of an evaluation's JSON, with the names of `short_names`."""
    paired = {one["against"]: one for one in result["paired"]}
    first = called[result["scores"][0]["name"]]
    colours = colours_of([score["kind"] if score["kind"] == FULL else score["name"] for score in result["scores"]])
    rows = []
    for score, colour in zip(result["scores"], colours.values(), strict=True):
        values = list(score["top1_by_seed"].values())
        versus = compared(paired[score["name"]], first, turned=True) if score["name"] in paired else ""
        top1 = {**score["top1"], "n": len(values)}
        rows.append(Row(called[score["name"]], colour, score["images"], top1, mean_interval(values), versus, score))
    return rows


def comparison_rows(result: Json) -> dict[tuple[int | None, str, str], list[Row]]:
    """The rows of a comparison's JSON by (IPC, protocol, network). All images (IPC None) are a row of every group of
    their protocol and network, and a group of their own only where there is no other."""
    colours = colours_of([row["method"] for row in result["rows"]])
    groups: dict[tuple[int | None, str, str], list[Row]] = defaultdict(list)
    for row in result["rows"]:
        groups[row["ipc"], row["protocol"], row["network"]].append(_comparison_row(row, colours))
    for ipc, *terms in [key for key in groups if key[0] is None]:
        others = [key for key in groups if key[0] is not None and list(key[1:]) == terms]
        for key in others:
            groups[key] += groups[ipc, terms[0], terms[1]]
        if others:
            del groups[ipc, terms[0], terms[1]]
    return dict(groups)


def _comparison_row(row: Json, colours: Mapping[str, int]) -> Row:
    seeds: dict[int, list[float]] = defaultdict(list)
    for one in row["by_seed"]:
        seeds[one["seed"]].append(one["top1"])
    values = [float(np.mean(own)) for own in seeds.values()] if len(seeds) > 1 else next(iter(seeds.values()), [])
    against = row["against"].get("random")
    published = [one["value"] for one in row["published"] if one.get("ipc", row["ipc"]) == row["ipc"]]
    return Row(
        row["method"],
        colours[row["method"]],
        row["images"],
        row["top1"],
        mean_interval(values),
        compared(against, against["name"]) if against else "",
        row,
        published[0] if published else None,
    )


def colours_of(names: Sequence[str]) -> dict[str, int]:
    """A colour's number for each name; that of all images is always the same."""
    methods = [name for name in dict.fromkeys(names) if name != FULL]
    return {name: FULL_COLOUR if name == FULL else methods.index(name) % (COLOURS - 1) for name in dict.fromkeys(names)}


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    half = float(t.ppf(1 - LEVEL / 2, len(values) - 1)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def compared(paired: dict[str, Any], other: str, *, turned: bool = False) -> str:
    """The paired difference to another row in a few words: ▲ significantly above, ▼ significantly below, ≈ not
    significant, without a sign where it was not tested. `turned`: the difference is the other's to this row."""
    difference = -paired["difference"] if turned else paired["difference"]
    sign = "" if paired["p"] is None else "≈ " if not is_significant(paired) else "▲ " if difference > 0 else "▼ "
    return f"{sign}{abs(difference):.1f} {'above' if difference >= 0 else 'below'} {other}"
