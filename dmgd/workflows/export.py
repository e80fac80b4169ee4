"""The workflow `export`: a finished run as a dataset that other tools can load."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy import ndarray

from dmgd.exporters.card import card, provenance, read_results
from dmgd.exporters.example import Description, Limits, examples
from dmgd.exporters.folder import FORMAT, INDEX, output_folder, same_export, staged, write_hashed
from dmgd.exporters.formats import layout_named
from dmgd.exporters.soft_labels import read_soft_labels
from dmgd.files import sha256_bytes, write_json
from dmgd.images import check_image_format
from dmgd.progress import Progress, listener
from dmgd.runs.directory import RunDirectory
from dmgd.runs.manifest import published
from dmgd.runs.record import ImageRecord

CARD = "README.md"


def export(
    run: RunDirectory | Path | str,
    layout: str,
    out: Path | str,
    *,
    image_format: str = "png",
    limits: Limits = Limits(),
    teacher: Path | str | None = None,
    evaluation: Path | str | None = None,
    progress: Progress | bool = False,
) -> dict[str, Any]:
    """Write the run to `out` and return the export's index. The same run and settings give the same bytes.

    `layout` is "webdataset", "parquet", "imagefolder" or "tensors", `image_format` "png", "webp" or "jpg". `teacher` is
    a folder of soft labels, see dmgd.exporters.soft_labels; `evaluation` is a JSON of `dmgd evaluate`, whose scores are
    added to the card.

    If `out` already contains this export, nothing is written. Raises ArtifactError for an unfinished or damaged run,
    UsageError if `out` contains something else, MismatchError if it contains another export.
    """
    run = run if isinstance(run, RunDirectory) else RunDirectory.open(run)
    out, progress = Path(out), listener(progress)
    write = layout_named(layout).write
    check_image_format(image_format)
    records = run.complete_records()
    keys = [record.key for record in records]
    logits = read_soft_labels(Path(teacher), keys, len(run.classes)) if teacher else None
    description = Description(run.classes, image_format, limits, soft_labels=logits is not None)
    results = read_results(Path(evaluation)) if evaluation else None
    wanted = _settings(run, layout, description, logits, results)
    with output_folder(out):
        if (out / INDEX).exists():
            return same_export(out, wanted, progress)
        with staged(out) as folder, progress.task("export", len(records), "images") as task:
            files = write(folder, examples(run, records, image_format, logits, task), description)
            per_class = _images_per_class(run, records)
            text = card(description, layout, per_class, sum(file.bytes for file in files), provenance(run, results))
            files.append(write_hashed(folder, CARD, text.encode()))
            listed = sorted((file.to_json() for file in files), key=lambda file: file["path"])
            index = {**wanted, "images": sum(per_class), "images_per_class": per_class, "files": listed}
            write_json(folder / INDEX, index)
    return index


def _settings(
    run: RunDirectory,
    layout: str,
    description: Description,
    logits: Mapping[str, ndarray] | None,
    results: str | None,
) -> dict[str, Any]:
    """The part of the index that identifies the export: the run and the settings."""
    return {
        "format": FORMAT,
        "layout": layout,
        "image_format": description.image_format,
        "limits": {"images": description.limits.images, "bytes": description.limits.bytes},
        "soft_labels": logits and sha256_bytes(b"".join(logits[key].tobytes() for key in sorted(logits))),
        "results": results and sha256_bytes(results.encode()),
        "run": published(run.manifest),
    }


def _images_per_class(run: RunDirectory, records: Sequence[ImageRecord]) -> list[int]:
    counts = Counter(record.class_index for record in records)
    return [counts[c] for c in range(len(run.classes))]
