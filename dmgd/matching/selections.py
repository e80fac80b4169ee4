"""Methods that choose real images instead of making some: what every distilled set is compared with."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from dmgd.config import setting
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


@dataclass(frozen=True, kw_only=True)
class RDED(Random):
    """Crops of real images that a `teacher` knows best: of `pool` images of a class, drawn at random, each gives the
    one with the lowest loss of `crops` random ones, of which the lowest are taken. As mosaics of 2×2 they are the set
    of the paper.

    Source: Sun et al. 2024, "On the Diversity and Realism of Distilled Dataset" (arXiv:2312.03526).
    """

    name: ClassVar[str] = "rded"

    teacher: str = setting(
        "efficientnet-lite0",
        "What judges crops: efficientnet-lite0, which knows ImageNet's classes, or a checkpoint of a ResNet-18.",
        metavar="NAME|PATH",
    )
    pool: int = setting(300, "Images of a class that are tried; all if it has fewer.", at_least=1, needs="teacher")
    crops: int = setting(5, "Random crops of each of them, of which one may be kept.", at_least=1, needs="teacher")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "teacher", str(self.teacher))

    def boxes(self, count: int, seed: int) -> Any:
        """Where the crops of `count` images lie, (count, crops, 3) in [0, 1): area, across, down, see
        `dmgd.generation.cropping.box_of`. Of the same seed, those of fewer images are the first of more."""
        import numpy as np

        return np.random.default_rng([seed, 1]).random((count, self.crops, 3))
