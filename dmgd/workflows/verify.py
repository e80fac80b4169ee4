"""The workflow `verify`: a run or an export against its own records, a lock file, or its making."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from dmgd.config import DistillConfig, StatisticsConfig
from dmgd.errors import ArtifactError, MismatchError, UsageError
from dmgd.exporters.check import export_problems
from dmgd.exporters.folder import INDEX, read_index
from dmgd.exporters.formats import layout_named
from dmgd.generation.regeneration import regenerate, spread
from dmgd.images import LOSSLESS, decode
from dmgd.priors.prior import Prior
from dmgd.progress import SILENT, Progress
from dmgd.runs.check import run_problems
from dmgd.runs.directory import MANIFEST, RunDirectory
from dmgd.runs.lockfile import compare_locks, make_lock, read_lock, write_lock
from dmgd.statistics.file import Statistics

TOLERANCE = 2  # of 255 grey levels: what another processor's rounding may do to a pixel


@dataclass(frozen=True)
class Target:
    """What is verified: a run, or an export, which carries the manifest of its run."""

    path: Path
    manifest: dict[str, Any]
    run: RunDirectory | None
    index: dict[str, Any] | None

    @property
    def config(self) -> DistillConfig:
        return DistillConfig.from_json(self.manifest["config"])

    def images(self) -> Iterator[tuple[int, int, ndarray]]:
        """(class index, image index, uint8 pixels (h, w, c)) of every image, in order."""
        if self.run is not None:
            for record in self.run.records():
                yield record.class_index, record.image_index, self.run.pixels(record)
            return
        assert self.index is not None
        for stored in layout_named(self.index["layout"]).read(self.path, self.index):
            pixels = stored.image if isinstance(stored.image, ndarray) else decode(stored.image)
            yield stored.label, stored.metadata["image_index"], pixels


@dataclass
class Report:
    """What was checked, one statement each, and every problem that was found."""

    checked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def open_target(path: Path) -> Target:
    """The run or export at `path`. Raises UsageError if it is neither."""
    if (path / MANIFEST).is_file():
        run = RunDirectory.open(path)
        return Target(path, run.manifest, run, None)
    if (path / INDEX).is_file():
        index = read_index(path)
        return Target(path, index["run"], None, index)
    raise UsageError(f"{path} is neither a run (no {MANIFEST}) nor an export (no {INDEX})")


def verify_records(target: Target, report: Report) -> None:
    """Check every file, count and label of the target against its own records."""
    if target.run is not None:
        report.problems += run_problems(target.run)
    elif target.index is not None:
        report.problems += export_problems(target.path, target.index)
    report.checked.append(f"{'run' if target.run else 'export'}: every checksum, count and label")


def verify_lock(target: Target, path: Path, report: Report) -> None:
    """Compare the target with the lock file at `path`."""
    found = make_lock(target.manifest, ((c, pixels) for c, _, pixels in target.images()))
    problems, equality = compare_locks(read_lock(path), found)
    report.problems += [f"{path}: {problem}" for problem in problems]
    report.checked.append(f"lock file: {equality}")


def lock(target: Target, path: Path) -> None:
    """Write the target's lock file to `path`."""
    write_lock(path, make_lock(target.manifest, ((c, pixels) for c, _, pixels in target.images())))


def statistics_config(target: Target, prior: Prior) -> StatisticsConfig:
    """The settings with which the target's statistics are fitted again. Raises MismatchError if `prior` is another, or
    encodes images in another way."""
    _check_prior(target, prior)
    made_with = target.manifest["statistics"]
    if prior.encoder_identity["digest"] != made_with["encoder"]["digest"]:
        raise MismatchError(
            f"the statistics of {target.path} were made with the encoder {made_with['encoder']['id']!r}, not "
            f"{prior.encoder_identity['id']!r}; name it with --encoder, or give the statistics with --stats"
        )
    config = target.config
    return StatisticsConfig(config.source, config.prior, made_with["k"], made_with["seed"], made_with["mirror"])


def load_statistics(target: Target, path: Path) -> Statistics:
    """The statistics file that the target was made with. Raises MismatchError for another."""
    statistics = Statistics.load(path)
    if statistics.digest != target.manifest["statistics"]["sha256"]:
        raise MismatchError(
            f"{path} holds other statistics than {target.path} was made with; give the run's own, or leave "
            "--stats out to fit them again"
        )
    return statistics


def verify_regenerated(
    target: Target,
    count: int,
    prior: Prior,
    statistics: Statistics,
    report: Report,
    *,
    tolerance: float = TOLERANCE,
    progress: Progress = SILENT,
) -> None:
    """Make `count` images of the target again, spread over its classes, and compare them: pixels equal, or else no
    pixel further off than `tolerance`, of 255 grey levels.

    Raises MismatchError if the prior is not the run's, UsageError for an export that has lost pixels to JPEG.
    """
    _check_prior(target, prior)
    if target.index is not None and target.index["image_format"] not in LOSSLESS:
        raise UsageError(
            f"{target.path} holds {target.index['image_format']} images, which have lost pixels; --regenerate needs "
            "the run itself, or an export as png or webp"
        )
    config = target.config
    cells = spread(len(statistics.classes), config.ipc, count)
    stored = {(c, i): pixels for c, i, pixels in target.images() if (c, i) in cells}
    run = target.run
    latents = (lambda unit: run.latents(unit) if run and run.has(unit) else None) if run else (lambda unit: None)
    equal, largest = 0, 0
    with progress.task("regenerate", len(cells), "images") as task:
        for c, i, pixels in regenerate(cells, config, prior, statistics, latents):
            distance = _distance(stored.get((c, i)), pixels)
            equal, largest = equal + (distance == 0), max(largest, distance)
            if distance > tolerance:
                report.problems.append(f"class {c}, image {i}: made again, it differs by {distance} of 255 grey levels")
            task.advance()
    others = "" if equal == len(cells) else f", the others off by up to {largest} of 255 grey levels"
    how = f"{equal} with equal pixels{others}"
    report.checked.append(f"{len(cells)} images made again: {how} (tolerance {tolerance})")


def _check_prior(target: Target, prior: Prior) -> None:
    wanted = target.manifest["prior"]
    if prior.identity.digest != wanted["digest"]:
        raise MismatchError(
            f"{target.path} was made with the prior {wanted['id']!r} of digest {wanted['digest'][:12]}…, "
            f"not {prior.identity.digest[:12]}…; load the same weights"
        )


def _distance(stored: ndarray | None, pixels: ndarray) -> int:
    """The largest difference of a pixel; 255 if there is no such image, or of another size."""
    if stored is None or stored.shape != pixels.shape:
        return 255
    return int(np.abs(stored.astype(int) - pixels).max())


def require_sound(report: Report, target: Target) -> None:
    """Raise ArtifactError if the report has problems: a lock of damaged images would be worthless."""
    if report.problems:
        raise ArtifactError(f"{target.path} is damaged ({report.problems[0]}); no lock file was written")
