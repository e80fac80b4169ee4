"""The workflow `export`: a finished run as a dataset that other tools can load."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dmgd.config import configured
from dmgd.errors import DmgdError
from dmgd.exporters.card import card, read_results
from dmgd.exporters.distilled import require_outside_sets
from dmgd.exporters.example import Description, examples, mosaic_examples
from dmgd.exporters.export_config import ExportConfig
from dmgd.exporters.folder import CARD, FORMAT, INDEX, TILES, WEIGHTS, output_folder, same_export, staged, write_hashed
from dmgd.exporters.formats import layout_named
from dmgd.exporters.remote import require_writable, send
from dmgd.exporters.soft_labels import labels_to_export
from dmgd.files import scratch_folder, sha256_bytes, write_sealed
from dmgd.mosaics import require_mosaics
from dmgd.progress import Progress, listener
from dmgd.runs.directory import RunDirectory
from dmgd.runs.manifest import published
from dmgd.runs.weights import weights_digest
from dmgd.specs import url_of


def export(
    run: RunDirectory | Path | str,
    layout: str,
    out: Path | str,
    config: ExportConfig | None = None,
    *,
    progress: Progress | bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Write the run to `out`, a folder or a URL that fsspec writes to, and return the export's index, by a
    configuration or its `settings`, such as image_format="webp". The same run and settings give the same bytes.

    `layout` is "webdataset", "parquet", "imagefolder" or "tensors".

    If `out` already contains this export, nothing is written. Raises ArtifactError for an unfinished or damaged run,
    UsageError if `out` contains something else, or the images do not fill the mosaics, MismatchError if it contains
    another export.
    """
    run = run if isinstance(run, RunDirectory) else RunDirectory.open(run)
    config = configured(ExportConfig, config, settings)
    if url := url_of(out):
        require_writable(url)
        with scratch_folder() as folder:
            index = export(run, layout, folder / "export", config, progress=progress)
            send(folder / "export", index, url, listener(progress))
        return index
    out, progress, found, tiles = Path(out), listener(progress), layout_named(layout), config.tiles
    records = run.complete_records()
    if tiles > 1:
        height, width, _ = run.pixels(records[0]).shape
        require_mosaics(str(run.path), {"each class": run.config.ipc}, (width, height), tiles)
    labels = None
    if config.labels:
        keys = [record.key for record in records]
        of = run.labelled_as(records, tiles)
        labels = labels_to_export(Path(config.labels), run.path.name, of, keys, len(run.classes), tiles)
    logits = labels.logits if labels else None
    results = read_results(Path(config.evaluation)) if config.evaluation else None
    # What identifies the export: the run and the settings.
    wanted = {
        "format": FORMAT,
        "layout": layout,
        "image_format": config.image_format,
        "limits": asdict(config.limits),
        "soft_labels": labels and labels.digest,
        "results": results and sha256_bytes(results.encode()),
        "run": published(run.manifest),
        **({TILES: tiles} if tiles > 1 else {}),
        **({WEIGHTS: weights} if (weights := weights_digest([record.weight for record in records])) else {}),
    }
    require_outside_sets(out)
    with output_folder(out):
        if (out / INDEX).exists():
            return same_export(out, wanted, progress)
        count = len(records) // tiles**2
        with staged(out) as folder, progress.task("export", count, "images") as task:
            beside, told = logits is not None, labels.described if labels else ""
            description = Description(run.classes, config.image_format, config.limits, beside, tiles, told)
            if tiles > 1:
                stored = mosaic_examples(run, records, config.image_format, tiles, logits, task)
            else:
                stored = examples(run, records, config.image_format, logits, task)
            files = found.write(folder, stored, description)
            if (written := sum(file["images"] for file in files)) != count:
                raise DmgdError(f"the layout {layout} wrote {written} of {count} images; nothing was exported")
            counts = Counter(record.class_index for record in records)
            per_class = [counts[c] // tiles**2 for c in range(len(run.classes))]
            files += [write_hashed(folder, name, data) for name, data in (labels.files if labels else {}).items()]
            text = card(run, description, found, per_class, sum(file["bytes"] for file in files), results)
            files.append(write_hashed(folder, CARD, text.encode()))
            files.sort(key=lambda file: file["path"])
            index = {**wanted, "images": count, "images_per_class": per_class, "files": files}
            write_sealed(folder / INDEX, index)
    return index
