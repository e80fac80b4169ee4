"""The workflow `export`: a finished run as a dataset that other tools can load."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dmgd.errors import DmgdError
from dmgd.exporters.card import card, read_results
from dmgd.exporters.distilled import require_outside_sets
from dmgd.exporters.example import Description, Limits, examples
from dmgd.exporters.folder import CARD, FORMAT, INDEX, output_folder, same_export, staged, write_hashed
from dmgd.exporters.formats import layout_named
from dmgd.exporters.remote import require_writable, send
from dmgd.exporters.soft_labels import read_soft_labels
from dmgd.files import scratch_folder, sha256_bytes, write_sealed
from dmgd.images import check_image_format
from dmgd.progress import Progress, listener
from dmgd.runs.directory import RunDirectory
from dmgd.runs.manifest import published
from dmgd.specs import url_of


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
    """Write the run to `out`, a folder or a URL that fsspec writes to, and return the export's index. The same run and
    settings give the same bytes.

    `layout` is "webdataset", "parquet", "imagefolder" or "tensors", `image_format` "png", "webp" or "jpg". `teacher` is
    a folder of soft labels, see dmgd.exporters.soft_labels; `evaluation` is a JSON of `dmgd evaluate`, whose scores are
    added to the card.

    If `out` already contains this export, nothing is written. Raises ArtifactError for an unfinished or damaged run,
    UsageError if `out` contains something else, MismatchError if it contains another export.
    """
    run = run if isinstance(run, RunDirectory) else RunDirectory.open(run)
    if url := url_of(out):
        require_writable(url)
        with scratch_folder() as folder:
            settings: dict[str, Any] = {
                "image_format": image_format,
                "limits": limits,
                "teacher": teacher,
                "evaluation": evaluation,
            }
            index = export(run, layout, folder / "export", progress=progress, **settings)
            send(folder / "export", index, url, listener(progress))
        return index
    out, progress, found = Path(out), listener(progress), layout_named(layout)
    check_image_format(image_format)
    records = run.complete_records()
    logits = read_soft_labels(Path(teacher), [one.key for one in records], len(run.classes)) if teacher else None
    results = read_results(Path(evaluation)) if evaluation else None
    # What identifies the export: the run and the settings.
    wanted = {
        "format": FORMAT,
        "layout": layout,
        "image_format": image_format,
        "limits": asdict(limits),
        "soft_labels": logits and sha256_bytes(b"".join(logits[key].tobytes() for key in sorted(logits))),
        "results": results and sha256_bytes(results.encode()),
        "run": published(run.manifest),
    }
    require_outside_sets(out)
    with output_folder(out):
        if (out / INDEX).exists():
            return same_export(out, wanted, progress)
        with staged(out) as folder, progress.task("export", len(records), "images") as task:
            description = Description(run.classes, image_format, limits, soft_labels=logits is not None)
            files = found.write(folder, examples(run, records, image_format, logits, task), description)
            if (written := sum(file["images"] for file in files)) != len(records):
                raise DmgdError(f"the layout {layout} wrote {written} of {len(records)} images; nothing was exported")
            counts = Counter(record.class_index for record in records)
            per_class = [counts[c] for c in range(len(run.classes))]
            text = card(run, description, found, per_class, sum(file["bytes"] for file in files), results)
            files.append(write_hashed(folder, CARD, text.encode()))
            files.sort(key=lambda file: file["path"])
            index = {**wanted, "images": len(records), "images_per_class": per_class, "files": files}
            write_sealed(folder / INDEX, index)
    return index
