"""The configuration of `distill`."""

from dataclasses import asdict, dataclass, replace
from pathlib import PurePath
from typing import Any

from dmgd.config import check_settings, setting
from dmgd.files import safe_name
from dmgd.matching.method import Method, Sampled
from dmgd.matching.methods import DEFAULT_METHOD, DMGD, method_from_json, method_named


@dataclass(frozen=True)
class DistillConfig:
    """What `distill` computes: everything that the images depend on, apart from the data and the weights.

    `batch_size` is of a network call; None: as many images as suit the device. With `compile` the network is compiled.
    """

    ipc: int = setting(10, at_least=1, at_most=100_000)
    seed: int = setting(0, at_least=0)
    method: Method = DMGD()
    batch_size: int | None = setting(None, at_least=1)
    compile: bool = False

    def __post_init__(self) -> None:
        check_settings(self)

    @classmethod
    def of(cls, method: Method | str = DEFAULT_METHOD, **settings: Any) -> "DistillConfig":
        """The configuration with these settings, its own and those of the method, see `method_named`. Raises UsageError
        for one that the method lacks."""
        own = {name: settings.pop(name) for name in ("ipc", "seed", "batch_size", "compile") if name in settings}
        named = method_named(method, **settings) if isinstance(method, str) else method.with_settings(**settings)
        return cls(method=named, **own)

    @property
    def k(self) -> int:
        """Support points per class."""
        return self.method.support_points(self.ipc)

    def can_use(self, points: int) -> bool:
        """Whether statistics with so many support points per class serve: no fewer than the run needs, and all of them
        used. A run that samples without support points needs no more than one."""
        if not self.method.uses_points:
            return points > 0 and isinstance(self.method, Sampled)
        return points >= self.k and self.with_statistics_of(points).k == points

    def run_folder(self, source: str) -> str:
        """The folder of a run of the source with that name where none is given: runs/imagenette-ipc10-dmgd-seed0."""
        return f"runs/{short_name(source)}-ipc{self.ipc}-{self.method.name}-seed{self.seed}"

    def with_statistics_of(self, k: int) -> "DistillConfig":
        """The configuration that uses `k` support points, because there are statistics with as many, where its method
        does not ask for another number."""
        return self if k == self.k else replace(self, method=self.method.with_points(k))

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "method": self.method.to_json()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "DistillConfig":
        return cls(**{**content, "method": method_from_json(content["method"])})


def short_name(source: str) -> str:
    """The part of a source's name that files are named by: imagenette, photos of folder:/data/photos."""
    return safe_name(PurePath(source.partition(":")[2] or source).name)
