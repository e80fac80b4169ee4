"""Finished trainings, kept in the cache: none is done twice, whichever command asks for it.

    scores/<digest>.json    one training; the digest is of everything that its result depends on

A file that is damaged, or not of this training, is as if it were not there. Only the driver writes.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path

from dmgd.distribution.engine import Chain, Engine, alone
from dmgd.errors import ArtifactError
from dmgd.evaluation.cores import open_cores
from dmgd.evaluation.imageset import ImageSet
from dmgd.evaluation.protocols import Protocol
from dmgd.evaluation.train import Training
from dmgd.evaluation.training_work import TrainingTask, TrainingWork
from dmgd.files import canonical_json, misfit, read_sealed, sha256_bytes, write_sealed
from dmgd.progress import Progress
from dmgd.statistics.cache import warn_of_cache

FORMAT = 1
TRAINING = 1  # raised when the same training would have another result
_NUMBER = float | int
_SHAPE = {
    "seed": int,
    "seconds": _NUMBER,
    "curve": [[_NUMBER]],
    "cells": [int],
    "counts": [int],
    "best": _NUMBER | None,
}


@dataclass(frozen=True)
class Scores:
    """The kept trainings that are tested on the images with the digest `test`, on this kind of device ("cpu"); with
    soft labels, by the teacher whose weights have the digest `teacher`."""

    test: str
    device: str
    teacher: str | None = None

    @property
    def folder(self) -> Path:
        return user_cache_path("dmgd") / "scores"

    def path(self, data: ImageSet, protocol: Protocol, seed: int) -> Path:
        """The file of the training on the set by this resolved protocol and seed."""
        key = {
            "versions": [FORMAT, TRAINING, torch.__version__],
            "sets": [data.digest, self.test],
            "protocol": asdict(protocol),
            "teacher": self.teacher if protocol.loss == "soft" and not data.soft else None,
            "seed": seed,
            "device": self.device,
        }
        return self.folder / f"{sha256_bytes(canonical_json(key).encode())}.json"

    def find(self, data: ImageSet, protocol: Protocol, seed: int) -> Training | None:
        """The training, if it is kept."""
        path, classes = self.path(data, protocol, seed), len(data.classes)
        with suppress(
            OSError, ArtifactError, ValueError, IndexError, RuntimeError
        ):  # damaged: it is done again, and replaced
            kept = read_sealed(path, FORMAT, missing=ArtifactError(f"{path} is missing"), remedy="train again")
            if not misfit(kept, _SHAPE) and kept.get("key") == path.stem and kept["seed"] == seed:
                return _training_of(kept, classes)
        return None

    def keep(self, data: ImageSet, protocol: Protocol, training: Training) -> None:
        """Write the training. Raises OSError if that is not possible."""
        path = self.path(data, protocol, training.seed)
        write_sealed(path, {"format": FORMAT, "key": path.stem, **_json_of(training)})


def _json_of(training: Training) -> dict[str, Any]:
    """The training, with those cells of the confusion matrix that are not 0."""
    counts = training.confusion.flatten()
    cells = counts.nonzero()[:, 0]
    return {
        "seed": training.seed,
        "seconds": training.seconds,
        "best": training.best,
        "curve": training.curve,
        "cells": cells.tolist(),
        "counts": counts[cells].tolist(),
    }


def _training_of(kept: dict[str, Any], classes: int) -> Training:
    """The training of `_json_of`. Raises ValueError, IndexError or RuntimeError if it is not one on so many classes."""
    confusion = torch.zeros(classes**2, dtype=torch.int64)
    confusion[torch.tensor(kept["cells"], dtype=torch.int64)] = torch.tensor(kept["counts"], dtype=torch.int64)
    curve = tuple((int(epoch), top1, loss) for epoch, top1, loss in kept["curve"])
    return Training(kept["seed"], curve, confusion.view(classes, classes), kept["seconds"], kept["best"])


@dataclass(frozen=True)
class Wanted:
    """The trainings on a set by its resolved protocol, one for each seed. `number` says what they are for: a training
    is known by number and seed."""

    number: int
    data: ImageSet
    protocol: Protocol
    seeds: tuple[int, ...]

    @property
    def epochs(self) -> int:
        """Of each training."""
        return self.protocol.epochs or 1


def known_trainings(wanted: Sequence[Wanted], scores: Scores) -> dict[tuple[int, int], Training]:
    """Those trainings that are kept, by number and seed."""
    found = {(one.number, seed): scores.find(one.data, one.protocol, seed) for one in wanted for seed in one.seeds}
    return {key: training for key, training in found.items() if training}


def all_trainings(
    wanted: Sequence[Wanted], work: TrainingWork, scores: Scores | None, engine: Engine, progress: Progress
) -> dict[tuple[int, int], Training]:
    """The trainings by number and seed: those that are kept, and the others, each of which is kept when it is done;
    without `scores` none is. If the cache cannot be written, there is a warning.

    Without workers as many are done at once as there are cores, which all of them share; protocols differ in their
    epochs alone.
    """
    found = known_trainings(wanted, scores) if scores else {}
    of = {(one.number, seed): one for one in wanted for seed in one.seeds}
    if found:
        progress.note(f"{len(found)} of the {len(of)} trainings are known from before")
    if len(found) == len(of):
        return found
    tasks = _tasks(wanted, set(found), engine)
    with (
        progress.task("train", sum(one.epochs for one in of.values()), "epochs") as bar,
        open_cores(wanted[0].protocol, work.on) as cores,
        closing(engine.map(replace(work, cores=cores), tasks, bar, progress, threads=cores.count)) as trained,
    ):
        if found:
            bar.advance(sum(of[key].epochs for key in found))
        for task, training in trained:
            key = task.contender, task.seed
            one, found[key] = of[key], training
            try:
                if scores:
                    scores.keep(one.data, one.protocol, training)
            except OSError as error:
                scores = None
                warn_of_cache(error, progress)
    return found


def _tasks(
    wanted: Sequence[Wanted], known: set[tuple[int, int]], engine: Engine
) -> Iterator[Chain[TrainingTask, Training]]:
    """A task for every training that is not known. A set is shared once for all seeds."""
    for one in wanted:
        if missing := [seed for seed in one.seeds if (one.number, seed) not in known]:
            shared = engine.share(one.data)
            yield from (alone(TrainingTask(one.number, shared, one.protocol, seed)) for seed in missing)
