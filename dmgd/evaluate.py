"""The workflow `evaluate`: train on a set and on what it is compared with, test on the source's held-out images."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dmgd.errors import unknown_choice
from dmgd.evaluation.comparison import Score, mean_and_std, paired_difference, statement
from dmgd.evaluation.imageset import ImageSet, channels_of
from dmgd.evaluation.inputs import Labelled
from dmgd.evaluation.networks import parameter_count
from dmgd.evaluation.protocols import EvaluateConfig, Protocol, resolved
from dmgd.evaluation.selection import random_selection
from dmgd.evaluation.train import seeded_network, train
from dmgd.imagesets import Shape, first_image, labelled_set, source_labels, source_set
from dmgd.progress import SILENT, Progress
from dmgd.sources.source import Source

BASELINES = ("random", "full")


@dataclass(frozen=True)
class Contender:
    """A set that is trained on: `of_seed` gives it for each repeat's seed (some baselines are drawn anew each time)."""

    name: str
    kind: str
    of_seed: Callable[[int], ImageSet]


@dataclass(frozen=True)
class Evaluation:
    """The scores of all sets, the evaluated one first, and the settings that they were made with."""

    settings: dict[str, Any]
    scores: tuple[Score, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        first, *others = self.scores
        paired = [{"against": other.name, **paired_difference(first.last, other.last)} for other in others]
        return {
            "settings": self.settings,
            "scores": [score.to_json() for score in self.scores],
            "paired": paired,
            "statements": [statement(first.name, result["against"], result) for result in paired],
            **self._ddranking(),
            "seconds": round(self.seconds, 1),
        }

    def _ddranking(self) -> dict[str, Any]:
        """Hard label recovery and improvement over random, of the evaluated set, where their terms were run."""
        by_kind = {score.kind: score for score in self.scores}
        first, measures = self.scores[0], {}
        if "full" in by_kind:
            measures["hlr"] = mean_and_std([a - b for a, b in zip(by_kind["full"].last, first.last, strict=True)])
        if "random" in by_kind:
            measures["ior"] = mean_and_std([a - b for a, b in zip(first.last, by_kind["random"].last, strict=True)])
        return measures


def evaluate(
    config: EvaluateConfig,
    found: Labelled,
    source: Source,
    *,
    matching: str = "auto",
    device: str = "cpu",
    progress: Progress = SILENT,
) -> Evaluation:
    """Train `config.repeats` networks on `found` and on each baseline, and test them on the source's test split.

    Everything random follows from the seeds `config.seed`, `config.seed` + 1, …, one for each repeat.
    """
    started = time.perf_counter()
    for name in config.against:
        if name not in BASELINES:
            raise unknown_choice("baseline", name, BASELINES)
    sample = first_image(source, "test")
    sizes = {"source_size": min(sample.size), "num_classes": len(source.classes)}
    protocol = resolved(config.chosen(), num_images=len(found.images), **sizes)
    shape = Shape(protocol.resize or 0, protocol.size or 0, channels_of(sample))
    own = labelled_set(found, source.classes, shape, matching)
    test = source_set(source, "test", "test", shape, progress=progress)
    contenders = [Contender(found.name, "set", lambda seed: own)]
    seeds = range(config.seed, config.seed + config.repeats)
    if config.against:
        contenders += baselines(config.against, source, shape, own.counts, seeds, progress)

    settings = header(config, protocol, own, test, source, seeds, device)
    scores = []
    for contender in contenders:
        fitted = resolved(config.chosen(), num_images=len(contender.of_seed(config.seed)), **sizes)
        scores.append(score(contender, test, fitted, seeds, device, progress))
    return Evaluation(settings, tuple(scores), time.perf_counter() - started)


def baselines(
    names: Sequence[str], source: Source, shape: Shape, counts: list[int], seeds: range, progress: Progress
) -> list[Contender]:
    """The named baselines with as many real images of each class as the evaluated set has."""
    labels = source_labels(source, "train")
    drawn = {seed: random_selection(labels, counts, seed) for seed in seeds}
    needed = None if "full" in names else sorted({i for chosen in drawn.values() for i in chosen})
    pool = source_set(source, "train", "train", shape, ordinals=set(needed) if needed else None, progress=progress)
    place = {ordinal: i for i, ordinal in enumerate(needed or range(len(pool)))}
    made = {
        "random": lambda seed: pool.select([place[i] for i in drawn[seed]], "random"),
        "full": lambda seed: pool,
    }
    return [Contender(name, name, made[name]) for name in names]


def score(
    contender: Contender, test: ImageSet, protocol: Protocol, seeds: range, device: str, progress: Progress
) -> Score:
    """Train and test once for each seed."""
    trainings = []
    with progress.task(f"train {contender.name}", len(seeds) * (protocol.epochs or 1), "epochs") as task:
        for repeat, seed in enumerate(seeds):
            task.describe(f"repeat {repeat + 1} of {len(seeds)}")
            data = contender.of_seed(seed)
            trainings.append(train(data, test, protocol, seed, device=device, on_epoch=task.advance))
    return Score(contender.name, contender.kind, len(data), tuple(trainings))


def header(
    config: EvaluateConfig, protocol: Protocol, own: ImageSet, test: ImageSet, source: Source, seeds: range, device: str
) -> dict[str, Any]:
    """Every setting of the evaluation, as it is printed first and kept in the report."""
    return {
        "protocol": protocol.to_json(),
        "parameters": parameter_count(seeded_network(protocol, own, config.seed)),
        "set": {"name": own.name, "images": len(own), "images_per_class": own.counts},
        "source": {"name": source.name, "variant": source.variant, "test_images": len(test)},
        "classes": [info.to_json() for info in source.classes],
        "seeds": list(seeds),
        "against": list(config.against),
        "device": device,
        "torch": torch.__version__,
    }
