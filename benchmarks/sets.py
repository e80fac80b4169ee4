"""Sets made from latents in memory, for the benchmarks whose priors or splits `dmgd bench` cannot open: their images,
what a network learns from them, and their place among the real images."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import cached_property, lru_cache
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from rows import ROWS

from dmgd.classes.info import ClassInfo
from dmgd.config import StatisticsConfig
from dmgd.evaluation.baselines import kmeans_real, random_selection
from dmgd.evaluation.features import latents_of
from dmgd.evaluation.imageset import ImageSet, stack_images
from dmgd.evaluation.metrics import mean_pairwise, nearest, nearest_among, transport_distance
from dmgd.evaluation.protocols import Protocol, resolved
from dmgd.evaluation.train import train
from dmgd.generation.config import DistillConfig
from dmgd.generation.plan import make_plan
from dmgd.generation.sampling import sample_batch
from dmgd.priors.prior import Prior
from dmgd.progress import SILENT
from dmgd.specs import SourceSpec
from dmgd.statistics.cache import ClassLatents
from dmgd.statistics.file import Statistics
from dmgd.statistics.fitting import fit_classes
from dmgd.statistics.kmeans import class_seed

BATCH = 100


class Bench:
    """The images and latents of a dataset, a prior, and the sets that are compared."""

    def __init__(self, train: ImageSet, test: ImageSet, latents: Sequence[ClassLatents], prior: Prior):
        self.train, self.test, self.latents, self.prior = train, test, list(latents), prior

    @cached_property
    def spread_of_real(self) -> list[float]:
        return [mean_pairwise(own.rows) for own in self.latents]

    @cached_property
    def gap_of_real(self) -> float:
        return nearest_among(np.concatenate([own.rows for own in self.latents]))

    @lru_cache(maxsize=4)  # noqa: B019 - the bench lives as long as the process
    def statistics(self, k: int) -> Statistics:
        """`k` support points of every class."""
        classes = self.prior.match_classes(self.train.classes)
        return statistics_of(self.latents, classes, k, self.prior.image_size)

    def made(self, row: str, ipc: int, seed: int) -> ImageSet:
        """The set of a row of the table."""
        counts = [ipc] * len(self.train.classes)
        if row == "random":
            return self.train.select(random_selection(self.train.labels, counts, seed), row)
        if row == "kmeans-real":
            seeds = [class_seed(seed, info.identity) for info in self.train.classes]
            return self.train.select(kmeans_real(self.latents, counts, seeds), row)
        config = DistillConfig(ipc=ipc, seed=seed, method=ROWS[row], batch_size=BATCH)
        return drawn(row, config, self.prior, self.statistics(config.k))

    def learned(self, made: ImageSet, protocol: Protocol, seed: int) -> float:
        """The top-1 in % of a network after the last epoch on a set, trained on the prior's device."""
        chosen = resolved(
            protocol, num_images=len(made), num_classes=len(made.classes), source_size=made.images.shape[-1]
        )
        last = replace(chosen, validate_from=1.0)
        return round(train(made, self.test, last, seed, device=self.prior.device).last, 3)

    def place(self, made: ImageSet) -> dict[str, Any]:
        """The set metrics against the real images, by name: all measurements except accuracy."""
        rows, labels = latents_of(self.prior).rows(made), made.labels.numpy()
        own = [rows[labels == c] for c in range(len(made.classes))]
        real = [part.rows for part in self.latents]
        uniform = [np.full(len(r), 1 / len(r)) for r in real]
        spread = [mean_pairwise(o) / s for o, s in zip(own, self.spread_of_real, strict=True)]
        distances = [transport_distance(*part) for part in zip(own, real, uniform, strict=True)]
        return {
            "ot": round(float(np.mean(distances)), 4),
            "diversity": round(float(np.mean(spread)), 4) if max(made.counts) > 1 else None,
            "nearest": round(float(np.median(nearest(rows, np.concatenate(real)))) / self.gap_of_real, 4),
        }


def statistics_of(
    latents: Sequence[ClassLatents], classes: tuple[ClassInfo, ...], k: int, image_size: int
) -> Statistics:
    """`k` support points of every class of latents, without mirror images, of images of this size."""
    tensors, quality = fit_classes(latents, classes, StatisticsConfig(k=k), progress=SILENT)
    header = {"encoder": {"pixels": image_size <= 32}, "quality": quality}
    count = torch.tensor([len(own.rows) for own in latents])
    return Statistics(**tensors, count=count, classes=classes, header=header)


def drawn(name: str, config: DistillConfig, prior: Prior, statistics: Statistics) -> ImageSet:
    """The images that a prior samples with the configuration's method, as a set called `name`."""
    frozen: list[torch.Tensor] = []
    made: dict[tuple[int, int], torch.Tensor] = {}
    plan = make_plan(config, SourceSpec("benchmark"), prior, statistics)
    for batch in plan.batches:
        frozen = [] if batch.images[0] == 0 else frozen
        latents, _ = sample_batch(batch, plan, prior, statistics, frozen)
        if config.method.matching_order == "greedy":
            frozen.append(latents.reshape(len(batch.classes), len(batch.images), -1))
        made |= dict(zip(batch.indices(), prior.decode(latents).cpu(), strict=True))
    ordered = sorted(made)
    return stack_images(name, [made[index] for index in ordered], [c for c, _ in ordered], statistics.classes)


_bench: Any


def _open(opened: Callable[[], Any]) -> None:
    global _bench
    torch.set_num_threads(1)
    _bench = opened()


def _measure(*task: Any) -> Any:
    return _bench.figures(*task)


def measured(tasks: list[tuple[Any, ...]], opened: Callable[[], Any], jobs: int) -> Iterator[tuple[Any, Any]]:
    """Each task and its measurements as they finish, `jobs` at a time, each on one thread. `opened` makes the bench of
    a process, whose method `figures` takes the fields of a task."""
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_open, initargs=(opened,)) as pool:
        running = {pool.submit(_measure, *task): task for task in tasks}
        for future in as_completed(running):
            yield running[future], future.result()
