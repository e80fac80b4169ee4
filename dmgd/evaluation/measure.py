"""What is measured of image sets in features: the linear probe, and the set metrics."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64
from numpy import ndarray
from torch import Tensor

from dmgd.evaluation.features import BATCH, Features
from dmgd.evaluation.imageset import ImageSet, Shape, source_set
from dmgd.evaluation.kept_features import kept_rows
from dmgd.evaluation.metrics import set_metrics
from dmgd.evaluation.protocols import PROBE
from dmgd.evaluation.train import Training
from dmgd.evaluation.validation import confusion_matrix, top1
from dmgd.progress import SILENT, Progress
from dmgd.sources.detail import detail
from dmgd.sources.source import Source
from dmgd.statistics.kmeans import class_seed, quantize

L2 = 1e-3
SUPPORT_POINTS = 10
_ITERATIONS = 200


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
        rows = kept_rows(features, real, task.advance, progress)
        test_rows = standardised(kept_rows(features, test, task.advance, progress), rows)
    return Reference(features, real, rows, test.labels, test_rows)


def linear_probe(
    train_rows: Float[ndarray, "n d"],
    train_labels: Int[ndarray, " n"],
    test_rows: Float[ndarray, "m d"],
    test_labels: Int[ndarray, " m"],
    num_classes: int,
) -> float:
    """Top-1 in % on the test rows of a linear classifier fitted to the train rows, both standardised. Deterministic."""
    fitted = fit_linear(train_rows, train_labels, num_classes)
    return 100 * float((fitted.logits(test_rows).argmax(1).numpy() == test_labels).mean())


def standardised(rows: Float[ndarray, "n d"], real: Float[ndarray, "m d"]) -> Float[ndarray, "n d"]:
    """The rows minus the mean of the real rows, divided by their standard deviation, per feature."""
    return (rows - real.mean(0)) / (real.std(0) + 1e-6)


@dataclass(frozen=True)
class LinearClassifier:
    """logits = rows · weights + bias, in float64."""

    weights: Float[Tensor, "d k"]
    bias: Float[Tensor, " k"]

    def logits(self, rows: Float[ndarray, "n d"]) -> Float[Tensor, "n k"]:
        return torch.from_numpy(rows).double() @ self.weights + self.bias


def fit_linear(
    rows: Float[ndarray, "n d"],
    labels: Int[ndarray, " n"],
    num_classes: int,
    image_weights: Float[Tensor, " n"] | None = None,
) -> LinearClassifier:
    """Multinomial logistic regression: minimises the mean cross entropy + 0.001 ‖weights‖²; that of each row counts by
    `image_weights`.

    The problem is convex and solved by L-BFGS from zero: deterministic.
    """
    x, y = torch.from_numpy(rows).double(), torch.from_numpy(labels)
    weights = torch.zeros(x.shape[1], num_classes, dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def entropy(logits: Tensor) -> Tensor:
        if image_weights is None:
            return F.cross_entropy(logits, y)
        return (image_weights * F.cross_entropy(logits, y, reduction="none")).mean()

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = entropy(x @ weights + bias) + L2 * weights.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return LinearClassifier(weights.detach(), bias.detach())


def described_probe(features: Features, data: ImageSet) -> dict[str, Any]:
    """The settings of linear probes, in the place of a protocol, and their number of parameters."""
    protocol = {
        "name": PROBE,
        "network": "linear classifier",
        "features": features.name,
        "standardised": "by the training images",
        "loss": "hard",
        "l2": L2,
        "optimizer": "lbfgs",
        "size": data.images.shape[-1],
    }
    width = features.extract(data.images[:1]).shape[1]
    return {"protocol": protocol, "parameters": (width + 1) * len(data.classes)}


def train_probe(data: ImageSet, reference: Reference, seed: int) -> Training:
    """The linear probe as a training of one epoch. It is deterministic: `seed` only labels the repeat."""
    started, count = time.perf_counter(), len(data.classes)
    rows = standardised(kept_rows(reference.features, data), reference.rows)
    fitted = fit_linear(rows, data.labels.numpy(), count, data.weights)
    loss = float(F.cross_entropy(fitted.logits(rows), data.labels))
    confusion = confusion_matrix(reference.test_labels, fitted.logits(reference.test_rows).argmax(1), count)
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
            synthetic, own = kept_rows(reference.features, data), data.labels.numpy()
            measured[data.name] = {
                **set_metrics(synthetic, own, rows, labels, supports),
                "detail": mean_detail(data) / of_real,
                "probe": linear_probe(standardised(synthetic, rows), own, reference.test_rows, tested, len(supports)),
            }
            task.advance()
    return measured
