"""Features of image sets, and the set metrics and the linear probe computed on them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from jaxtyping import Int64
from numpy import ndarray
from torch import Tensor
from torch.nn.functional import cross_entropy

from dmgd.errors import UsageError
from dmgd.evaluation.features import feature_network
from dmgd.evaluation.imageset import ImageSet, Shape, source_set
from dmgd.evaluation.metrics import set_metrics
from dmgd.evaluation.probe import fit_linear, linear_probe, standardised
from dmgd.evaluation.train import Training, top1
from dmgd.images import to_image, to_square
from dmgd.priors.prior import Prior
from dmgd.progress import SILENT, Progress
from dmgd.sources.detail import detail
from dmgd.sources.source import Source
from dmgd.statistics.kmeans import class_seed, quantize

SUPPORT_POINTS = 10
BATCH = 64


def prior_features(data: ImageSet, prior: Prior) -> ndarray:
    """The latents (n, d) of a set's images, resized to the prior's size."""
    pixels = data.images.permute(0, 2, 3, 1).numpy()
    squares = [to_square(to_image(p), prior.image_size, prior.image_channels) for p in pixels]
    parts = [prior.encode(part).flatten(1).cpu() for part in torch.stack(squares).split(BATCH)]
    return torch.cat(parts).numpy()


@dataclass(frozen=True)
class Features:
    """A feature extractor: its name in tables, and `of`, which returns the features (b, d) of a small set."""

    name: str
    of: Callable[[ImageSet], ndarray]

    def rows(self, data: ImageSet, on_images: Callable[[int], None] = lambda count: None) -> ndarray:
        """The features (n, d) of a set; `on_images` is called with the size of each finished batch."""
        parts = []
        for batch in torch.arange(len(data)).split(BATCH):
            parts.append(self.of(data.select(batch, data.name)))
            on_images(len(batch))
        return np.concatenate(parts)


def open_features(name: str | None, prior: Prior | None, device: str) -> Features:
    """The features of the network `name`, or else the prior's latents.

    Raises UsageError if neither is given or a package is missing, ArtifactError if the network cannot be loaded.
    """
    if name:
        network = feature_network(name, device)
        return Features(name, lambda data: network(data.images).numpy())
    if prior is None:
        raise UsageError("sets are measured in a prior's latents; give --prior, or --features")
    return Features(f"latents of {prior.identity.id}", lambda data: prior_features(data, prior))


@dataclass(frozen=True)
class Reference:
    """What sets of one shape are compared with: the real training images with their features (n, d), and the test
    images' labels and standardised features (m, d)."""

    features: Features
    real: ImageSet
    rows: ndarray
    test_labels: Int64[Tensor, " m"]
    test_rows: ndarray


def open_reference(features: Features, source: Source, shape: Shape, *, progress: Progress = SILENT) -> Reference:
    """The reference of a source: its training and test images in this shape, with these features."""
    real, test = (source_set(source, split, split, shape, progress=progress) for split in ("train", "test"))
    with progress.task("features", len(real) + len(test), "images") as task:
        rows = features.rows(real, task.advance)
        test_rows = standardised(features.rows(test, task.advance), rows)
    return Reference(features, real, rows, test.labels, test_rows)


def train_probe(data: ImageSet, reference: Reference, seed: int) -> Training:
    """The linear probe as a training of one epoch. It is deterministic: `seed` only labels the repeat."""
    started, count = time.perf_counter(), len(data.classes)
    rows = standardised(reference.features.rows(data), reference.rows)
    fitted = fit_linear(rows, data.labels.numpy(), count)
    loss = float(cross_entropy(fitted.logits(rows), data.labels))
    predicted = fitted.logits(reference.test_rows).argmax(1)
    confusion = torch.bincount(reference.test_labels * count + predicted, minlength=count**2).view(count, count)
    return Training(seed, ((1, top1(confusion), loss),), confusion, time.perf_counter() - started)


def mean_detail(data: ImageSet) -> float:
    parts = [detail(part.permute(0, 2, 3, 1).numpy()) for part in data.images.split(BATCH)]
    return fmean(np.concatenate(parts).tolist())


def measure(
    sets: Sequence[ImageSet], reference: Reference, *, progress: Progress = SILENT
) -> dict[str, dict[str, float]]:
    """The metrics of each set by name, against the real training images; "detail" is relative to theirs, "probe" is the
    linear probe's top-1 in % on the real test images. All images have the reference's shape."""
    real, labels, tested = reference.real, reference.real.labels.numpy(), reference.test_labels.numpy()
    with progress.task("measure", len(sets), "sets") as task:
        rows = reference.rows
        supports = []
        for c, info in enumerate(real.classes):
            support, mass = quantize(rows[labels == c], SUPPORT_POINTS, class_seed(0, info.identity))
            supports.append((support[mass > 0], mass[mass > 0]))
        measured, of_real = {}, max(mean_detail(real), 1e-12)
        for data in sets:
            task.describe(data.name)
            synthetic, own = reference.features.rows(data), data.labels.numpy()
            measured[data.name] = {
                **set_metrics(synthetic, own, rows, labels, supports),
                "detail": mean_detail(data) / of_real,
                "probe": linear_probe(standardised(synthetic, rows), own, reference.test_rows, tested, len(supports)),
            }
            task.advance()
    return measured


def projection(sets: Sequence[ImageSet], prior: Prior | None) -> list[ndarray]:
    """Coordinates (n, 2) of each set's images: the first two principal components of the first set's latents (without a
    prior: pixels)."""
    pixels = (data.images.flatten(1).numpy().astype(np.float32) / 255 for data in sets)
    rows = [prior_features(data, prior) for data in sets] if prior else list(pixels)
    mean = rows[0].mean(0)
    _, _, directions = np.linalg.svd(rows[0] - mean, full_matrices=False)
    return [(part - mean) @ directions[:2].T for part in rows]
