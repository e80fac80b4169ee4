"""Scores over several trainings: means, and whether the difference of two sets is significant."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy import ndarray

from dmgd.errors import visible
from dmgd.evaluation.imageset import ImageSet
from dmgd.evaluation.train import Training
from dmgd.html import table
from dmgd.mosaics import counted

LEVEL = 0.05
ROUNDING = 1e-9  # points of top-1: differences that differ by less are equal


@dataclass(frozen=True)
class Score:
    """The trainings on one set, one per seed. `kind`: "set", "other", or the baseline's name. `stored_as` says how the
    set is stored, see `ImageSet.stored_as`."""

    name: str
    kind: str
    images: int
    trainings: tuple[Training, ...]
    stored_as: dict[str, int] = field(default_factory=dict)

    @property
    def last(self) -> list[float]:
        """Top-1 after the last epoch, in %, by seed."""
        return [training.last for training in self.trainings]

    def to_json(self) -> dict[str, Any]:
        confusion = np.sum([training.confusion.numpy() for training in self.trainings], axis=0)
        return {
            "name": self.name,
            "kind": self.kind,
            "images": self.images,
            **self.stored_as,
            "top1": mean_and_std(self.last),
            "top1_best_epoch": mean_and_std([training.best for training in self.trainings]),
            "top1_by_seed": dict(zip((str(t.seed) for t in self.trainings), _rounded(self.last), strict=True)),
            "per_class": _rounded(100 * confusion.diagonal() / confusion.sum(1).clip(min=1)),
            "confusion": confusion.tolist(),
            "curves": [
                [{"epoch": e, "top1": round(a, 3), "loss": round(loss, 5)} for e, a, loss in t.curve]
                for t in self.trainings
            ],
            "seconds": round(sum(training.seconds for training in self.trainings), 2),
        }


def mean_and_std(values: Sequence[float] | ndarray) -> dict[str, float]:
    """The mean and the population standard deviation (as the papers report it)."""
    return {"mean": round(float(np.mean(values)), 3), "std": round(float(np.std(values)), 3)}


def plus_minus(value: dict[str, float]) -> str:
    """Mean ± standard deviation, as shown in tables."""
    return f"{value['mean']:.1f} ± {value['std']:.1f}"


def accuracy_table(scores: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the scores in an evaluation's JSON."""
    rows = [
        [s["name"], *_size(s), plus_minus(s["top1"]), plus_minus(s["top1_best_epoch"]), f"{s['seconds']:.0f}"]
        for s in scores
    ]
    return ["trained on", "images", "pixels", "last epoch", "best epoch", "seconds"], rows


def _size(score: dict[str, Any]) -> tuple[str, str]:
    pixels = score.get("pixels")
    return counted(score["images"], score.get("tiles", 1)), "" if pixels is None else f"{pixels:,}"


def unlike(scores: Sequence[dict[str, Any]]) -> list[str]:
    """A line on the sets of which not all are mosaics, or not of as many parts, as the first is; none if all are."""
    own = scores[0].get("tiles", 1)
    others = [score for score in scores[1:] if score.get("tiles", 1) != own]
    sets = (
        f"{score['name']} ({f'mosaics of {tiles}×{tiles}' if tiles > 1 else 'no mosaics'}: "
        f"{counted(score['images'], tiles)}{' images' if tiles == 1 else ''}, {_size(score)[1]} pixels)"
        for score in (scores[0], *others)
        for tiles in (score.get("tiles", 1),)
    )
    return [f"not stored alike, so not only the images are compared: {'; '.join(sets)}"] if others else []


def metrics_table(measured: dict[str, dict[str, float]]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the set metrics in an evaluation's JSON: a row per metric, as there are more of them."""
    names = next(iter(measured.values()))
    rows = [[name, *(f"{values[name]:.4g}" for values in measured.values())] for name in names]
    return ["metric", *measured], rows


def paired_difference(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """Mean of `first` − `second` over equal seeds, with the 95 % interval and p-value of Student's paired t-test.

    With one seed, or if all differences are equal (up to rounding), the interval and p are None.
    """
    from scipy.stats import t

    differences = np.subtract(first, second)
    count, mean = len(differences), float(np.mean(differences))
    result: dict[str, Any] = {"difference": round(mean, 3), "seeds": count, "interval": None, "p": None}
    error = float(np.std(differences, ddof=1)) / math.sqrt(count) if count > 1 else 0.0
    if error > ROUNDING:
        half = float(t.ppf(1 - LEVEL / 2, count - 1)) * error
        result["interval"] = _rounded([mean - half, mean + half])
        result["p"] = round(float(2 * t.sf(abs(mean) / error, count - 1)), 5)
    return result


def statement(name: str, other: str, paired: dict[str, Any]) -> str:
    """The comparison as text, such as "dmgd is 1.4 points above random (95 % interval 0.6 to 2.2, p = 0.008)"."""
    points, seeds = paired["difference"], paired["seeds"]
    relation = f"{abs(points):.1f} points {'above' if points >= 0 else 'below'} {other}"
    if paired["p"] is None:
        return f"{name} is {relation} ({seeds} seed{'s' if seeds > 1 else ''}: no test of significance)"
    low, high = paired["interval"]
    verdict = "significant" if paired["p"] < LEVEL else "not significant"
    p = "p < 0.001" if paired["p"] < 0.001 else f"p = {paired['p']:.3f}"
    return f"{name} is {relation}: {verdict} (95 % interval {low:+.1f} to {high:+.1f}, {p}, {seeds} paired seeds)"


def ddranking_lines(result: dict[str, Any]) -> list[str]:
    """DD-Ranking's measures in an evaluation's JSON as text, those that are known."""
    names = {"hlr": "HLR (full − set, lower is better)", "ior": "IOR (set − random, higher is better)"}
    return [f"{name}: {plus_minus(result[key])}" for key, name in names.items() if key in result]


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 3) for value in values]


@dataclass(frozen=True)
class Evaluation:
    """The scores of all sets, the evaluated one first; the `sets` themselves (for the first seed); the settings; and
    for a report the `points`: coordinates (n, 2) and labels of the real images and of the set's."""

    settings: dict[str, Any]
    scores: tuple[Score, ...]
    metrics: dict[str, dict[str, float]]
    sets: tuple[ImageSet, ...]
    points: tuple[tuple[ndarray, ndarray], ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        (first, *others), scores = self.scores, [score.to_json() for score in self.scores]
        paired = [{"against": other.name, **paired_difference(first.last, other.last)} for other in others]
        return {
            "settings": self.settings,
            "scores": scores,
            "paired": paired,
            "statements": [statement(first.name, result["against"], result) for result in paired] + unlike(scores),
            **self._ddranking(),
            **({"metrics": self.metrics} if self.metrics else {}),
            "seconds": round(self.seconds, 1),
        }

    def __repr__(self) -> str:
        scores = ", ".join(f"{score.name} {plus_minus(mean_and_std(score.last))}" for score in self.scores)
        return visible(f"Evaluation({scores} % top-1 on {self.settings['source']['name']})")

    def _repr_html_(self) -> str:
        """The table of scores, for notebooks."""
        return table(*accuracy_table([score.to_json() for score in self.scores]))

    def _ddranking(self) -> dict[str, Any]:
        """DD-Ranking's hard label recovery and improvement over random, if `full` and `random` were trained on."""
        by_kind = {score.kind: score for score in self.scores}
        own, measures = self.scores[0].last, {}
        if "full" in by_kind and self.settings["protocol"]["loss"] == "hard":
            measures["hlr"] = mean_and_std(np.subtract(by_kind["full"].last, own))
        if "random" in by_kind:
            measures["ior"] = mean_and_std(np.subtract(own, by_kind["random"].last))
        return measures
