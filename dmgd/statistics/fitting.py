"""Fitting support points, masses, covariances and mean features to the latents of every class."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy import ndarray
from platformdirs import user_cache_path
from torch import Tensor

from dmgd.classes.imagenet import edition
from dmgd.classes.info import ClassInfo
from dmgd.config import StatisticsConfig
from dmgd.distribution.engine import Engine, SerialEngine, alone
from dmgd.files import canonical_json, safe_name, sha256_bytes
from dmgd.priors.prior import Prior
from dmgd.progress import Progress, Task
from dmgd.sources.decode import available_cores
from dmgd.sources.source import Source
from dmgd.statistics.cache import ClassLatents, Latents
from dmgd.statistics.kmeans import class_seed, quantization_error, quantize, reproducible
from dmgd.statistics.untrained import mean_features

BAD_LISTED = 100
HEADER = 6  # incremented when statistics get new parts, so that cached ones without them are fitted again


@dataclass(frozen=True)
class FitTask:
    """The latents `rows` (n, d) of a class, and its seed."""

    rows: ndarray
    seed: int


@dataclass(frozen=True)
class Fit:
    """What is fitted to a class, see `fit_classes`."""

    support: ndarray
    mass: ndarray
    covariance: ndarray
    features: ndarray
    w2: float
    w2_of_one_point: float


@dataclass(frozen=True)
class Fitting:
    """Fits `k` support points and mean features to a class, whose latents have the shape `latent_shape`; as the work of
    an engine; its own spec."""

    k: int
    latent_shape: tuple[int, int, int]
    device: ClassVar[str] = "core"

    def __call__(self, task: FitTask, bar: Task) -> Fit:
        rows = task.rows
        with reproducible():
            support, mass = quantize(rows, self.k, task.seed)
            mean = rows.mean(0, dtype="float64", keepdims=True).astype("float32")
            errors = [quantization_error(rows, points) for points in (support[mass > 0], mean)]
            covariance = covariance_along(support, mass, rows)
            features = mean_features(rows, self.latent_shape)
        bar.advance()
        return Fit(support, mass.astype("float32"), covariance, features, *(float(f"{one:.6g}") for one in errors))

    def spec(self) -> "Fitting":
        return self

    def open(self, progress: Progress, cores: int) -> "Fitting":
        return self


def fit_classes(
    latents: Sequence[ClassLatents],
    classes: Sequence[ClassInfo],
    config: StatisticsConfig,
    *,
    latent_shape: tuple[int, int, int],
    engine: Engine = SerialEngine(),
    progress: Progress,
) -> tuple[dict[str, Tensor], dict[str, list[float]]]:
    """The `support`, `mass`, `covariance` and `features` of `Statistics`, and the quantization errors of every class:
    `w2` is W₂², the mean squared distance of a latent to its nearest point, `w2_of_one_point` the same with the mean as
    the only point. `latent_shape` is (channels, height, width). One thread per core, or the engine's workers; their
    number does not change the result."""
    seeds = [class_seed(config.seed, info.identity) for info in classes]
    tasks = (alone(FitTask(latents[index].rows, seed)) for index, seed in enumerate(seeds))
    fitting = Fitting(config.k, latent_shape)
    with engine, reproducible(), progress.task("fit", len(classes), "classes") as bar:
        found = engine.map(fitting, tasks, bar, progress, ordered=True, threads=available_cores())
        fits = [fit for _, fit in found]
    names = ("support", "mass", "covariance", "features")
    tensors = {name: torch.from_numpy(np.stack([getattr(fit, name) for fit in fits])) for name in names}
    return tensors, {name: [getattr(fit, name) for fit in fits] for name in ("w2", "w2_of_one_point")}


def covariance_along(
    support: Float[ndarray, "k d"], mass: Float[ndarray, " k"], latents: Float[ndarray, "n d"]
) -> Float64[ndarray, "k k"]:
    """S Σ Sᵀ with Σ the covariance of the latents of a class and S (k, d) the deviations of its support points from
    their mean; 0 for points without mass."""
    deviations = np.where(mass[:, None] > 0, support - mass @ support, 0)
    along = (latents - latents.mean(0, dtype=np.float64)) @ deviations.T
    return along.T @ along / len(latents)


def statistics_header(
    source: Source, prior: Prior, config: StatisticsConfig, latents: Latents, counts: Sequence[int]
) -> dict[str, Any]:
    """What the statistics were computed from. The source's fingerprint is of the pixels that the encoder got, so it
    does not depend on files and their location."""
    shown = [{"name": name, "reason": reason} for name, reason in latents.bad[:BAD_LISTED]]
    return {
        "source": {
            "name": source.name,
            "variant": edition(source.name, counts) or source.variant,
            "licence": source.licence,
            "fingerprint": latents.content,
        },
        "bad_images": {"count": len(latents.bad), "listed": shown},
        "prior": prior.identity.to_json(),
        "encoder": prior.encoder_identity,
        "image_size": prior.image_size,
        "detail": float(f"{latents.detail:.6g}"),
        "crop": "centre: box halving, bicubic",
        "mirror": config.mirror,
        "batch_invariant": latents.batch_invariant,
        "k": config.k,
        "seed": config.seed,
        "device": prior.device.type,
        "versions": {name: version(name) for name in ("dmgd", "torch", "scikit-learn", "numpy", "pillow")},
    }


def statistics_path(source: Source, prior: Prior, config: StatisticsConfig) -> Path:
    """Where the cache keeps the statistics."""
    key = {
        "header": HEADER,
        "source": [source.name, source.variant, source.fingerprint("train")],
        "classes": [info.to_json() for info in source.classes],
        "prior": [prior.identity.to_json(), prior.encoder_identity, [info.to_json() for info in prior.classes]],
        "settings": [config.k, config.seed, config.mirror, config.max_bad, prior.image_size, prior.device.type],
        "versions": [version(name) for name in ("dmgd", "torch", "scikit-learn", "numpy", "pillow", "diffusers")],
    }
    name = safe_name(f"{source.name}-{sha256_bytes(canonical_json(key).encode())[:16]}")
    return user_cache_path("dmgd") / "statistics" / f"{name}.safetensors"
