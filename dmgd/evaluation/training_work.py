"""Training as the work of an engine: a network for every set and seed."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from dmgd.distribution.engine import Chain, Engine, Shared, alone
from dmgd.evaluation.baselines import Contender
from dmgd.evaluation.imageset import ImageSet
from dmgd.evaluation.protocols import Protocol
from dmgd.evaluation.train import Training, train
from dmgd.progress import Progress, Task


@dataclass(frozen=True)
class TrainingTask:
    """A set, the protocol for its number of images, and the seed; `contender` is the number of the set."""

    contender: int
    data: Shared[ImageSet]
    protocol: Protocol
    seed: int


@dataclass(frozen=True)
class TrainingWork:
    """Trains networks and tests them on `test`; for the loss of soft labels there is a teacher."""

    test: ImageSet
    teacher: nn.Module | None
    on: str

    def __call__(self, task: TrainingTask, bar: Task) -> Training:
        data = task.data.get()
        bar.describe(f"{data.name}, seed {task.seed}")
        return train(
            data, self.test, task.protocol, task.seed, teacher=self.teacher, device=self.on, on_epoch=bar.advance
        )

    def spec(self) -> "TrainingSpec":
        teacher = copy.deepcopy(self.teacher).cpu() if self.teacher else None
        return TrainingSpec(self.test, teacher, torch.device(self.on).type)


@dataclass(frozen=True)
class TrainingSpec:
    test: ImageSet
    teacher: nn.Module | None
    device: str

    def open(self, progress: Progress, cores: int) -> TrainingWork:
        return TrainingWork(self.test, self.teacher.to(self.device) if self.teacher else None, self.device)


def training_tasks(
    contenders: Sequence[Contender], protocols: Sequence[Protocol], seeds: range, engine: Engine
) -> Iterator[Chain[TrainingTask, Training]]:
    """A task for every set and seed. A set that is the same for all seeds is shared once."""
    for number, (contender, protocol) in enumerate(zip(contenders, protocols, strict=True)):
        shared: Shared[ImageSet] | None = None
        for seed in seeds:
            if shared is None or contender.drawn:
                shared = engine.share(contender.of_seed(seed))
            yield alone(TrainingTask(number, shared, protocol, seed))
