"""Sampling as the work of an engine: batches are its tasks, and those of the same classes a chain if they build on each
other."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor

from dmgd.classes.info import ClassInfo
from dmgd.distribution.engine import Chain, Engine, Shared
from dmgd.errors import MismatchError
from dmgd.generation.batches import Batch
from dmgd.generation.micro_batches import decode, micro_batched
from dmgd.generation.plan import Plan
from dmgd.generation.sampling import sample_images
from dmgd.priors.load import load_prior
from dmgd.priors.prior import Prior
from dmgd.progress import Progress, Task
from dmgd.specs import unlabelled
from dmgd.statistics.file import Statistics

CPU = torch.device("cpu")


@dataclass(frozen=True)
class SamplingTask:
    """A batch, the `statistics` of its classes, and the latents (b, …) of the batches before that it builds on."""

    batch: Batch
    statistics: Statistics
    earlier: tuple[Shared[Tensor], ...]


@dataclass(frozen=True)
class MadeBatch:
    """What a run stores of a batch: `latents` (b, …), uint8 `pixels` (b, h, w, c), and the record of each image."""

    latents: Tensor
    pixels: ndarray
    records: list[dict[str, Any]]


class Sampling:
    """Samples and decodes the batches of a plan."""

    def __init__(self, plan: Plan, prior: Prior, progress: Progress):
        self.plan, self.prior, self.progress = plan, prior, progress
        network = prior.compiled() if plan.config.compile else prior
        self.denoise = micro_batched(network.denoise, plan.batch_size, progress)

    def __call__(self, task: SamplingTask, bar: Task) -> MadeBatch:
        batch, prior = task.batch, self.prior
        bar.describe(_span(batch, self.plan.classes))
        earlier = (one.get().to(prior.device) for one in task.earlier)
        frozen = [one.reshape(len(batch.classes), len(one) // len(batch.classes), -1) for one in earlier]
        latents, records = sample_images(
            batch, self.plan, prior, task.statistics, frozen, self.denoise, observe=lambda *step: bar.advance()
        )
        return MadeBatch(latents.cpu(), decode(prior, latents, self.progress).numpy(), records)

    def spec(self) -> "SamplingSpec":
        return SamplingSpec(self.plan)


@dataclass(frozen=True)
class SamplingSpec:
    plan: Plan

    @property
    def device(self) -> str:
        return self.plan.device

    def open(self, progress: Progress, cores: int) -> Sampling:
        """Raises MismatchError if the prior's weights are not those of the plan."""
        plan = self.plan
        prior = load_prior(plan.prior, device=plan.device)
        if unlabelled(prior.to_json()) != unlabelled(plan.weights):
            raise MismatchError(f"the prior {plan.prior.name} has other weights there than here")
        prior.prepare(plan.classes)
        return Sampling(plan, prior, progress)


def sampling_chains(
    plan: Plan,
    statistics: Statistics,
    engine: Engine,
    whole: Collection[Batch] = (),
    stored: Callable[[Batch], Tensor] | None = None,
) -> Iterator[Chain[SamplingTask, MadeBatch]]:
    """The batches of a plan as chains, without those that are `whole`, whose latents (b, …) are `stored`."""
    is_greedy = plan.method.matching_order == "greedy"

    def chain(batches: list[Batch]) -> Chain[SamplingTask, MadeBatch]:
        classes = batches[0].classes
        own = statistics.of_classes(slice(classes[0], classes[-1] + 1), CPU)
        earlier: list[Shared[Tensor]] = []
        for batch in batches:
            if batch in whole and stored:
                latents = stored(batch)
            else:
                made = yield SamplingTask(batch, own, tuple(earlier))
                latents = made.latents
            if batch is not batches[-1]:
                earlier.append(engine.share(latents))

    for _, group in groupby(plan.batches, lambda batch: batch.classes if is_greedy else batch):
        batches = list(group)
        while batches and batches[-1] in whole:
            batches.pop()
        if batches:
            yield chain(batches)


def _span(batch: Batch, classes: Sequence[ClassInfo]) -> str:
    first, last = classes[batch.classes[0]].name, classes[batch.classes[-1]].name
    images = f"image {batch.images[0]}" if len(batch.images) == 1 else f"images {batch.images[0]}–{batch.images[-1]}"
    return f"{first}, {images}" if first == last else f"{first} … {last}, {images}"
