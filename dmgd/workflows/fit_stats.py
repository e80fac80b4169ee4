"""The workflow `fit-stats`: source images → latents → support points, covariances and features of every class."""

from collections.abc import Sequence
from typing import Any

import torch

from dmgd.classes.imagenet import edition_warning
from dmgd.config import StatisticsConfig, configured
from dmgd.distribution.engine import Engine, as_engine
from dmgd.errors import ArtifactError
from dmgd.priors.load import as_prior
from dmgd.priors.prior import Prior
from dmgd.progress import Progress, listener
from dmgd.sources.open import as_source
from dmgd.sources.source import Source
from dmgd.specs import PriorSpec, SourceSpec, default_prior
from dmgd.statistics.cache import warn_of_cache
from dmgd.statistics.content import remember_content
from dmgd.statistics.encoding import encode_source
from dmgd.statistics.file import Statistics
from dmgd.statistics.fitting import fit_classes, statistics_header, statistics_path


def fit_statistics(
    source: Source | SourceSpec | str,
    prior: Prior | PriorSpec | str | None = None,
    config: StatisticsConfig | None = None,
    *,
    cache: bool = True,
    workers: int | None = None,
    device: str | Engine = "auto",
    progress: Progress | bool = False,
    **settings: Any,
) -> Statistics:
    """The statistics of the source's training split in the latent space of the prior (None: the source's default), by a
    configuration or its `settings`, such as k=20.

    Latents and statistics are cached and reused for the same source, prior and settings; `cache` False neither reads
    nor writes the cache, and one that cannot be written is done without. `workers` processes decode the images (None:
    one per core). Source and prior may be open objects, specs or names; a prior is loaded onto `device`; or that is a
    `RayEngine`, whose own workers then decode, encode and fit. Raises MismatchError if the prior lacks a class of the
    source, DmgdError if too many images are unreadable.
    """
    config = configured(StatisticsConfig, config, settings)
    progress, engine = listener(progress), as_engine(device)
    source = as_source(source, progress)
    prior = as_prior(prior or default_prior(source.name), engine.device, source.classes)
    classes = prior.match_classes(source.classes)
    path = statistics_path(source, prior, config)
    try:
        if cache and path.is_file():
            statistics = Statistics.load(path)
            progress.note(f"reused statistics {path}")
            _warn_of_edition(source, statistics.count.tolist(), progress)
            return statistics
    except ArtifactError as error:
        progress.warn(f"{error}; fitting again")
    except OSError as error:
        warn_of_cache(error, progress)
        cache = False

    for remark in source.remarks("train"):
        progress.warn(remark)
    with engine:
        latents = encode_source(
            source,
            prior,
            mirror=config.mirror,
            max_bad=config.max_bad,
            workers=workers,
            cache=cache,
            engine=engine,
            progress=progress,
        )
        counts = [latents.images(index) for index in range(len(latents))]
        _warn_of_edition(source, counts, progress)
        shape = prior.latent_shape
        tensors, quality = fit_classes(latents, classes, config, latent_shape=shape, engine=engine, progress=progress)
    header = statistics_header(source, prior, config, latents, counts) | {"quality": quality}
    statistics = Statistics(**tensors, count=torch.tensor(counts), classes=classes, header=header)
    if latents.in_cache:
        try:
            remember_content(source, prior, latents.content)
            statistics.save(path)  # last: where they are found, nothing else is done
        except OSError as error:
            warn_of_cache(error, progress)
    return statistics


def _warn_of_edition(source: Source, counts: Sequence[int], progress: Progress) -> None:
    if warning := edition_warning(source.name, counts):
        progress.warn(warning)
