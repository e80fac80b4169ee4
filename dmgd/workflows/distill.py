"""The workflow `distill`: statistics → guided sampling → run directory."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor

from dmgd.classes.info import ClassInfo
from dmgd.config import StatisticsConfig, configured
from dmgd.errors import UsageError
from dmgd.exporters.distilled import require_outside_sets
from dmgd.generation.batches import Batch
from dmgd.generation.config import DistillConfig
from dmgd.generation.micro_batches import decode, micro_batched
from dmgd.generation.plan import make_plan
from dmgd.generation.sampling import sample_batch
from dmgd.matching.method import Method
from dmgd.priors.load import as_prior
from dmgd.priors.prior import Prior
from dmgd.progress import Progress, listener
from dmgd.runs.directory import MANIFEST, RunDirectory, require_own
from dmgd.runs.preview import write_preview
from dmgd.sources.detail import detail
from dmgd.sources.open import as_source
from dmgd.sources.source import Source
from dmgd.specs import NO_VAE, PriorSpec, SourceSpec, default_prior
from dmgd.statistics.content import check_statistics
from dmgd.statistics.file import Statistics
from dmgd.workflows.fit_stats import fit_statistics

LEAST_DETAIL = 0.5  # of the source's: below it, warn of blur


def distill(
    source: Source | SourceSpec | str,
    prior: Prior | PriorSpec | str | None = None,
    config: DistillConfig | None = None,
    *,
    out: Path | str | None = None,
    statistics: Statistics | Path | str | None = None,
    resume: bool = False,
    device: str = "auto",
    progress: Progress | bool = False,
    **settings: Any,
) -> RunDirectory:
    """The finished run at `out`: `ipc` images for every class of the source, sampled from the prior (None: the source's
    own) by a configuration or its `settings`, see `DistillConfig.of`: method="dmgd-paper", ipc=5, rho=5. `out` None is
    `DistillConfig.run_folder`, such as runs/imagenette-ipc10-dmgd-seed0.

    The number of support points of the `statistics` is used and recorded; without any, they are fitted, and kept in the
    cache. Source, prior and statistics may be opened ones, specs, names or paths; a prior that is not loaded yet is
    loaded onto `device`. `progress` True shows it on stderr.

    A run that was interrupted or damaged is continued, and ends with the bytes that it would have had undisturbed; a
    greedy run of fewer images per class grows. `resume` refuses to begin a new run. Raises UsageError if `out` holds
    something else, MismatchError if it holds a run with other settings, or if the statistics are not the source's.
    """
    config, progress = configured(DistillConfig.of, config, settings), listener(progress)
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
    prior = as_prior(prior, device, source.classes)
    if config.batch_size is None and (out / MANIFEST).is_file():
        config = replace(config, batch_size=RunDirectory.open(out).config.batch_size)
    if statistics is None:
        statistics = fit_statistics(source, prior, StatisticsConfig(config.k), progress=progress)
    else:
        wanted = config.with_statistics_of(statistics.header["k"]).k if config.method.uses_points else None
        check_statistics(statistics, source, prior, wanted, progress=progress)
    plan = make_plan(config, source.spec, prior, statistics, progress=progress)
    network = prior.compiled() if config.compile else prior
    denoise = micro_batched(network.denoise, plan.batch_size, progress)
    with (
        RunDirectory.writer(out, plan.to_json()) as run,
        progress.task("distil", len(plan.batches) * plan.steps, "steps") as task,
        ThreadPoolExecutor(1) as writer,  # left after it has written what was made, whatever happened
    ):

        def store(batch: Batch, latents: Tensor, records: list[dict[str, Any]]) -> None:
            run.write_batch(batch, decode(prior, latents, progress).numpy(), latents, records)

        written: Future[None] | None = None  # the batch in the writer's hands, while the next is sampled
        frozen: list[Tensor] = []  # the finished images of the classes being made, each (c, n, d)
        whole = {batch for batch in plan.batches if _is_whole(run, batch, progress)}
        if whole:  # all at once, so that the rate is that of the steps that are taken now
            task.advance(len(whole) * plan.steps)
        for batch in plan.batches:
            if batch.images[0] == 0:
                frozen = []
            if batch in whole:
                latents = run.latents(batch).to(prior.device)
            else:
                task.describe(_span(batch, plan.classes))
                latents, records = sample_batch(
                    batch, plan, prior, statistics, frozen, denoise, observe=lambda *step: task.advance()
                )
                if written:
                    written.result()
                written = writer.submit(store, batch, latents, records)
            if config.method.matching_order == "greedy":
                frozen.append(latents.reshape(len(batch.classes), len(batch.images), -1))
        if written:
            written.result()
        write_preview(run)
        finished = run.finish()
    if warning := _detail_warning(finished, statistics.header.get("detail"), plan.method):
        progress.warn(warning)
    return finished


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
    if not of_source:
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


def _span(batch: Batch, classes: Sequence[ClassInfo]) -> str:
    first, last = classes[batch.classes[0]].name, classes[batch.classes[-1]].name
    images = f"image {batch.images[0]}" if len(batch.images) == 1 else f"images {batch.images[0]}–{batch.images[-1]}"
    return f"{first}, {images}" if first == last else f"{first} … {last}, {images}"
