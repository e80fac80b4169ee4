"""Methods that choose real images instead of making some: what every distilled set is compared with."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from dmgd.matching.method import Method


@dataclass(frozen=True, kw_only=True)
class Selection(Method, ABC):
    """A method whose images are real ones of the source."""

    @abstractmethod
    def chosen(self, rows: Any, count: int, seed: int) -> list[int]:
        """The indices of `count` rows, in order, of the latents `rows` (n, d) of a class, n ≥ count; `seed` is the
        class's own."""


@dataclass(frozen=True, kw_only=True)
class Random(Selection):
    """Real images drawn at random. Of the same seed, fewer are the first of more."""

    name: ClassVar[str] = "random"

    def chosen(self, rows: Any, count: int, seed: int) -> list[int]:
        import numpy as np

        return np.random.default_rng(seed).permutation(len(rows))[:count].tolist()


@dataclass(frozen=True, kw_only=True)
class KMeansReal(Selection):
    """The real image nearest to each centre of k-means on the latents of a class."""

    name: ClassVar[str] = "kmeans-real"

    def chosen(self, rows: Any, count: int, seed: int) -> list[int]:
        from dmgd.matching.coresets import nearest_distinct
        from dmgd.statistics.kmeans import quantize

        return nearest_distinct(rows, quantize(rows, count, seed)[0])


@dataclass(frozen=True, kw_only=True)
class Herding(Selection):
    """Real images whose running mean follows the mean of their class; the same for every seed."""

    name: ClassVar[str] = "herding"

    def chosen(self, rows: Any, count: int, seed: int) -> list[int]:
        from dmgd.matching.coresets import herding

        return herding(rows, count)
