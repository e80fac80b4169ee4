"""The workflow `distill`: statistics → guided sampling → run directory."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor

from dmgd.classes.info import ClassInfo
from dmgd.config import DistillConfig, Method
from dmgd.generation.background import Behind
from dmgd.generation.batches import Unit, plan_units
from dmgd.generation.micro_batches import decode, in_portions, suitable_batch
from dmgd.generation.sampling import sample_unit
from dmgd.images import detail
from dmgd.matching.methods import placement, placement_notes
from dmgd.priors.prior import Prior
from dmgd.progress import SILENT, Progress
from dmgd.runs.directory import MANIFEST, RunDirectory
from dmgd.runs.preview import write_preview
from dmgd.statistics.file import Statistics

LEAST_DETAIL = 0.5  # of the source's: below it, warn of fog


def distill(
    config: DistillConfig,
    prior: Prior,
    statistics: Statistics,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress = SILENT,
) -> RunDirectory:
    """The finished run at `out`: `config.ipc` images for every class of the statistics, whose number of support points
    is used and recorded.

    A run that was interrupted or damaged is continued, and ends with the bytes that it would have had undisturbed; a
    greedy run of fewer images per class grows. `resume` refuses to begin a new run. Raises UsageError if `out` holds
    something else, MismatchError if it holds a run with other settings.
    """
    if resume:
        RunDirectory.open(out)
    config = with_batch_size(config, prior, out).with_statistics_of(statistics.header["k"])
    units = plan_units(len(statistics.classes), config)
    for note in placement_notes(config.method, statistics):
        progress.note(note)
    network = replace(prior, network=prior.network.compiled()) if config.compile else prior
    denoise = in_portions(network.predict, config.in_flight, progress)
    with (
        RunDirectory.writer(out, manifest(config, prior, statistics)) as run,
        progress.task("distil", len(statistics.classes) * config.ipc, "images") as task,
        Behind() as behind,
    ):

        def store(unit: Unit, latents: Tensor, notes: list[dict[str, Any]]) -> None:
            run.write_unit(unit, decode(prior, latents, progress).numpy(), latents, notes)
            task.advance(len(unit))

        frozen: list[Tensor] = []  # the finished images of the classes being made, each (c, n, d)
        for unit in units:
            if unit.images[0] == 0:
                frozen = []
            if is_whole(run, unit, progress):
                latents = run.latents(unit).to(prior.device)
                task.advance(len(unit))
            else:
                task.describe(_span(unit, statistics.classes))
                latents, notes = sample_unit(unit, config, prior, statistics, frozen, denoise)
                behind.run(store, unit, latents, notes)
            if config.method.order == "greedy":
                frozen.append(latents.reshape(len(unit.classes), len(unit.images), -1))
        behind.wait()
        write_preview(run)
        finished = run.finish()
    if warning := detail_warning(finished, statistics.header.get("detail"), config.method):
        progress.warn(warning)
    return finished


def with_batch_size(config: DistillConfig, prior: Prior, out: Path) -> DistillConfig:
    """The configuration with the images in flight: those asked for, or of the run that is continued, or as many as suit
    the device."""
    if config.batch_size:
        return config
    begun = RunDirectory.open(out).config.batch_size if (out / MANIFEST).is_file() else None
    return replace(config, batch_size=begun or suitable_batch(prior))


def is_whole(run: RunDirectory, unit: Unit, progress: Progress) -> bool:
    """Whether the unit is finished and undamaged; damage is told."""
    if not run.has(unit):
        return False
    damaged = run.damage(unit)
    if damaged:
        progress.warn(f"{damaged} is missing or was changed; its images are made again")
    return damaged is None


def detail_warning(run: RunDirectory, of_source: float | None, method: Method) -> str | None:
    """What to say where the mean `detail` of the run's images is less than half of the source's; None where it is not,
    or where the statistics do not know the source's."""
    if not of_source:
        return None
    made = fmean(float(detail(run.pixels(record))) for record in run.records())
    if made >= LEAST_DETAIL * of_source:
        return None
    remedies = "" if method.distribution == "none" else "a smaller --rho, an earlier end of the --window, or "
    return (
        f"the images have {made / of_source:.0%} of the source's detail ({made:.3g} of {of_source:.3g}): they are "
        f"blurred; try {remedies}another --prior"
    )


def manifest(config: DistillConfig, prior: Prior, statistics: Statistics) -> dict[str, Any]:
    """Everything that the images depend on, for run.json."""
    return {
        "config": config.to_json(),
        "classes": [info.to_json() for info in statistics.classes],
        "prior": prior.identity.to_json(),
        "statistics": {**statistics.header, "sha256": statistics.digest},
        **placement(config.method, statistics),
        "device": prior.device.type,
        "versions": {name: version(name) for name in ("dmgd", "torch", "numpy", "pillow", "pot")},
    }


def _span(unit: Unit, classes: Sequence[ClassInfo]) -> str:
    first, last = classes[unit.classes[0]].name, classes[unit.classes[-1]].name
    images = f"image {unit.images[0]}" if len(unit.images) == 1 else f"images {unit.images[0]}–{unit.images[-1]}"
    return f"{first}, {images}" if first == last else f"{first} … {last}, {images}"
