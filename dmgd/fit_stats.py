"""The workflow `fit-stats`: source images → latents → support points and masses of every class."""

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from platformdirs import user_cache_path

from dmgd.artifacts.statistics import Statistics
from dmgd.config import StatisticsConfig
from dmgd.errors import ArtifactError, MismatchError
from dmgd.files import canonical_json
from dmgd.latents import encode_source
from dmgd.matching.quantize import class_seed, quantize
from dmgd.priors.prior import Prior
from dmgd.progress import SILENT, Progress
from dmgd.sources.source import Source


def fit_statistics(
    source: Source, prior: Prior, config: StatisticsConfig, *, cache: bool = True, progress: Progress = SILENT
) -> Statistics:
    """The statistics of the source's training split in the prior's latent space.

    Fitted statistics are kept in the user's cache and reused when source, prior and settings are the same; `cache`
    False neither reads nor writes it. Raises MismatchError if the prior lacks a class of the source.
    """
    classes = prior.match_classes(source.classes)
    header = statistics_header(source, prior, config)
    path = _cache_path(header)
    if cache and path.exists():
        try:
            statistics = Statistics.load(path)
            progress.note(f"reused statistics {path}")
            return statistics
        except ArtifactError as error:
            progress.warn(f"{error}; fitting anew")

    latents = encode_source(source, prior, progress=progress)
    points = []
    with progress.task("k-means", len(classes), "classes") as task:
        for info, own in zip(classes, latents, strict=True):
            task.describe(info.name)
            points.append(quantize(own.rows, config.k, class_seed(config.seed, info.identity)))
            task.advance()
    statistics = Statistics(
        support=torch.from_numpy(np.stack([support for support, _ in points])),
        mass=torch.from_numpy(np.stack([mass for _, mass in points])).float(),
        count=torch.tensor([len(own.rows) for own in latents]),
        classes=classes,
        header=header,
    )
    if cache:
        statistics.save(path)
    return statistics


def statistics_header(source: Source, prior: Prior, config: StatisticsConfig) -> dict[str, Any]:
    """What the statistics are computed from; two files with equal headers hold equal statistics."""
    return {
        "source": {"name": source.name, "variant": source.variant, "fingerprint": source.fingerprint("train")},
        "prior": prior.identity.to_json(),
        "image_size": prior.image_size,
        "k": config.k,
        "seed": config.seed,
        "versions": {name: version(name) for name in ("dmgd", "torch", "scikit-learn", "numpy")},
    }


def check_statistics(statistics: Statistics, source: Source, prior: Prior, k: int) -> None:
    """Raise MismatchError, saying what differs, unless the statistics belong to this source, prior and k."""
    wanted = {
        "source": (statistics.header["source"]["fingerprint"], source.fingerprint("train")),
        "prior": (statistics.header["prior"]["digest"], prior.identity.digest),
        "k": (statistics.header["k"], k),
    }
    names = {"source": source.name, "prior": prior.identity.id, "k": k}
    for what, (found, expected) in wanted.items():
        if found != expected:
            had = (
                statistics.header[what]
                if what == "k"
                else statistics.header[what].get("name", statistics.header[what].get("id"))
            )
            raise MismatchError(
                f"the statistics are of another {what} ({had}, not this {names[what]}); "
                "fit them again with dmgd fit-stats, or leave --stats out"
            )


def _cache_path(header: dict[str, Any]) -> Path:
    key = hashlib.sha256(canonical_json(header).encode()).hexdigest()[:16]
    return user_cache_path("dmgd") / "statistics" / f"{header['source']['name']}-{key}.safetensors"
