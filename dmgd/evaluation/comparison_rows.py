"""The results of `bench` as rows: one for every method, IPC, protocol and network, pooled over all trainings."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from dmgd.evaluation.dd_ranking import augmentation_robust_score, label_robust_score
from dmgd.evaluation.results import Result
from dmgd.evaluation.significance import mean_and_std

SELECTIONS = ("random", "kmeans-real", "herding")
STAGES = ("statistics", "sampling", "labelling")


class Key(NamedTuple):
    """What the trainings of a row have in common. `ipc` None: all images."""

    method: str
    ipc: int | None
    protocol: str
    network: str


@dataclass(frozen=True)
class Row:
    """The trainings of a key; `plain` those without augmentation of a protocol that augments."""

    key: Key
    results: list[Result] = field(default_factory=list)
    plain: list[Result] = field(default_factory=list)

    @cached_property
    def by_seed(self) -> dict[int, float]:
        """The mean top-1 after the last epoch, in %, of every seed of the set."""
        return _by_seed(self.results)

    @cached_property
    def plain_by_seed(self) -> dict[int, float]:
        return _by_seed(self.plain)

    @property
    def mean(self) -> float:
        """The mean over the seeds, in %."""
        return float(np.mean(list(self.by_seed.values())))

    @property
    def is_hard(self) -> bool:
        return self.results[0].protocol.loss == "hard"


@dataclass(frozen=True)
class Rows:
    """All rows by key, those of fewer images first, and how they relate to each other."""

    by_key: Mapping[Key, Row]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.by_key.values())

    def of(self, row: Row, method: str) -> Row | None:
        """The row of another method in the same place of the table; of all images, if the method is "full"."""
        ipc = None if method == "full" else row.key.ipc
        return self.by_key.get(row.key._replace(method=method, ipc=ipc))

    def strongest_selection(self, row: Row) -> Row | None:
        """The selection of real images with the highest mean under the same terms."""
        there = [other for name in SELECTIONS if (other := self.of(row, name))]
        return max(there, key=lambda other: other.mean, default=None)

    def with_hard_labels(self, row: Row) -> Row | None:
        """The row itself if its labels are hard, or else that of the only protocol with hard labels for the network."""
        same = [other for other in self if other.key._replace(protocol="") == row.key._replace(protocol="")]
        hard = [other for other in same if other.is_hard]
        return row if row.is_hard else hard[0] if len(hard) == 1 else None


def rows_of(results: Sequence[Result]) -> Rows:
    """The results by key. Trainings without augmentation of a protocol that others train with it are no rows of their
    own."""
    augmented = {(r.protocol.name, r.protocol.network) for r in results if r.is_augmented}
    by_key: dict[Key, Row] = {}
    for result in results:
        facts, protocol = result.facts, result.protocol
        key = Key(facts.method, facts.ipc, protocol.name, protocol.network)
        row = by_key.setdefault(key, Row(key))
        is_plain = not result.is_augmented and (protocol.name, protocol.network) in augmented
        (row.plain if is_plain else row.results).append(result)
    kept = {key: row for key, row in by_key.items() if row.results}
    return Rows(dict(sorted(kept.items(), key=lambda item: (item[0].ipc is None, item[0].ipc))))


def top1(results: Sequence[Result]) -> dict[str, Any] | None:
    """Mean, population standard deviation and number of the top-1 after the last epoch, in %; None without any."""
    return pooled([result.training.last for result in results])


def pooled(values: Sequence[float]) -> dict[str, Any] | None:
    """Mean, population standard deviation and number; None without any."""
    return {**mean_and_std(values), "n": len(values)} if len(values) else None


def dd_ranking(row: Row, rows: Rows) -> dict[str, dict[str, Any] | None]:
    """HLR and IOR in points of top-1, LRS and ARS in %: mean, population standard deviation and number of seeds. None
    where accuracies are missing."""
    if row.key.ipc is None:
        return dict.fromkeys(("hlr", "ior", "lrs", "ars"))
    hard, random = rows.with_hard_labels(row), rows.of(row, "random")
    full = rows.of(hard, "full") if hard else None
    all_images = full.mean if full else None
    own_hard = hard.by_seed if hard and full else None
    drawn, plain = (random.by_seed, random.plain_by_seed) if random else (None, None)

    def lrs(hard_label: float, own: float, other: float) -> float:
        return 100 * label_robust_score((all_images or 0) / 100, hard_label / 100, own / 100, other / 100)

    def ars(*accuracies: float) -> float:
        return 100 * augmentation_robust_score(*(value / 100 for value in accuracies))

    return {
        "hlr": _by_common_seed(lambda own: (all_images or 0) - own, own_hard),
        "ior": _by_common_seed(lambda own, other: own - other, row.by_seed, drawn),
        "lrs": _by_common_seed(lrs, own_hard, row.by_seed, drawn),
        "ars": _by_common_seed(ars, row.by_seed, drawn, row.plain_by_seed, plain),
    }


def seconds(row: Row) -> dict[str, float]:
    """The mean of each stage over the sets, and of training over the trainings."""
    stages = {stage: [r.facts.seconds.get(stage, 0.0) for r in row.results] for stage in STAGES}
    stages["training"] = [r.training.seconds for r in row.results]
    return {stage: round(float(np.mean(values)), 2) for stage, values in stages.items()}


def _by_seed(results: Sequence[Result]) -> dict[int, float]:
    found: dict[int, list[float]] = defaultdict(list)
    for result in results:
        found[result.facts.seed].append(result.training.last)
    return {seed: float(np.mean(found[seed])) for seed in sorted(found)}


def _by_common_seed(score: Callable[..., float], *accuracies: Mapping[int, float] | None) -> dict[str, Any] | None:
    """`score` of the accuracies of every seed that all of them have."""
    if any(one is None for one in accuracies):
        return None
    there = [one for one in accuracies if one is not None]
    common = sorted(set.intersection(*(set(one) for one in there)))
    return pooled([score(*(one[seed] for one in there)) for seed in common])
