"""Features of image sets, and the set metrics measured on them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from PIL import Image

from dmgd.errors import ArtifactError, UsageError
from dmgd.evaluation.imageset import ImageSet
from dmgd.evaluation.metrics import set_metrics
from dmgd.images import to_square
from dmgd.priors.prior import Prior
from dmgd.progress import SILENT, Progress
from dmgd.statistics.kmeans import class_seed, quantize

SUPPORT_POINTS = 10
BATCH = 64


def prior_features(data: ImageSet, prior: Prior) -> ndarray:
    """The latents (n, d) of a set's images, brought to the prior's size."""
    pictures = data.images.permute(0, 2, 3, 1).numpy()
    squares = [
        to_square(
            Image.fromarray(p.squeeze(-1) if p.shape[-1] == 1 else p), prior.image_size, prior.codec.image_channels
        )
        for p in pictures
    ]
    parts = [prior.encode(part).flatten(1).cpu() for part in torch.stack(squares).split(BATCH)]
    return torch.cat(parts).numpy()


def network_features(data: ImageSet, name: str, device: str) -> ndarray:
    """Mean token, or pooled output, (n, d) of a transformers image model (local folder or Hub id).

    Raises UsageError if transformers is not installed, ArtifactError if the model cannot be had.
    """
    try:
        from transformers import AutoModel
    except ImportError as error:
        raise UsageError("--features needs transformers; install it, or leave --features out") from error
    try:
        model = AutoModel.from_pretrained(name).to(device).eval()
    except (OSError, ValueError) as error:
        raise ArtifactError(f"the model {name!r} cannot be loaded ({str(error)[:150]}); give a local folder") from error
    size, rows = getattr(model.config, "image_size", 224), []
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    for part in data.images.split(BATCH):
        x = torch.nn.functional.interpolate(part.float() / 255, size=size, mode="bilinear", antialias=True)
        x = (x.expand(-1, 3, -1, -1) - mean[:, None, None]) / std[:, None, None]
        with torch.no_grad():
            output: Any = model(pixel_values=x.to(device))
        pooled = getattr(output, "pooler_output", None)
        rows.append((output.last_hidden_state.mean(1) if pooled is None else pooled).flatten(1).float().cpu())
    return torch.cat(rows).numpy()


def measure(
    sets: Sequence[ImageSet],
    real: ImageSet,
    prior: Prior | None,
    features: str | None,
    device: str,
    *,
    progress: Progress = SILENT,
) -> dict[str, dict[str, float]]:
    """The metrics of each set by name, against the real training images."""

    def of(data: ImageSet) -> ndarray:
        if features:
            return network_features(data, features, device)
        if prior is None:
            raise UsageError("--metrics measures in a prior's latents; give --prior, or --features")
        return prior_features(data, prior)

    labels = real.labels.numpy()
    with progress.task("measure", len(sets), "sets") as task:
        rows = of(real)
        supports = []
        for c, info in enumerate(real.classes):
            support, mass = quantize(rows[labels == c], SUPPORT_POINTS, class_seed(0, info.identity))
            supports.append((support[mass > 0], mass[mass > 0]))
        measured = {}
        for data in sets:
            task.describe(data.name)
            measured[data.name] = set_metrics(of(data), data.labels.numpy(), rows, labels, supports)
            task.advance()
    return measured


def projection(sets: Sequence[ImageSet], prior: Prior | None) -> list[ndarray]:
    """Two coordinates (n, 2) of each set's images: the principal components of the first set's latents (pixels, without
    a prior)."""
    rows = [
        prior_features(data, prior) if prior else data.images.flatten(1).numpy().astype(np.float32) / 255
        for data in sets
    ]
    mean = rows[0].mean(0)
    _, _, directions = np.linalg.svd(rows[0] - mean, full_matrices=False)
    return [(part - mean) @ directions[:2].T for part in rows]
