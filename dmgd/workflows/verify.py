"""The workflow `verify`: check a run or an export against its records, a lock file, and regenerated images."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from dmgd.classes.info import ClassInfo
from dmgd.config import StatisticsConfig, VerifyConfig, configured
from dmgd.errors import ArtifactError, MismatchError, UsageError
from dmgd.exporters.distilled import DistilledSet, export_problems, require_outside_sets
from dmgd.files import write_json
from dmgd.generation.cropping import cut_again
from dmgd.generation.plan import Plan
from dmgd.generation.regeneration import StoredLatents, regenerate, spread
from dmgd.generation.selecting import selected_batches
from dmgd.images import LOSSLESS
from dmgd.matching.selections import RDED, Selection
from dmgd.mosaics import shrunk
from dmgd.priors.load import as_prior, torch_device
from dmgd.priors.prior import Prior
from dmgd.progress import Progress, listener
from dmgd.runs.check import run_problems
from dmgd.runs.directory import RunDirectory
from dmgd.runs.lockfile import compare_locks, make_lock, read_lock
from dmgd.runs.manifest import differences
from dmgd.sources.open import as_source
from dmgd.sources.source import Source
from dmgd.specs import EMBEDDED_POINTS, PriorSpec, SourceSpec, unlabelled
from dmgd.statistics.embedded import load_embedded
from dmgd.statistics.encoding import encode_source
from dmgd.statistics.file import Statistics
from dmgd.workflows.fit_stats import fit_statistics


@dataclass
class Report:
    """What was checked, and all problems found, one line each."""

    checked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def verify(
    target: DistilledSet | RunDirectory | Path | str,
    config: VerifyConfig | None = None,
    *,
    source: Source | SourceSpec | str | None = None,
    prior: Prior | PriorSpec | str | None = None,
    device: str = "auto",
    progress: Progress | bool = False,
    **settings: Any,
) -> Report:
    """The report on a run or an export: every file, count and label is checked against its records and, by a
    configuration or its `settings`, such as regenerate=10, its pixels against a lock file, and some of its images are
    regenerated from its source and prior, or from those given here.

    Raises ArtifactError instead of writing a lock file of a damaged set, MismatchError if prior, encoder or statistics
    are not those of the run, UsageError if JPEG images were to be compared with regenerated ones.
    """
    config, on_device = configured(VerifyConfig, config, settings), torch_device(device)
    if not isinstance(target, DistilledSet):
        target = DistilledSet.open(target.path if isinstance(target, RunDirectory) else Path(target))
    if config.write_lock:
        require_outside_sets(Path(config.write_lock))
    report = Report([f"{'run' if target.run else 'export'}: every checksum, count and label"])
    report.problems += run_problems(target.run) if target.run else export_problems(target.path, target.index or {})
    if config.write_lock:
        if report.problems:
            raise ArtifactError(f"{target.path} is damaged ({report.problems[0]}); no lock file was written")
        write_json(Path(config.write_lock), _lock_of(target))
        report.checked.append(f"wrote {config.write_lock}")
    if config.lock and not report.problems:
        problems, equality = compare_locks(read_lock(Path(config.lock)), _lock_of(target))
        report.problems += [f"{config.lock}: {problem}" for problem in problems]
        report.checked.append(f"lock file: {equality}")
    if config.regenerate and not report.problems:
        _require_exact_pixels(target)
        own_source, own_prior = target.specs
        loaded, progress = as_prior(prior or own_prior, on_device), listener(progress)
        _check_prior(target, loaded)
        if config.stats:
            statistics = _load_statistics(target, config.stats)
        else:
            statistics = _statistics_again(target, loaded, source or own_source, progress)
        plan = Plan.from_json(target.manifest)
        indices = spread(len(plan.classes), plan.config.ipc, config.regenerate)
        if isinstance(plan.method, RDED):
            report.checked.append("crops are cut again where the records say; the teacher does not judge them again")
            boxes = {at: (one["source_name"], one["source_crop"]) for at, one in target.described() if at in indices}
            again = cut_again(boxes, as_source(source or own_source, progress), loaded)
        elif isinstance(plan.method, Selection):
            again = _chosen_again(indices, plan, loaded, source or own_source, progress)
        else:
            again = regenerate(indices, plan, loaded, statistics, _stored_latents(target))
        if target.tiles > 1:
            again = ((c, i, shrunk(pixels, target.tiles)) for c, i, pixels in again)
        _compare_regenerated(target, indices, again, config.tolerance, report, progress)
    return report


def _lock_of(target: DistilledSet) -> dict[str, Any]:
    return make_lock(target.manifest, ((c, pixels) for c, _, pixels in target.images()), target.tiles)


def _require_exact_pixels(target: DistilledSet) -> None:
    if target.index is not None and target.index["image_format"] not in LOSSLESS:
        raise UsageError(
            f"{target.path} has {target.index['image_format']} images, which are lossy; --regenerate needs "
            "the run itself, or an export as png or webp"
        )


def _check_prior(target: DistilledSet, prior: Prior) -> None:
    """Raise MismatchError unless the prior's weights, configuration and settings are those of the run."""
    made_with = target.manifest["prior"]
    if prior.identity.digest != made_with["digest"]:
        raise MismatchError(
            f"{target.path} was made with the prior {made_with['id']!r} of digest {made_with['digest'][:12]}…, "
            f"not {prior.identity.digest[:12]}…; load the same weights"
        )
    classes = tuple(ClassInfo.from_json(fields) for fields in target.manifest["classes"])
    differing = differences(unlabelled(made_with), unlabelled(prior.to_json()))
    if differing or prior.match_classes(classes) != classes:
        raise MismatchError(
            f"the prior {made_with['id']!r} has changed since {target.path} was made "
            f"({'; '.join(differing) or 'its classes are in another order'}); restore its configuration"
        )


def _statistics_again(
    target: DistilledSet, prior: Prior, source: Source | SourceSpec | str, progress: Progress
) -> Statistics:
    """The target's statistics: those in the package, or fitted again. Raises MismatchError for another encoder or other
    images."""
    made_with = target.manifest["statistics"]
    if differing := differences(unlabelled(made_with["encoder"]), unlabelled(prior.encoder_identity)):
        raise MismatchError(
            f"the statistics of {target.path} were made with the encoder {made_with['encoder']['id']!r}, not "
            f"{prior.encoder_identity['id']!r} ({'; '.join(differing)}); name it with --encoder, or give the "
            "statistics with --stats"
        )
    if prior.spec.name in EMBEDDED_POINTS and (embedded := load_embedded(prior)).digest == made_with["sha256"]:
        return embedded
    # Which images are readable is the fingerprint's to say, and not for a limit that the run does not record.
    max_bad = 1.0 if made_with["bad_images"]["count"] else StatisticsConfig.max_bad
    settings = StatisticsConfig(made_with["k"], made_with["seed"], made_with["mirror"], max_bad)
    statistics = fit_statistics(source, prior, settings, progress=progress)
    if statistics.header["source"]["fingerprint"] != made_with["source"]["fingerprint"]:
        raise MismatchError(
            f"{target.path} was made from other images of {made_with['source']['name']} than those that are there now; "
            "restore the data, name it with --source or --data, or give the statistics with --stats"
        )
    return statistics


def _load_statistics(target: DistilledSet, path: Path | str) -> Statistics:
    """The statistics in the file. Raises MismatchError if they are not those that the target was made with."""
    statistics = Statistics.load(path)
    if statistics.digest != target.manifest["statistics"]["sha256"]:
        raise MismatchError(
            f"{path} has other statistics than {target.path} was made with; give the run's own, or leave "
            "--stats out to fit them again"
        )
    return statistics


def _stored_latents(target: DistilledSet) -> StoredLatents:
    run = target.run
    return (lambda batch: run.latents(batch) if run.has(batch) else None) if run else (lambda batch: None)


def _chosen_again(
    indices: list[tuple[int, int]],
    plan: Plan,
    prior: Prior,
    source: Source | SourceSpec | str,
    progress: Progress,
) -> Iterator[tuple[int, int, ndarray]]:
    """(class index, image index, uint8 pixels (h, w, c)) of the images `indices`, chosen from the source again."""
    opened = as_source(source, progress)
    latents = encode_source(opened, prior, max_bad=1.0, progress=progress)
    holding = [batch for batch in plan.batches if set(batch.indices()) & set(indices)]
    for batch, made in selected_batches(holding, plan, opened, prior, latents):
        yield from ((*index, made.pixels[row]) for row, index in enumerate(batch.indices()) if index in indices)


def _compare_regenerated(
    target: DistilledSet,
    indices: list[tuple[int, int]],
    again: Iterable[tuple[int, int, ndarray]],
    tolerance: int,
    report: Report,
    progress: Progress,
) -> None:
    """Report those of the target's images `indices` that, made `again`, have a pixel that differs by more than the
    tolerance."""
    stored = {(c, i): pixels for c, i, pixels in target.images() if (c, i) in indices}
    equal, largest = 0, 0
    with progress.task("regenerate", len(indices), "images") as task:
        for c, i, pixels in again:
            distance = _distance(stored.get((c, i)), pixels)
            equal, largest = equal + (distance == 0), max(largest, distance)
            if distance > tolerance:
                report.problems.append(
                    f"class {c}, image {i}: regenerated, it differs by {distance} of 255 grey levels"
                )
            task.advance()
    others = "" if equal == len(indices) else f", the others off by up to {largest} of 255 grey levels"
    how = f"{equal} with equal pixels{others}"
    report.checked.append(f"{len(indices)} images regenerated: {how} (tolerance {tolerance})")


def _distance(stored: ndarray | None, pixels: ndarray) -> int:
    """The largest difference of a pixel; 255 if the image is missing or has another size."""
    if stored is None or stored.shape != pixels.shape:
        return 255
    return int(np.abs(stored.astype(int) - pixels).max())
