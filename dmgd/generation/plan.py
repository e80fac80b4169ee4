"""Everything that the images of a run depend on, settled before the first of them is made."""

from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any

from dmgd.classes.info import ClassInfo
from dmgd.config import PAIRS, DistillConfig, Method
from dmgd.diffusion.sampler import Guidance
from dmgd.diffusion.schedule import Schedule
from dmgd.generation.batches import Unit, plan_units
from dmgd.generation.micro_batches import suitable_batch
from dmgd.matching.methods import placed, schedule_of
from dmgd.priors.prior import Prior
from dmgd.specs import PriorSpec, SourceSpec
from dmgd.statistics.file import Statistics

SETTLED = ("guidance_scale", "guided_channels", "stages", "window", "keep_detail", "k")


@dataclass(frozen=True)
class Plan:
    """How the images of a run are made: whole in its run.json, and read from there when they are made again.

    `config` can be typed again; its batch size is settled. `method` is its method as it acts: with the prior's own
    guidance, window and stages where the statistics put them, and their K. `source` and `prior` name data and weights,
    `weights` is what the latter turned out to be, `statistics` the header and the digest of the support points.
    """

    config: DistillConfig
    method: Method
    classes: tuple[ClassInfo, ...]
    source: SourceSpec
    prior: PriorSpec
    weights: dict[str, Any]
    statistics: dict[str, Any]
    device: str
    versions: dict[str, str]

    @cached_property
    def schedule(self) -> Schedule:
        return schedule_of(self.method)

    @cached_property
    def batches(self) -> list[Unit]:
        return plan_units(len(self.classes), self.config)

    @property
    def guidance(self) -> Guidance:
        method = self.method
        assert method.guidance_scale is not None  # it is settled
        return Guidance(method.guidance_scale, method.guided_channels, method.guidance_interval)

    @property
    def batch_size(self) -> int:
        """The most images that the network sees at a time."""
        return self.config.batch_size or 1

    def to_json(self) -> dict[str, Any]:
        """The content of run.json, but for its format and status."""
        return {
            "specs": {"source": self.source.to_json(), "prior": self.prior.to_json()},
            "config": self.config.to_json(),
            "plan": {name: getattr(self.method, name) for name in SETTLED},
            "classes": [info.to_json() for info in self.classes],
            "prior": self.weights,
            "statistics": self.statistics,
            "device": self.device,
            "versions": self.versions,
        }

    @classmethod
    def from_json(cls, manifest: dict[str, Any]) -> "Plan":
        config = DistillConfig.from_json(manifest["config"])
        settled: dict[str, Any] = {
            name: tuple(value) if value and name in PAIRS else value for name, value in manifest["plan"].items()
        }
        return cls(
            config=config,
            method=replace(config.method, **settled),
            classes=tuple(ClassInfo.from_json(fields) for fields in manifest["classes"]),
            source=SourceSpec(**manifest["specs"]["source"]),
            prior=PriorSpec(**manifest["specs"]["prior"]),
            weights=manifest["prior"],
            statistics=manifest["statistics"],
            device=manifest["device"],
            versions=manifest["versions"],
        )


def make_plan(config: DistillConfig, source: SourceSpec, prior: Prior, statistics: Statistics) -> Plan:
    """The plan of a run: the configuration with all that it leaves to the prior, its device and the statistics."""
    config = replace(config, batch_size=config.batch_size or suitable_batch(prior))
    if points := statistics.header.get("k"):
        config = config.with_statistics_of(points)
    method, own = placed(config.method, schedule_of(config.method), statistics), prior.defaults
    scale, channels = method.guidance_scale, method.guided_channels
    return Plan(
        config=config,
        method=replace(
            method,
            guidance_scale=own.guidance_scale if scale is None else scale,
            guided_channels=own.guided_channels if channels is None else channels,
            k=statistics.support.shape[1],
        ),
        classes=statistics.classes,
        source=source,
        prior=prior.spec,
        weights=prior.to_json(),
        statistics={**statistics.header, "sha256": statistics.digest},
        device=prior.device.type,
        versions={name: version(name) for name in ("dmgd", "torch", "numpy", "pillow", "pot")},
    )
