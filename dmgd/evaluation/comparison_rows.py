"""The results of `bench` as rows: one for every method, IPC, protocol and network, pooled over all trainings."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from dmgd.evaluation.planned_set import OWN, row_name
from dmgd.evaluation.results import Result
from dmgd.evaluation.significance import mean_and_std

SELECTIONS = ("random", "kmeans-real", "herding")
STAGES = ("statistics", "sampling", "labelling")


class Key(NamedTuple):
    """What the trainings of a row have in common. `method` is its name in the table; `ipc` None: all images."""

    method: str
    ipc: int | None
    protocol: str
    network: str


def place(key: Key) -> str:
    """Where a row stands, such as "IPC 10, quick, convnet-3"."""
    return f"{'all images' if key.ipc is None else f'IPC {key.ipc}'}, {key.protocol}, {key.network}"


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
    def method(self) -> str:
        """The method, however its images are stored."""
        return self.results[0].facts.method

    @property
    def tiles(self) -> int:
        """How many parts each stored image has along a side; 1 without mosaics."""
        return self.results[0].facts.tiles

    @property
    def labels(self) -> str:
        """The stored labels, or those of the protocol, see `PlannedSet`."""
        return self.results[0].facts.labels

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
        """The row of another method in the same place of the table, in equal mosaics and with equal labels."""
        return self.by_key.get(row.key._replace(method=row_name(method, row.tiles, row.labels)))

    def without_mosaics(self, row: Row) -> Row | None:
        """Of a row in mosaics that of the same method in the same pixels without them."""
        plain = row_name(row.method, 1, row.labels)
        return self.by_key.get(row.key._replace(method=plain)) if row.tiles > 1 else None

    def with_own_labels(self, row: Row) -> Row | None:
        """Of a row with stored labels that of the same images with the protocol's."""
        own = row_name(row.method, row.tiles, OWN)
        return self.by_key.get(row.key._replace(method=own)) if row.labels != OWN else None

    def full(self, row: Row) -> Row | None:
        """The row of all images under the same terms."""
        same = (other for other in self if other.key.ipc is None and other.key[2:] == row.key[2:])
        return next(same, None)

    def strongest_selection(self, row: Row) -> Row | None:
        """The selection of real images with the highest mean under the same terms, in equal mosaics and
        with equal labels."""
        there = [other for name in SELECTIONS if (other := self.of(row, name))]
        return max(there, key=lambda other: other.mean, default=None)

    def with_hard_labels(self, row: Row) -> Row | None:
        """The row itself if its labels are hard, or else that of its images by the same protocol, or by the only one
        with hard labels for the network."""
        if (own := self.with_own_labels(row) or row).is_hard:
            return own
        images = row.key._replace(protocol="", method=row_name(row.method, row.tiles, OWN))
        hard = [other for other in self if other.is_hard and other.key._replace(protocol="") == images]
        return hard[0] if len(hard) == 1 else None


def rows_of(results: Sequence[Result]) -> Rows:
    """The results by key. Trainings without augmentation of a protocol that others train with it are no rows of their
    own."""
    augmented = {(r.protocol.name, r.protocol.network) for r in results if r.is_augmented}
    by_key: dict[Key, Row] = {}
    for result in results:
        facts, protocol = result.facts, result.protocol
        key = Key(facts.row, facts.ipc, protocol.name, protocol.network)
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


def seconds(row: Row) -> dict[str, float]:
    """The mean of each stage over the sets of which it is known, and of training over the trainings; 0 if none is."""
    known = {stage: [r.facts.seconds[stage] for r in row.results if stage in r.facts.seconds] for stage in STAGES}
    stages = {stage: values or [0.0] for stage, values in known.items()}
    stages["training"] = [r.training.seconds for r in row.results]
    return {stage: round(float(np.mean(values)), 2) for stage, values in stages.items()}


def _by_seed(results: Sequence[Result]) -> dict[int, float]:
    found: dict[int, list[float]] = defaultdict(list)
    for result in results:
        found[result.facts.seed].append(result.training.last)
    return {seed: float(np.mean(found[seed])) for seed in sorted(found)}
