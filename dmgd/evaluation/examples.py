"""The images that a report shows: some real ones and some of every set, in their own size, and their map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy import ndarray

from dmgd.evaluation.baselines import Baselines
from dmgd.evaluation.features import Features
from dmgd.evaluation.imageset import ImageSet, Shape, numbered_set, stack_images
from dmgd.evaluation.inputs import RawSet
from dmgd.progress import SILENT, Progress
from dmgd.sources.source import Source

SHOWN_CLASSES = 100
SHOWN_IMAGES = 500  # of a set, on the map
LEAST_EACH = 5  # of a class


@dataclass(frozen=True)
class LatentMap:
    """Where the images of two sets lie: coordinates (n, 2) of the `real` and of the `made` ones, the first two
    principal components of the real ones in `space`, which explain these `shares` of their variance, in [0, 1]."""

    space: str
    real: ndarray
    made: ndarray
    shares: tuple[float, float]


@dataclass(frozen=True)
class Examples:
    """Some images of some classes: `real` training images, and those of `sets`, which are named as in the tables; their
    labels are indices into all classes. `ipc` is that of a comparison's sets. `map` places the images of `real` and of
    the first set."""

    real: ImageSet | None
    sets: tuple[ImageSet, ...]
    ipc: int | None = None
    map: LatentMap | None = None


def shown_classes(accuracies: Sequence[float]) -> list[int]:
    """The indices of at most 100 classes, in order: those at even distances in the ranking by accuracy, from the worst
    class to the best."""
    ranking = np.argsort(accuracies, kind="stable")
    places = np.linspace(0, len(ranking) - 1, min(SHOWN_CLASSES, len(ranking))).round().astype(int)
    return sorted(ranking[places].tolist())


def compared_classes(result: dict[str, Any], ipc: int | None) -> list[int]:
    """The `shown_classes` of a comparison's JSON, by the mean accuracy over the rows of this IPC."""
    return shown_classes(np.mean([row["per_class"] for row in result["rows"] if row["ipc"] == ipc], axis=0))


def evaluation_examples(
    trained_on: Sequence[ImageSet],
    raw_sets: Sequence[RawSet],
    baselines: Baselines,
    classes: Sequence[int],
    shape: Shape,
    seed: int,
    progress: Progress,
) -> Examples:
    """The first images of these `classes` in every set, and as many real ones, converted to `shape`.

    `trained_on` are `raw_sets`, and then the baselines for this `seed`, in the shape of the training; that of all
    training images is left out. Only the images that are shown are decoded.
    """
    source, wanted = baselines.source, dict[str, list[int]]()
    alike = shape.in_mosaics(raw_sets[0].side, raw_sets[0].tiles)  # baselines are stored as the first set is
    made: dict[str, ImageSet] = {}
    for number, data in enumerate(trained_on):
        positions = _first(data, classes)
        raw = raw_sets[number] if number < len(raw_sets) else baselines.sampled if data.name == "dit" else None
        if raw:
            pixels = [(shape if number < len(raw_sets) else alike).apply(raw.images[i]) for i in positions]
            made[data.name] = stack_images(data.name, pixels, data.labels[positions].tolist(), data.classes)
        elif data.name in baselines.chosen:
            chosen = baselines.chosen[data.name][seed]
            wanted[data.name] = [chosen[i] for i in positions]
    made |= _real_images(source, wanted, alike, progress) if wanted else {}
    real = _real_images(source, {"real": _spread(source, classes)}, shape, progress).get("real")
    return Examples(real, tuple(made[data.name] for data in trained_on if data.name in made))


def comparison_examples(
    result: dict[str, Any], ipc: int | None, sets: Mapping[str, ImageSet], source: Source, progress: Progress
) -> Examples:
    """The first images of the classes that the report of a comparison shows, whose JSON is `result`, and as many real
    ones of the same shape. `sets` has the methods' sets of this `ipc`, of the first seed, in one shape."""
    classes = compared_classes(result, ipc)
    made = [data.select(_first(data, classes), method) for method, data in sets.items()]
    channels, size = made[0].images.shape[1:3]
    real = _real_images(source, {"real": _spread(source, classes)}, Shape(size, size, channels), progress)
    return Examples(real.get("real"), tuple(made), ipc)


def with_map(examples: Examples, features: Features, progress: Progress = SILENT) -> Examples:
    """The examples with the map of the real ones and of the first set."""
    if not examples.real or len(examples.real) < 3:
        return examples
    shown = examples.real, examples.sets[0]
    with progress.task("place on the map", sum(map(len, shown)), "images") as task:
        real, made = (features.rows(data, task.advance) for data in shown)
    mean = real.mean(0)
    _, values, directions = np.linalg.svd(real - mean, full_matrices=False)
    first, second = (values[:2] ** 2 / max(float((values**2).sum()), 1e-12)).tolist()
    places = [(rows - mean) @ directions[:2].T for rows in (real, made)]
    return replace(examples, map=LatentMap(features.name, places[0], places[1], (first, second)))


def examples_from(data: ImageSet, classes: Sequence[int], each: int) -> list[list[ndarray]]:
    """For each of these classes its first images in the set, uint8 (h, w, c)."""
    pixels = data.images.permute(0, 2, 3, 1)
    return [[pixels[i].numpy() for i in (data.labels == c).nonzero()[:each, 0].tolist()] for c in classes]


def _first(data: ImageSet, classes: Sequence[int]) -> list[int]:
    """The indices of the first images of these classes."""
    return [i for c in classes for i in (data.labels == c).nonzero()[: _each(classes), 0].tolist()]


def _each(classes: Sequence[int]) -> int:
    return max(LEAST_EACH, SHOWN_IMAGES // len(classes))


def _spread(source: Source, classes: Sequence[int]) -> list[int]:
    """The ordinals of training images of these classes, at even distances in each."""
    labels = torch.tensor([one.label for one in source.images("train")], dtype=torch.int64)
    chosen: list[int] = []
    for c in classes:
        own = (labels == c).nonzero()[:, 0].tolist()
        count = min(_each(classes), len(own))
        chosen += [own[i * len(own) // count] for i in range(count)]
    return chosen


def _real_images(source: Source, wanted: dict[str, list[int]], shape: Shape, progress: Progress) -> dict[str, ImageSet]:
    """The training images with these ordinals, by name; all are decoded in one pass."""
    ordinals = {ordinal for own in wanted.values() for ordinal in own}
    if not ordinals:
        return {}
    pool, there = numbered_set(source, "train", "examples", shape, ordinals, progress)
    position = {ordinal: i for i, ordinal in enumerate(there)}
    found = {name: [position[i] for i in own if i in position] for name, own in wanted.items()}
    return {name: pool.select(own, name) for name, own in found.items() if own}
