"""What `evaluate` returns: the scores of the sets, and how they compare."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy import ndarray

from dmgd.errors import visible
from dmgd.evaluation.examples import Examples
from dmgd.evaluation.imageset import ImageSet
from dmgd.evaluation.significance import corrected, mean_and_std, paired_difference, plus_minus, rounded, statement
from dmgd.evaluation.train import Training
from dmgd.html import table
from dmgd.mosaics import counted

MATRIX_CLASSES = 100  # of more, the confusion matrix is left out: a million numbers for each set
CONFUSED_PAIRS = 20


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

    @property
    def best(self) -> list[float]:
        """Top-1 of the best epoch, in %, by seed; nothing where the protocol does not report it."""
        return [training.best for training in self.trainings if training.best is not None]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "images": self.images,
            **self.stored_as,
            "top1": mean_and_std(self.last),
            "top1_best_epoch": mean_and_std(self.best) if self.best else None,
            "top1_by_seed": dict(zip((str(t.seed) for t in self.trainings), rounded(self.last), strict=True)),
            **details(self.trainings),
            "seconds": round(sum(training.seconds for training in self.trainings), 2),
        }


def details(trainings: Sequence[Training]) -> dict[str, Any]:
    """For JSON: accuracy in % of each class, the pairs of classes that are "most_confused", and the confusion matrix,
    over all trainings; the curve of each. The matrix is None for more than 100 classes."""
    confusion = np.sum([training.confusion.numpy() for training in trainings], axis=0)
    return {
        "per_class": rounded(100 * confusion.diagonal() / confusion.sum(1).clip(min=1)),
        "most_confused": _most_confused(confusion),
        "confusion": confusion.tolist() if len(confusion) <= MATRIX_CLASSES else None,
        "curves": [
            [{"epoch": e, "top1": round(a, 3), "loss": round(loss, 5)} for e, a, loss in training.curve]
            for training in trainings
        ],
    }


def _most_confused(confusion: ndarray) -> list[dict[str, int]]:
    """The pairs (true, predicted) with the largest shares of the true class' test images, at most 20, largest first."""
    shares = confusion / confusion.sum(1).clip(min=1)[:, None]
    np.fill_diagonal(shares, 0)
    most = np.argsort(-shares, axis=None, kind="stable")[:CONFUSED_PAIRS]
    pairs = [(int(i) // len(shares), int(i) % len(shares)) for i in most]
    return [
        {
            "true": true,
            "predicted": predicted,
            "count": int(confusion[true, predicted]),
            "of": int(confusion[true].sum()),
        }
        for true, predicted in pairs
        if confusion[true, predicted]
    ]


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


def ddranking_lines(result: dict[str, Any]) -> list[str]:
    """DD-Ranking's measures in an evaluation's JSON as text, those that are known."""
    names = {"hlr": "HLR (full − set, lower is better)", "ior": "IOR (set − random, higher is better)"}
    return [f"{name}: {plus_minus(result[key])}" for key, name in names.items() if key in result]


@dataclass(frozen=True)
class Evaluation:
    """The scores of all sets, the evaluated one first; the `sets` themselves (for the first seed); the settings; and
    for a report the `examples`."""

    settings: dict[str, Any]
    scores: tuple[Score, ...]
    metrics: dict[str, dict[str, float]]
    sets: tuple[ImageSet, ...]
    examples: Examples | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        (first, *others), scores = self.scores, [score.to_json() for score in self.scores]
        paired = corrected([{"against": o.name, **paired_difference(first.last, o.last)} for o in others])
        tests = sum(result["p"] is not None for result in paired)
        return {
            "settings": self.settings,
            "scores": scores,
            "paired": paired,
            "statements": [statement(first.name, result["against"], result, tests) for result in paired]
            + unlike(scores),
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
        alike = "labels" not in self.settings or "teacher" in self.settings  # random, too, has soft labels
        if "random" in by_kind and alike:
            measures["ior"] = mean_and_std(np.subtract(own, by_kind["random"].last))
        return measures
