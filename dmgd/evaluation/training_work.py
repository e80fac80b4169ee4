"""Training as the work of an engine: a network for every set and seed."""

import copy
from dataclasses import dataclass

import torch
from torch import nn

from dmgd.distribution.engine import Shared
from dmgd.evaluation.cores import Cores, Whole
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
    """Trains networks and tests them on `test`; for the loss of soft labels there is a teacher. The `cores` are shared
    by all trainings; without them every training opens its own."""

    test: ImageSet
    teacher: nn.Module | None
    on: str
    cores: Cores | Whole | None = None

    def __call__(self, task: TrainingTask, bar: Task) -> Training:
        data = task.data.get()
        bar.describe(f"{data.name}, seed {task.seed}")
        return train(
            data,
            self.test,
            task.protocol,
            task.seed,
            teacher=self.teacher,
            device=self.on,
            on_epoch=bar.advance,
            cores=self.cores,
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
