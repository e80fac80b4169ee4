"""Training as the work of an engine: a network for every set and seed."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import torch
from torch import nn

from dmgd.distribution.engine import Chain, Engine, SerialEngine, Shared, alone
from dmgd.evaluation.baselines import Contender
from dmgd.evaluation.cores import Cores, Whole, open_cores
from dmgd.evaluation.imageset import ImageSet
from dmgd.evaluation.protocols import Protocol
from dmgd.evaluation.train import Training, train
from dmgd.progress import SILENT, Progress, Task


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


def train_all(
    work: TrainingWork,
    contenders: Sequence[Contender],
    protocols: Sequence[Protocol],
    seeds: range,
    engine: Engine = SerialEngine(),
    progress: Progress = SILENT,
) -> list[list[Training]]:
    """For each set, trained on by its protocol, the trainings, one per seed. Without workers as many at once as there
    are cores, and all of them share the cores."""
    found: dict[tuple[int, int], Training] = {}
    epochs = len(seeds) * sum(protocol.epochs or 1 for protocol in protocols)
    with progress.task("train", epochs, "epochs") as bar, open_cores(protocols[0], work.on) as cores:
        tasks = training_tasks(contenders, protocols, seeds, engine)
        with closing(engine.map(replace(work, cores=cores), tasks, bar, progress, threads=cores.count)) as trained:
            for task, training in trained:
                found[task.contender, task.seed] = training
    return [[found[number, seed] for seed in seeds] for number in range(len(contenders))]


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
