"""The workflow `distill`: statistics → guided sampling → run directory."""

from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from platformdirs import user_cache_path

from dmgd.config import StatisticsConfig, configured
from dmgd.distribution.engine import Engine, as_engine
from dmgd.errors import ArtifactError, UsageError
from dmgd.evaluation.judge import open_judge
from dmgd.exporters.distilled import require_outside_sets
from dmgd.generation.batches import Batch
from dmgd.generation.config import DistillConfig
from dmgd.generation.cropping import Judge, cropped_batches, crops_tried
from dmgd.generation.plan import Plan, make_plan
from dmgd.generation.sampling_work import MadeBatch, Sampling, sampling_chains
from dmgd.generation.selecting import require_enough, selected_batches
from dmgd.matching.coresets import weights
from dmgd.matching.method import Method, Sampled
from dmgd.matching.selections import RDED, Selection
from dmgd.priors.load import as_prior
from dmgd.priors.prior import Prior
from dmgd.progress import Progress, listener
from dmgd.runs.directory import MANIFEST, RunDirectory, require_own
from dmgd.runs.preview import write_preview
from dmgd.runs.weights import WEIGHTS, read_weights, write_weights
from dmgd.sources.decode import available_cores
from dmgd.sources.detail import LEAST_DETAIL, detail
from dmgd.sources.open import as_source
from dmgd.sources.source import Source
from dmgd.specs import NO_VAE, PriorSpec, SourceSpec, default_prior, embedded_points
from dmgd.statistics.content import check_statistics
from dmgd.statistics.embedded import load_embedded
from dmgd.statistics.encoding import cached_latents, encode_source
from dmgd.statistics.file import Statistics
from dmgd.workflows.fit_stats import fit_statistics

WRITERS = 8  # threads, at most, each of which writes a batch


def distill(
    source: Source | SourceSpec | str,
    prior: Prior | PriorSpec | str | None = None,
    config: DistillConfig | None = None,
    *,
    out: Path | str | None = None,
    statistics: Statistics | Path | str | None = None,
    resume: bool = False,
    device: str | Engine = "auto",
    progress: Progress | bool = False,
    **settings: Any,
) -> RunDirectory:
    """The finished run at `out`: `ipc` images for every class of the source, sampled from the prior (None: the source's
    own) by a configuration or its `settings`, see `DistillConfig.of`: method="dmgd-paper", ipc=5, rho=5. `out` None is
    `DistillConfig.run_folder`, such as runs/imagenette-ipc10-dmgd-seed0.

    The number of support points of the `statistics` is used and recorded; without any, those in the package, if they
    serve, or else they are fitted, and kept in the cache. Source, prior and statistics may be opened ones, specs, names
    or paths; a prior that is not loaded yet is loaded onto `device`; or that is a `RayEngine`, whose workers then do
    the work. `progress` True shows it on stderr.

    A run that was interrupted or damaged is continued, and ends with the bytes that it would have had undisturbed; a
    greedy run of fewer images per class grows. `resume` refuses to begin a new run. Raises UsageError if `out` holds
    something else, MismatchError if it holds a run with other settings, or if the statistics are not the source's.
    """
    config, progress = configured(DistillConfig.of, config, settings), listener(progress)
    engine = as_engine(device)
    name = (source.spec if isinstance(source, Source) else SourceSpec.of(source)).name
    prior = prior or default_prior(name)
    if (prior.spec if isinstance(prior, Prior) else PriorSpec.of(prior)).vae == NO_VAE:
        raise UsageError(
            "distill makes images, and a prior with --vae none has nothing to decode them with; leave it out"
        )
    out = Path(out or config.run_folder(name))
    if resume:
        RunDirectory.open(out)
    require_outside_sets(out)
    require_own(out)
    source = as_source(source, progress)
    if isinstance(statistics, Path | str):
        statistics = Statistics.load(statistics)
    prior = as_prior(prior, engine.device, source.classes)
    if isinstance(config.method, Selection) and (config.compile or config.batch_size):
        raise UsageError(
            f"{'compile' if config.compile else 'batch-size'} has no effect: {config.method.name} chooses real images, "
            "and samples none"
        )
    classes, method = prior.match_classes(source.classes), config.method
    judge = open_judge(method.teacher, classes, prior) if isinstance(method, RDED) else None
    if config.compile:
        prior.compiled()  # refused here, before anything is encoded, where it cannot be
    if config.batch_size is None and (out / MANIFEST).is_file():
        config = replace(config, batch_size=RunDirectory.open(out).config.batch_size)
    is_fitted = statistics is None and not config.can_use(embedded_points(source.spec, prior.spec))
    if statistics is not None:
        wanted = config.with_statistics_of(statistics.header["k"]).k if config.method.uses_points else None
        check_statistics(statistics, source, prior, wanted, progress=progress)
    elif is_fitted:
        statistics = fit_statistics(source, prior, StatisticsConfig(config.k), device=engine, progress=progress)
    else:
        statistics = load_embedded(prior)
    plan = make_plan(config, source.spec, prior, statistics, progress=progress)
    plan = replace(plan, teacher=judge.identity if judge else None)
    chooses, threads = isinstance(plan.method, Selection), min(WRITERS, available_cores())
    if chooses:
        require_enough(plan, statistics)
    with (
        engine,
        RunDirectory.writer(out, plan.to_json()) as run,
        ThreadPoolExecutor(threads) as writers,  # left after they have written what was made
    ):
        whole = {batch for batch in plan.batches if _is_whole(run, batch, progress)}
        written: deque[Future[None]] = deque()  # batches in the writers' hands, while the next are made
        if chooses:
            batches = _selected(plan, source, prior, whole, judge, engine, progress)
        else:
            batches = _sampled(plan, prior, statistics, run, whole, engine, progress)
        for batch, made in batches:
            if len(written) == threads:
                written.popleft().result()
            written.append(writers.submit(run.write_batch, batch, made.pixels, made.latents, made.records))
        for future in written:
            future.result()
        write_preview(run)
        if is_fitted:  # given statistics are there to spare the encoding of the source, which weights need
            _weigh(run, plan, source, prior, statistics, progress)
        finished = run.finish()
    if warning := _detail_warning(finished, statistics.header.get("detail"), plan.method):
        progress.warn(warning)
    return finished


def _sampled(
    plan: Plan,
    prior: Prior,
    statistics: Statistics,
    run: RunDirectory,
    whole: Collection[Batch],
    engine: Engine,
    progress: Progress,
) -> Iterator[tuple[Batch, MadeBatch]]:
    """The batches of the plan that are not whole, sampled."""
    sampling = Sampling(plan, prior, progress)
    with progress.task("distil", len(plan.batches) * plan.steps, "steps") as task:
        if whole:  # all at once, so that the rate is that of the steps that are taken now
            task.advance(len(whole) * plan.steps)
        chains = sampling_chains(plan, statistics, engine, whole, run.latents)
        for one, made in engine.map(sampling, chains, task, progress):
            yield one.batch, made


def _selected(
    plan: Plan,
    source: Source,
    prior: Prior,
    whole: Collection[Batch],
    judge: Judge | None,
    engine: Engine,
    progress: Progress,
) -> Iterator[tuple[Batch, MadeBatch]]:
    """The batches of the plan that are not whole, chosen from the source; as crops, where there is a judge."""
    latents = encode_source(source, prior, max_bad=1.0, engine=engine, progress=progress)  # statistics had the limit
    missing = [batch for batch in plan.batches if batch not in whole]
    if judge:
        total = crops_tried(plan, latents, {c for batch in missing for c in batch.classes})
        with progress.task("judge", total, "crops") as task:
            yield from cropped_batches(missing, plan, source, prior, latents, judge, task)
        return
    with progress.task("choose", sum(map(len, plan.batches)), "images") as task:
        task.advance(sum(map(len, whole)))
        for batch, made in selected_batches(missing, plan, source, prior, latents):
            task.advance(len(batch))
            yield batch, made


def _weigh(
    run: RunDirectory, plan: Plan, source: Source, prior: Prior, statistics: Statistics, progress: Progress
) -> None:
    """Write what each image stands for, unless it is there: the share of the real images whose latents are nearest to
    its own. They are left out, with a note, where the latents of the real images are not in the cache."""
    if run.complete:
        try:
            if read_weights(run.path, len(plan.classes), plan.config.ipc):
                return
        except ArtifactError as error:
            progress.warn(str(error))
    latents = cached_latents(source, prior, mirror=statistics.header["mirror"])
    if latents is None:
        (run.path / WEIGHTS).unlink(missing_ok=True)
        progress.note(
            "the images get no weights: the latents of the real images are not in the cache; with "
            f"{user_cache_path('dmgd')} emptied and writable, the same command adds them"
        )
        return
    found: list[list[float]] = []
    for classes, group in groupby(plan.batches, lambda batch: batch.classes):
        parts = [run.latents(one).reshape(len(classes), len(one.images), -1).numpy() for one in group]
        for c, images in zip(classes, np.concatenate(parts, 1), strict=True):
            found.append(weights(latents[c].rows, images).tolist())
    write_weights(run.path, found)


def _is_whole(run: RunDirectory, batch: Batch, progress: Progress) -> bool:
    """Whether the batch is finished and undamaged; damage is reported."""
    if not run.has(batch):
        return False
    damaged = run.damage(batch)
    if damaged:
        progress.warn(f"{damaged} is missing or was changed; its images are regenerated")
    return damaged is None


def _detail_warning(run: RunDirectory, of_source: float | None, method: Method) -> str | None:
    """What to say where the mean `detail` of the run's images is less than half of the source's; None where it is not,
    or where the statistics do not know the source's."""
    if not of_source or not isinstance(method, Sampled):
        return None
    made = fmean(float(detail(run.pixels(record))) for record in run.records())
    if made >= LEAST_DETAIL * of_source:
        return None
    remedies = ""
    if getattr(method, "distribution", False):
        kept = getattr(method, "keep_detail", None)
        remedies = "a smaller --rho or " if kept is None else "" if kept else "--keep-detail yes or "
    return (
        f"the images have {made / of_source:.0%} of the source's detail ({made:.3g} of {of_source:.3g}): they are "
        f"blurred; try {remedies}another --prior"
    )
