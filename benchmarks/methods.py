"""What a small network learns from each method's images, and ablations of the default method.

    python benchmarks/methods.py digits --results benchmarks/results
    python benchmarks/methods.py imagenette-16 --data FOLDER --results benchmarks/results

`imagenette-16` is imagenette at 16×16 RGB, with a prior that this script trains unless --prior names
its folder. Every seed distils again and trains one network by the `quick` protocol. `--split validation` trains on
four fifths of the training images and tests on the rest, another fifth for every seed, to choose settings; without it,
the test split is used. Finished measurements are kept in a .jsonl file, so that an interrupted run can be continued.
"""

import argparse
import itertools
import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import Figures, Results, append_figures, read_figures

from dmgd.classes.info import ClassInfo
from dmgd.config import StatisticsConfig
from dmgd.evaluation.baselines import kmeans_real, random_selection
from dmgd.evaluation.features import latents_of
from dmgd.evaluation.imageset import ImageSet, Shape, source_set, stack_images
from dmgd.evaluation.metrics import mean_pairwise, nearest, nearest_among, transport_distance
from dmgd.evaluation.protocols import Protocol, protocol_named, resolved
from dmgd.evaluation.train import train
from dmgd.generation.config import DistillConfig
from dmgd.generation.plan import make_plan
from dmgd.generation.sampling import sample_batch
from dmgd.matching.methods import METHODS
from dmgd.priors.load import load_prior
from dmgd.priors.prior import Prior
from dmgd.progress import SILENT
from dmgd.sources.open import open_source
from dmgd.specs import SourceSpec
from dmgd.statistics.cache import ClassLatents
from dmgd.statistics.encoding import encode_source
from dmgd.statistics.file import Statistics
from dmgd.statistics.fitting import fit_classes
from dmgd.statistics.kmeans import class_seed
from dmgd.workflows.train_prior import train_prior

DATASETS = {"digits": Shape(8, 8, 1), "imagenette-16": Shape(16, 16, 3)}
FOLDS = 5
BATCH = 100
DMGD = METHODS["dmgd"]()

COMPARED = {name: METHODS[name]() for name in ("dit", "mgd3", "dmgd-paper", "dmgd-released", "dmgd")}
ABLATIONS = {
    "dmgd, plain labels": replace(DMGD, semantic=False),
    "dmgd, no transport": replace(DMGD, distribution=False),
    "dmgd, bare means": replace(DMGD, match_covariance=False),
    "dmgd, detail kept": replace(DMGD, keep_detail=True),
    "dmgd, greedy": replace(DMGD, order="greedy"),
    "dmgd, steps 30–45": replace(DMGD, window=(30, 45)),
    "dmgd, ρ 0.25": replace(DMGD, rho=0.25),
    "dmgd, ρ 1": replace(DMGD, rho=1.0),
    "dmgd, K = 10": replace(DMGD, k=10),
    "dmgd, guidance 1": replace(DMGD, guidance_scale=1.0),
    "dmgd, guidance 3": replace(DMGD, guidance_scale=3.0),
    "dmgd, guidance in steps 10–35": replace(DMGD, guidance_interval=(10, 35)),
    "dmgd, 20 steps": replace(DMGD, steps=20),
    "dmgd, 20 steps of dpm++": replace(DMGD, steps=20, solver="dpm++"),
    "dit, 20 steps": replace(METHODS["dit"](), steps=20),
    "dit, 20 steps of dpm++": replace(METHODS["dit"](), steps=20, solver="dpm++"),
}
REAL = ("random", "kmeans-real")
ROWS = {**COMPARED, **ABLATIONS}


@dataclass(frozen=True)
class Split:
    """The training images, their latents by class, and the test images."""

    known: ImageSet
    latents: list[ClassLatents]
    test: ImageSet

    @cached_property
    def spread_of_real(self) -> list[float]:
        return [mean_pairwise(own.rows) for own in self.latents]

    @cached_property
    def gap_of_real(self) -> float:
        return nearest_among(np.concatenate([own.rows for own in self.latents]))


class Bench:
    """The images and latents of a dataset, a prior, and the sets that are compared."""

    def __init__(self, train: ImageSet, test: ImageSet, latents: Sequence[ClassLatents], prior: Prior):
        self.train, self.test, self.latents, self.prior = train, test, list(latents), prior

    @lru_cache(maxsize=1)  # noqa: B019 - the bench lives as long as the process
    def split(self, fold: int | None) -> Split:
        """The training and test images, or a fold of the training images as both."""
        if fold is None:
            return Split(self.train, self.latents, self.test)
        labels = self.train.labels
        held = torch.zeros(len(labels), dtype=torch.bool)
        for c in range(len(self.train.classes)):
            held[(labels == c).nonzero()[fold::FOLDS, 0]] = True
        position = torch.cumsum(~held, 0) - 1
        latents = [
            ClassLatents(own.rows[kept], position[own.ordinals[kept]].numpy())
            for own in self.latents
            for kept in [~held[own.ordinals].numpy()]
        ]
        known, rest = ((part.nonzero()[:, 0]) for part in (~held, held))
        return Split(self.train.select(known, "known"), latents, self.train.select(rest, "held"))

    @lru_cache(maxsize=4)  # noqa: B019
    def statistics(self, fold: int | None, k: int) -> Statistics:
        """`k` support points of every class of a split."""
        classes = self.prior.match_classes(self.train.classes)
        return statistics_of(self.split(fold).latents, classes, k, self.prior.image_size)

    def made(self, row: str, ipc: int, seed: int, fold: int | None) -> ImageSet:
        """The set of a row of the table."""
        split = self.split(fold)
        counts = [ipc] * len(split.known.classes)
        if row == "random":
            return split.known.select(random_selection(split.known.labels, counts, seed), row)
        if row == "kmeans-real":
            seeds = [class_seed(seed, info.identity) for info in split.known.classes]
            return split.known.select(kmeans_real(split.latents, counts, seeds), row)
        config = DistillConfig(ipc=ipc, seed=seed, method=ROWS[row], batch_size=BATCH)
        return drawn(row, config, self.prior, self.statistics(fold, config.k))

    def figures(self, row: str, ipc: int, seed: int, fold: int | None) -> Figures:
        """All measurements of one set."""
        made = self.made(row, ipc, seed, fold)
        top1 = self.learned(made, protocol_named("quick"), seed, fold)
        return Figures(top1=top1, **self.place(made, fold))

    def learned(self, made: ImageSet, protocol: Protocol, seed: int, fold: int | None) -> float:
        """The top-1 in % of a network after the last epoch on a set, trained on the prior's device."""
        chosen = resolved(
            protocol, num_images=len(made), num_classes=len(made.classes), source_size=made.images.shape[-1]
        )
        test, device = self.split(fold).test, self.prior.device
        return round(train(made, test, replace(chosen, validate_from=1.0), seed, device=device).last, 3)

    def place(self, made: ImageSet, fold: int | None) -> dict[str, Any]:
        """The set metrics against the real images, by name: all measurements except accuracy."""
        split = self.split(fold)
        rows, labels = latents_of(self.prior).rows(made), made.labels.numpy()
        own = [rows[labels == c] for c in range(len(made.classes))]
        real = [part.rows for part in split.latents]
        uniform = [np.full(len(r), 1 / len(r)) for r in real]
        spread = [mean_pairwise(o) / s for o, s in zip(own, split.spread_of_real, strict=True)]
        distances = [transport_distance(*part) for part in zip(own, real, uniform, strict=True)]
        return {
            "ot": round(float(np.mean(distances)), 4),
            "diversity": round(float(np.mean(spread)), 4) if max(made.counts) > 1 else None,
            "nearest": round(float(np.median(nearest(rows, np.concatenate(real)))) / split.gap_of_real, 4),
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


def open_bench(dataset: str, data: str | None, prior: str) -> Bench:
    """The bench of a dataset, given its name, its folder and that of the prior."""
    source, loaded = open_source(dataset.split("-")[0], data=data), load_prior(prior)
    train, test = (source_set(source, split, split, DATASETS[dataset]) for split in ("train", "test"))
    return Bench(train, test, encode_source(source, loaded, workers=1), loaded)


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


def ensure_prior(dataset: str, data: str | None, given: str | None) -> str:
    """The prior's name or folder; trained here if there is none yet."""
    if given or dataset == "digits":
        return given or "digits"
    folder = Path("build") / f"prior-{dataset}"
    source = open_source(dataset.split("-")[0], data=data)
    train_prior(source, out=folder, steps=4000, size=DATASETS[dataset].size, flip=True, progress=True)
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("--data", help="folder of imagenette")
    parser.add_argument("--prior", help="folder of a trained prior; default: train one")
    parser.add_argument("--results", type=Path, required=True, help="folder for the table and the measurements")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--rows", nargs="+", default=[*REAL, *ROWS], choices=[*REAL, *ROWS], metavar="ROW")
    parser.add_argument("--ipc", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="processes, each with one thread")
    arguments = parser.parse_args()
    stem = arguments.dataset + ("" if arguments.split == "test" else "-validation")
    log, page = (arguments.results / f"{stem}.{kind}" for kind in ("jsonl", "md"))
    log.parent.mkdir(parents=True, exist_ok=True)
    found = read_figures(log)

    prior = ensure_prior(arguments.dataset, arguments.data, arguments.prior)
    tasks = [
        (row, ipc, seed, None if arguments.split == "test" else seed % FOLDS)
        for seed, ipc, row in itertools.product(range(arguments.seeds), arguments.ipc, arguments.rows)
        if (row, ipc, seed) not in found
    ]
    opened = partial(open_bench, arguments.dataset, arguments.data, prior)
    for (row, ipc, seed, _), figures in measured(tasks, opened, arguments.jobs):
        found[row, ipc, seed] = figures
        append_figures(log, (row, ipc, seed), figures)
        print(f"seed {seed}  IPC {ipc:2}  {row:30} {figures.top1:.1f}", flush=True)

    machine = f"{platform.processor() or platform.machine()}, one thread each, torch {version('torch')}"
    heading = (
        f"# Methods on {arguments.dataset}\n\n`python benchmarks/methods.py {arguments.dataset}`; protocol `quick`, "
        f"last epoch, {arguments.split} split, {arguments.seeds} seeds (each distils and trains again), mean ± "
        f"population standard deviation; {machine}.\n\n"
    )
    shown = [row for row in [*REAL, *ROWS] if any((row, ipc, 0) in found for ipc in arguments.ipc)]
    results = Results(found, shown, arguments.ipc, arguments.seeds)
    page.write_text(heading + (results.learned() + results.placed()).rstrip("\n") + "\n")
    print(page.read_text())


if __name__ == "__main__":
    main()
