"""A source's images as latents of a prior, class by class."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy import ndarray

from dmgd.priors.prior import Prior
from dmgd.progress import SILENT, Progress
from dmgd.sources.image import to_square
from dmgd.sources.source import Source

ENCODE_BATCH = 64


@dataclass(frozen=True)
class ClassLatents:
    """The flattened latents `rows` (n, d), float32, of one class, and of which image each is: `samples` (n,) holds its
    ordinal in the source's split."""

    rows: ndarray
    samples: ndarray


def encode_source(
    source: Source, prior: Prior, split: str = "train", *, progress: Progress = SILENT
) -> list[ClassLatents]:
    """The latents of one split's images, one entry for each of the source's classes, in their order."""
    latents: list[list[ndarray]] = [[] for _ in source.classes]
    samples: list[list[int]] = [[] for _ in source.classes]
    pixels: list[torch.Tensor] = []
    labels: list[int] = []

    def encode() -> None:
        for row, label in zip(prior.encode(torch.stack(pixels)).flatten(1).cpu().numpy(), labels, strict=True):
            latents[label].append(row)
        pixels.clear()
        labels.clear()

    with progress.task("encode", None, "images") as task:
        for ordinal, (image, label) in enumerate(source.samples(split)):
            pixels.append(to_square(image, prior.image_size, prior.codec.image_channels))
            labels.append(label)
            samples[label].append(ordinal)
            task.advance()
            if len(pixels) == ENCODE_BATCH:
                encode()
        if pixels:
            encode()
    empty = np.empty((0, int(np.prod(prior.latent_shape))), np.float32)
    return [
        ClassLatents(np.stack(rows) if rows else empty, np.array(ordinals, dtype=np.int64))
        for rows, ordinals in zip(latents, samples, strict=True)
    ]
