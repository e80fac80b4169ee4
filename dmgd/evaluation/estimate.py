"""How long a bench will take, by a few steps of what it does; no random number of the bench itself is drawn."""

import math
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import torch

from dmgd.classes.info import ClassInfo
from dmgd.display import duration
from dmgd.evaluation.augmentation import to_unit
from dmgd.evaluation.bench_config import BenchConfig
from dmgd.evaluation.bench_labels import BenchLabels, Unlabelled
from dmgd.evaluation.bench_sets import BenchSets
from dmgd.evaluation.bench_terms import Terms
from dmgd.evaluation.cores import fitting_threads
from dmgd.evaluation.label_config import RelabelConfig
from dmgd.evaluation.labelling import Labelling
from dmgd.evaluation.planned_set import PlannedSet
from dmgd.evaluation.protocols import CURVE_IMAGES, Protocol, validated_epochs
from dmgd.evaluation.scores import known_trainings
from dmgd.evaluation.train import train
from dmgd.generation.config import DistillConfig
from dmgd.priors.prior import Prior

FEW, MANY = 8, 64  # images of a measurement; many only where few are fast
SLOW = 0.1  # seconds: above, time is proportional to the number of images
STEPS = 4
PATIENCE = 1.0  # seconds
LONG = 30 * 60  # seconds of a training, from which on it is said how to shorten it
CALLS = 2  # of the network for each step of an image: with and without the class


@dataclass(frozen=True)
class TrainingTime:
    """Of the trainings by one resolved protocol: their `count`, and the seconds of an epoch and of a whole training."""

    network: str
    count: int
    epoch: float
    whole: float


@dataclass(frozen=True)
class Estimate:
    """What is missing: `runs` and the seconds that they take together, the trainings, and the sets without their stored
    `labels`, with the seconds that these take together."""

    runs: int
    run_seconds: float
    trainings: tuple[TrainingTime, ...]
    labels: int = 0
    label_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        return self.run_seconds + self.label_seconds + self.training_seconds

    @property
    def training_seconds(self) -> float:
        return sum(one.count * one.whole for one in self.trainings)

    def __str__(self) -> str:
        """One line, such as "about 5 min: 30 runs (1 min), 60 trainings (4 min)"."""
        count = sum(one.count for one in self.trainings)
        parts = [f"{_number(self.runs, 'run')} ({duration(self.run_seconds)})"] if self.runs else []
        if self.labels:
            parts.append(f"labels of {_number(self.labels, 'set')} ({duration(self.label_seconds)})")
        longest = max(self.trainings, key=lambda one: one.whole, default=None)
        if longest and count:
            more = ""
            if longest.whole >= LONG:
                each = f"{duration(longest.epoch)} an epoch, about {duration(longest.whole)} each"
                more = f"; {longest.network} {each}: --epochs shortens it"
            parts.append(f"{_number(count, 'training')} ({duration(self.training_seconds)}{more})")
        return f"about {duration(self.seconds)}: {', '.join(parts)}" if parts else "all runs and trainings are there"


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def estimated(
    planned: Sequence[PlannedSet], config: BenchConfig, terms: Sequence[Terms], sets: BenchSets, labels: BenchLabels
) -> Estimate:
    """What is missing of the planned sets and of their labels, with all their trainings, and of the trainings on the
    others."""
    unlabelled = labels.missing((one, term.labelling(one)) for term in terms for one in planned).values()
    times = []
    for term in terms:
        wanted = term.wanted(planned, config, labels)
        known = known_trainings(wanted, term.scores)
        missing = Counter(len(one.data) for one in wanted for seed in one.seeds if (one.number, seed) not in known)
        there = {one.number for one in wanted}
        absent = [one for number, one in enumerate(planned) if number not in there]
        missing += Counter(sets.images_of(one) for one in absent for _ in config.seeds_of(one))
        rates: dict[Protocol, tuple[float, float]] = {}  # the number of epochs has no effect on them
        for images, count in sorted(missing.items()):
            protocol = term.for_images(images)
            rate = replace(protocol, epochs=None)
            rates[rate] = rates.get(rate) or _rate(protocol, images, term)
            times.append(_training_time(protocol, images, count, len(term.test), *rates[rate]))
    absent = [one for one in planned if not sets.made(one)]
    runs = list({sets.run_path(one): one.distillation for one in absent if one.distillation}.values())
    seconds = _sampling_seconds(sets.prior, sets.source.classes, runs) if sets.prior and runs else 0.0
    return Estimate(len(runs), seconds, tuple(times), len(unlabelled), _labelling_seconds(unlabelled, sets))


def _training_time(
    protocol: Protocol, images: int, count: int, tested: int, step: float, test_image: float
) -> TrainingTime:
    """The time of trainings, from that of a step and of testing one image."""
    batch, epochs = protocol.batch_size or images, protocol.epochs or 1
    epoch = step * (math.ceil(images / batch) if protocol.full_batches else images / batch)
    seen = math.ceil(images / batch) * batch if protocol.full_batches else images
    each = tested if protocol.reports_best else min(CURVE_IMAGES, tested)
    in_all = tested + each * (len(validated_epochs(protocol, seen, tested)) - 1)
    return TrainingTime(protocol.network, count, epoch, epochs * epoch + in_all * test_image)


def _rate(protocol: Protocol, images: int, term: Terms) -> tuple[float, float]:
    """The seconds that a throwaway network takes for a step, and for testing one image."""
    batch = protocol.batch_size or images
    step, test_image = _timed(protocol, min(FEW, batch), 1, term)
    if step < SLOW:
        return _timed(protocol, batch, STEPS, term)
    return step * batch / min(FEW, batch), test_image


def _timed(protocol: Protocol, images: int, steps: int, term: Terms) -> tuple[float, float]:
    """The median seconds of some steps with so many images, and those of testing one image."""
    data = term.test.select([i % len(term.test) for i in range(images)], "throwaway")
    single = replace(protocol, epochs=steps + 2, batch_size=images, full_batches=False, validate_from=1.0)
    stamps: list[float] = []  # after each epoch, of a single step; the first warms up, the last tests, too
    teacher = term.teacher.network if term.teacher else None
    train(
        *(data, data, single), 0,
        teacher=teacher, device=term.device, on_epoch=lambda: stamps.append(time.perf_counter()),
    )  # fmt: skip
    *taken, last = np.diff(stamps).tolist()
    step = median(taken)
    return step, max(0.0, last - step) / images


def _labelling_seconds(unlabelled: Collection[Unlabelled], sets: BenchSets) -> float:
    """The time that the teachers take for all labels, by that for a few images."""
    rates: dict[RelabelConfig, float] = {}
    for _, labelling in unlabelled:
        if labelling.config not in rates:
            with fitting_threads(labelling.size, labelling.on):
                rates[labelling.config] = _teaching_seconds(labelling)
    return sum(sets.images_of(one) * how.images_of_each * rates[how.config] for one, how in unlabelled)


@torch.no_grad()
def _teaching_seconds(labelling: Labelling) -> float:
    """The seconds that the teacher takes for an image; the first call warms up."""
    network = labelling.teacher.network.to(labelling.on).on_unit()
    images = to_unit(labelling.test.images[:FEW]).to(labelling.on)
    for _ in range(2):
        started = time.perf_counter()
        network(images).cpu()
    return (time.perf_counter() - started) / len(images)


def _sampling_seconds(prior: Prior, classes: Sequence[ClassInfo], configs: Sequence[DistillConfig]) -> float:
    """The time that the network takes for runs of these classes."""
    own = prior.match_classes(classes)
    prior.prepare(own)
    with fitting_threads(prior.image_size, prior.device):  # as for the runs
        per_image = _call_seconds(prior, own, 1)
        per_image = _call_seconds(prior, own, MANY) / MANY if per_image < SLOW else per_image
    steps = sum(
        len(own) * config.ipc * (getattr(config.method, "steps", None) or prior.defaults.steps) for config in configs
    )
    return steps * CALLS * per_image


@torch.no_grad()
def _call_seconds(prior: Prior, classes: Sequence[ClassInfo], images: int) -> float:
    """The seconds of one call of the network: the fastest of a few, where these do not take long; the first warms
    up."""
    condition = prior.condition([classes[i % len(classes)] for i in range(images)])
    z = torch.zeros(images, *prior.latent_shape, device=prior.device)
    step = prior.schedule(prior.defaults.steps, prior.defaults.solver)[-1]
    stamps: list[float] = []
    while len(stamps) < 2 or (len(stamps) <= STEPS and stamps[-1] - stamps[0] < PATIENCE):
        prior.denoise(z, step, condition)[0].cpu()
        stamps.append(time.perf_counter())
    return min(np.diff(stamps).tolist())
