"""The workflow `relabel`: a distilled set and a teacher → soft labels on disk."""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dmgd.classes.matching import match_labels
from dmgd.config import configured
from dmgd.errors import UsageError
from dmgd.evaluation.cores import fitting_threads
from dmgd.evaluation.imageset import Shape, prepared_set, read_sets, source_of, source_set, usual_shape
from dmgd.evaluation.label_config import RelabelConfig
from dmgd.evaluation.label_parts import UNFINISHED, LabelParts
from dmgd.evaluation.protocols import resolved
from dmgd.evaluation.relabelling import teachers_logits
from dmgd.evaluation.teacher import check_teacher, open_teacher, teacher_size
from dmgd.evaluation.views import draw_views
from dmgd.exporters.distilled import DistilledSet, require_outside_sets
from dmgd.exporters.logits import Coding
from dmgd.exporters.soft_labels import FILE, INDEX, VIEWS, has_index, open_labels, write_labels
from dmgd.files import is_temporary, remove_temporaries
from dmgd.guard import GUARD, guarded
from dmgd.priors.load import torch_device
from dmgd.progress import Progress, listener
from dmgd.runs.directory import RunDirectory
from dmgd.runs.prior_folder import require_same
from dmgd.sources.open import as_source
from dmgd.sources.source import Source
from dmgd.specs import SourceSpec


def relabel(
    target: RunDirectory | Path | str,
    teacher: str,
    config: RelabelConfig | None = None,
    *,
    out: Path | str,
    source: Source | SourceSpec | str | None = None,
    device: str = "auto",
    progress: Progress | bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Write the `teacher`'s logits of the images of a run or an export to the folder `out`, by a configuration or its
    `settings`, such as views=100 or bits=8. Returns their index: which set and teacher, the settings, the error of the
    stored probabilities, and the bytes of labels and images.

    The teacher is tested on the test images of the `source` first, by default the set's own. What an interrupted call
    has finished is used, and labels that are there already are left as they are. Raises UsageError if `out` holds
    something else or the set has mosaics, MismatchError for a teacher with other classes or channels, or if other
    labels were begun there, DmgdError if it is hardly above chance.
    """
    config, progress = configured(RelabelConfig, config, settings), listener(progress)
    path, out, on = Path(target.path if isinstance(target, RunDirectory) else target), Path(out), torch_device(device)
    require_outside_sets(out)
    _require_own(out)
    distilled, (raw,) = DistilledSet.open(path), read_sets([path])
    if raw.tiles > 1:
        raise UsageError(
            f"soft labels are of whole images, and {path} has mosaics; relabel the run that it was made of"
        )
    if config.top_k and config.top_k >= len(raw.classes):
        raise UsageError(f"top-k {config.top_k} leaves none of the {len(raw.classes)} classes out; give less, or none")
    source = as_source(source or source_of([raw]), progress)
    with guarded(out):
        remove_temporaries(out)

        # The teacher, and its accuracy.
        chosen = config.chosen(teacher_size(teacher))
        source_size, channels = usual_shape(source, "test")
        protocol = resolved(chosen, num_images=len(raw.images), num_classes=len(raw.classes), source_size=source_size)
        shape = Shape(protocol.size or 0, protocol.size or 0, channels)  # what is labelled are whole images
        test = source_set(source, "test", "test", shape, progress=progress)
        data = prepared_set(raw, source.classes, shape)
        opened = open_teacher(teacher, protocol, test)
        asked = {**asdict(config), "teacher": opened.sha256, "set": raw.digest}
        parts = LabelParts(out, {**asked, "device": on.type})
        if has_index(out):
            found = open_labels(out).index
            require_same(out, found["asked"], asked)
            parts.remove()
            progress.note(f"{out} is finished, and left as it is")
            return found
        with fitting_threads(shape.size, on):
            checked = check_teacher(opened, test, str(on))
            progress.note(f"teacher {opened.name}: {checked['top1']:.1f} % top-1 on the test images")

            # The labels.
            views = draw_views(len(data), config.views, protocol.augmentation, shape.size, config.seed)
            network = opened.network.on_unit()
            columns = match_labels(raw.name, raw.classes, source.classes, "name", numbered=raw.numbered)
            if parts.begun:
                progress.note(f"continuing the labels that were interrupted in {out}")
            with progress.task("label", len(data) * max(1, config.views), "images") as bar:
                coded, errors = teachers_logits(
                    network,
                    data,
                    views if config.views else None,
                    Coding(config.bits, config.top_k, protocol.temperature),
                    columns,
                    (1.0, protocol.temperature),
                    bar.advance,
                    parts,
                )
        arrays = {f"{VIEWS}{name}": one for name, one in views.arrays().items()} if config.views else {}
        index = {
            "asked": asked,
            "set": {"digest": raw.digest, "images": len(data), "image_bytes": distilled.image_bytes},
            "classes": [info.to_json() for info in raw.classes],
            "teacher": {**checked, "name": _published(opened.name)},
            "size": shape.size,
            "augmentation": list(protocol.augmentation) if config.views else [],
            "errors": errors,
            "versions": {"dmgd": version("dmgd"), "torch": torch.__version__},
        }
        written = write_labels(out, raw.keys, {**coded, **arrays}, index)
        parts.remove()
        return written


def _published(teacher: str) -> str:
    """The teacher's name without a local path."""
    path = Path(teacher).expanduser()
    return path.resolve().name if path.exists() else teacher


def _require_own(folder: Path) -> None:
    """Raise UsageError if the folder is neither empty nor one of labels."""
    names = [path.name for path in (folder.iterdir() if folder.is_dir() else ())]
    if others := [name for name in names if name not in (GUARD, FILE, INDEX, UNFINISHED) and not is_temporary(name)]:
        raise UsageError(f"{folder} exists and has no soft labels (it holds {min(others)}); choose a new --out folder")
