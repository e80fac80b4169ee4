"""The workflow `fit-stats`: source images → latents → support points and masses of every class."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from numpy import ndarray
from platformdirs import user_cache_path

from dmgd.artifacts.latents import ClassLatents, Latents, content_digest
from dmgd.artifacts.statistics import Statistics
from dmgd.config import StatisticsConfig
from dmgd.errors import ArtifactError, MismatchError
from dmgd.files import canonical_json, safe_name, write_json
from dmgd.matching.quantize import class_seed, quantization_error, quantize, reproducible
from dmgd.matching.spread import spread_along
from dmgd.pipeline.latents import encode_source
from dmgd.priors.prior import Prior
from dmgd.progress import SILENT, Progress
from dmgd.records import ClassInfo
from dmgd.sources.decode import available_cores, decoded
from dmgd.sources.editions import edition, edition_warning
from dmgd.sources.source import Source

BAD_LISTED = 100


def fit_statistics(
    source: Source,
    prior: Prior,
    config: StatisticsConfig,
    *,
    cache: bool = True,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> Statistics:
    """The statistics of the source's training split in the prior's latent space.

    Latents and fitted statistics are kept in the user's cache and reused when source, prior and settings are the same;
    `cache` False neither reads nor writes it. `workers` processes decode the images (None: one for each core).
    Raises MismatchError if the prior lacks a class of the source, DmgdError if too many images cannot be read.
    """
    classes = prior.match_classes(source.classes)
    path = _cache_path(source, prior, config)
    if cache and path.exists():
        try:
            statistics = Statistics.load(path)
            progress.note(f"reused statistics {path}")
            _warn_of_edition(source, statistics.count.tolist(), progress)
            return statistics
        except ArtifactError as error:
            progress.warn(f"{error}; fitting anew")

    latents = encode_source(
        source,
        prior,
        mirror=config.mirror,
        max_bad=config.max_bad,
        workers=workers,
        cache=cache,
        progress=progress,
    )
    counts = [latents.images(index) for index in range(len(latents))]
    _warn_of_edition(source, counts, progress)
    fits = fit_classes(latents, classes, config, progress=progress)
    header = statistics_header(source, prior, config, latents, counts)
    header["quality"] = {"w2": [fit.w2 for fit in fits], "w2_of_one_point": [fit.w2_of_one_point for fit in fits]}
    statistics = Statistics(
        support=torch.stack([torch.from_numpy(fit.support) for fit in fits]),
        mass=torch.stack([torch.from_numpy(fit.mass) for fit in fits]).float(),
        spread=torch.stack([torch.from_numpy(fit.spread) for fit in fits]),
        count=torch.tensor(counts),
        classes=classes,
        header=header,
    )
    if cache:
        statistics.save(path)
        remember_content(source, prior, latents.content)
    return statistics


@dataclass(frozen=True)
class ClassFit:
    """The support points and masses of one class, the covariance of its latents along them (`spread`), and how well
    they stand for it: `w2` is W₂², the mean squared distance of a latent to its nearest point, `w2_of_one_point` the
    same with the mean as the only point."""

    support: ndarray
    mass: ndarray
    spread: ndarray
    w2: float
    w2_of_one_point: float


def fit_classes(
    latents: Sequence[ClassLatents], classes: Sequence[ClassInfo], config: StatisticsConfig, *, progress: Progress
) -> list[ClassFit]:
    """The fit of every class, one class to a thread and a core; the result does not depend on their number."""

    def fit(index: int) -> ClassFit:
        rows = latents[index].rows
        support, mass = quantize(rows, config.k, class_seed(config.seed, classes[index].identity))
        mean = rows.mean(0, dtype="float64", keepdims=True).astype("float32")
        errors = (quantization_error(rows, points) for points in (support[mass > 0], mean))
        spread = spread_along(support, mass, rows)
        return ClassFit(support, mass, spread, *(float(f"{error:.6g}") for error in errors))

    threads = available_cores()
    with progress.task("k-means", len(classes), "classes") as task, reproducible(), ThreadPoolExecutor(threads) as pool:
        fits = []
        for one in pool.map(fit, range(len(classes))):
            fits.append(one)
            task.advance()
    return fits


def statistics_header(
    source: Source, prior: Prior, config: StatisticsConfig, latents: Latents, counts: Sequence[int]
) -> dict[str, Any]:
    """What the statistics were computed from. The fingerprint is of the images as the encoder saw them, so it is the
    same wherever and in whatever files they lie."""
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
        "crop": "centre: box halving, bicubic",
        "mirror": config.mirror,
        "batch_free": latents.batch_free,
        "k": config.k,
        "seed": config.seed,
        "device": prior.device.type,
        "versions": {name: version(name) for name in ("dmgd", "torch", "scikit-learn", "numpy", "pillow")},
    }


def check_statistics(
    statistics: Statistics, source: Source, prior: Prior, k: int, *, progress: Progress = SILENT
) -> None:
    """Raise MismatchError, saying what differs, unless the statistics belong to this source, prior and k.

    If the source was not encoded on this machine before, its images are read once to compare them.
    """
    found = statistics.header
    if found["prior"]["digest"] != prior.identity.digest:
        raise _other("prior", found["prior"]["id"], prior.identity.id)
    if found["k"] != k:
        raise _other("k", found["k"], k)
    identities = [info.identity for info in statistics.classes]
    if identities != [info.identity for info in source.classes] or (
        found["source"]["fingerprint"] != source_content(source, prior, progress=progress)
    ):
        raise _other("source", found["source"]["name"], source.name)


def _other(what: str, found: object, wanted: object) -> MismatchError:
    return MismatchError(
        f"the statistics are of another {what} ({found}, not this {wanted}); "
        "fit them again with dmgd fit-stats, or leave --stats out"
    )


def source_content(source: Source, prior: Prior, *, progress: Progress = SILENT) -> str:
    """The digest of the training images as the prior's encoder sees them, and of their classes; remembered."""
    path = _content_path(source, prior)
    try:
        return str(json.loads(path.read_text())["content"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there yet, or damaged
    digests: list[list[bytes]] = [[] for _ in source.classes]
    with progress.task("compare images", None, "images") as task:
        for chunk in decoded(source.items("train"), prior.image_size, prior.codec.image_channels):
            for label, digest in zip(chunk.labels, chunk.digests, strict=True):
                digests[label].append(digest)
            task.advance(chunk.size)
    content = content_digest([info.identity for info in source.classes], digests)
    remember_content(source, prior, content)
    return content


def remember_content(source: Source, prior: Prior, content: str) -> None:
    """Keep the digest of the source's images in the cache, so that `source_content` need not read them again."""
    write_json(_content_path(source, prior), {"content": content})


def _content_path(source: Source, prior: Prior) -> Path:
    size = f"{prior.image_size}x{prior.codec.image_channels}"
    return user_cache_path("dmgd") / "content" / f"{source.fingerprint('train')[:32]}-{size}.json"


def _warn_of_edition(source: Source, counts: Sequence[int], progress: Progress) -> None:
    if warning := edition_warning(source.name, counts):
        progress.warn(warning)


def _cache_path(source: Source, prior: Prior, config: StatisticsConfig) -> Path:
    key = {
        "source": [source.name, source.variant, source.fingerprint("train")],
        "classes": [info.to_json() for info in source.classes],
        "prior": [prior.identity.to_json(), prior.encoder_identity, [info.to_json() for info in prior.classes]],
        "settings": [config.k, config.seed, config.mirror, config.max_bad, prior.image_size, prior.device.type],
        "versions": [version(name) for name in ("dmgd", "torch", "scikit-learn", "numpy", "pillow", "diffusers")],
    }
    name = safe_name(f"{source.name}-{hashlib.sha256(canonical_json(key).encode()).hexdigest()[:16]}")
    return user_cache_path("dmgd") / "statistics" / f"{name}.safetensors"
