"""Everything that the images of a run depend on, settled before the first of them is made."""

from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any

from dmgd.classes.info import ClassInfo
from dmgd.diffusion.guidance import Guidance
from dmgd.generation.batches import Batch, batches_of
from dmgd.generation.config import DistillConfig
from dmgd.generation.micro_batches import suitable_batch
from dmgd.matching.method import Method, Sampled, settled_by_data
from dmgd.matching.methods import method_from_json
from dmgd.priors.prior import Prior
from dmgd.progress import SILENT, Progress
from dmgd.specs import PriorSpec, SourceSpec
from dmgd.statistics.file import Statistics


@dataclass(frozen=True)
class Plan:
    """How the images of a run are made: recorded in its run.json, and read from there when they are regenerated.

    `config` can be typed again; its batch size is settled. `method` is its method as it acts: with the prior's own
    guidance, and with window and stages where the statistics put them. `source` and `prior` name data and weights,
    `weights` is what the latter turned out to be, `statistics` the header and the digest of the support points;
    `teacher` identifies the network that judges real crops, where one does.
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
    teacher: dict[str, Any] | None = None

    @cached_property
    def batches(self) -> list[Batch]:
        return batches_of(len(self.classes), self.config)

    @property
    def sampled(self) -> Sampled:
        """The method of a run whose images are sampled."""
        assert isinstance(self.method, Sampled)
        return self.method

    @property
    def guidance(self) -> Guidance:
        method = self.sampled
        assert method.guidance_scale is not None  # it is settled
        return Guidance(method.guidance_scale, method.guided_channels or None, method.guidance_interval)

    @property
    def steps(self) -> int:
        assert self.sampled.steps is not None  # they are settled
        return self.sampled.steps

    @property
    def solver(self) -> str:
        assert self.sampled.solver is not None  # it is settled
        return self.sampled.solver

    @property
    def has_soft_labels(self) -> bool:
        return getattr(self.method, "semantic", False)

    @property
    def batch_size(self) -> int:
        """The most images that the network sees at a time."""
        return self.config.batch_size or 1

    def to_json(self) -> dict[str, Any]:
        """The content of run.json, but for its format and status."""
        return {
            "specs": {"source": self.source.to_json(), "prior": self.prior.to_json()},
            "config": self.config.to_json(),
            "plan": {"method": self.method.to_json(), **({"teacher": self.teacher} if self.teacher else {})},
            "classes": [info.to_json() for info in self.classes],
            "prior": self.weights,
            "statistics": self.statistics,
            "device": self.device,
            "versions": self.versions,
        }

    @classmethod
    def from_json(cls, manifest: dict[str, Any]) -> "Plan":
        return cls(
            config=DistillConfig.from_json(manifest["config"]),
            method=method_from_json(manifest["plan"]["method"]),
            classes=tuple(ClassInfo.from_json(fields) for fields in manifest["classes"]),
            source=SourceSpec(**manifest["specs"]["source"]),
            prior=PriorSpec(**manifest["specs"]["prior"]),
            weights=manifest["prior"],
            statistics=manifest["statistics"],
            device=manifest["device"],
            versions=manifest["versions"],
            teacher=manifest["plan"].get("teacher"),
        )


def make_plan(
    config: DistillConfig, source: SourceSpec, prior: Prior, statistics: Statistics, *, progress: Progress = SILENT
) -> Plan:
    """The plan of a run: the configuration with all that it leaves to the prior, its device and the statistics. What
    the data have settled is said to `progress`."""
    classes = prior.match_classes(statistics.classes)
    if config.method.uses_points and (points := statistics.header.get("k")):
        config = config.with_statistics_of(points)
    method = config.method
    if isinstance(method, Sampled):
        prior.prepare(classes, progress)
        config = replace(config, batch_size=config.batch_size or suitable_batch(prior))
        method = _settled(method, prior, statistics, config.ipc, progress)
    return Plan(
        config=config,
        method=method,
        classes=classes,
        source=source,
        prior=prior.spec,
        weights=prior.to_json(),
        statistics={**statistics.header, "sha256": statistics.digest},
        device=prior.device.type,
        versions={name: version(name) for name in ("dmgd", "torch", "numpy", "pillow", "pot")},
    )


def _settled(asked: Sampled, prior: Prior, statistics: Statistics, ipc: int, progress: Progress) -> Sampled:
    """The method with all that it leaves to the prior and the statistics."""
    own = prior.defaults
    asked = replace(asked.respaced(asked.steps or own.steps), solver=asked.solver or own.solver)
    schedule = prior.schedule(asked.steps or own.steps, asked.solver or own.solver)
    settled = asked.settled(schedule, statistics, ipc)
    if options := settled_by_data(asked, settled, schedule):
        progress.note(f"settled by the data: {options}")
    return replace(
        settled,
        guidance_scale=own.guidance_scale if asked.guidance_scale is None else asked.guidance_scale,
        guided_channels=own.guided_channels if asked.guided_channels is None else asked.guided_channels,
    )
