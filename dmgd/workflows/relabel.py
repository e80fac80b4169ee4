"""The workflow `relabel`: a distilled set and a teacher → soft labels on disk."""

from pathlib import Path
from typing import Any

from dmgd.config import configured
from dmgd.errors import UsageError
from dmgd.evaluation.cores import fitting_threads
from dmgd.evaluation.imageset import read_sets, source_of
from dmgd.evaluation.inputs import RawSet
from dmgd.evaluation.label_config import RelabelConfig
from dmgd.evaluation.label_parts import UNFINISHED
from dmgd.evaluation.labelling import open_labelling
from dmgd.exporters.distilled import DistilledSet, require_outside_sets
from dmgd.exporters.soft_labels import FILE, INDEX
from dmgd.files import is_temporary, remove_temporaries
from dmgd.guard import GUARD, guarded
from dmgd.images import pixels_of
from dmgd.mosaics import stored_sizes
from dmgd.priors.load import torch_device
from dmgd.progress import Progress, listener
from dmgd.runs.directory import RunDirectory
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
    something else or the images do not fill the mosaics that are asked for, MismatchError for a teacher with other
    classes or channels, or if other labels were begun there, DmgdError if it is hardly above chance.
    """
    config, progress = configured(RelabelConfig, config, settings), listener(progress)
    path, out, on = Path(target.path if isinstance(target, RunDirectory) else target), Path(out), torch_device(device)
    require_outside_sets(out)
    _require_own(out)
    distilled, (stored,) = DistilledSet.open(path), read_sets([path])
    raw = stored.in_mosaics(config.tiles)
    if config.top_k and config.top_k >= len(raw.classes):
        raise UsageError(f"top-k {config.top_k} leaves none of the {len(raw.classes)} classes out; give less, or none")
    source = as_source(source or source_of([raw]), progress)
    with guarded(out):
        remove_temporaries(out)
        labelling = open_labelling(teacher, config, source, str(on), progress)
        if found := labelling.known(raw, config.seed, out):
            progress.note(f"{out} is finished, and left as it is")
            return found.index
        with fitting_threads(labelling.size, on):
            checked = labelling.checked
            progress.note(f"teacher {labelling.teacher.name}: {checked['top1']:.1f} % top-1 on the test images")
            return labelling.write(raw, _bytes_in_mosaics(distilled, stored, raw.tiles), config.seed, out, progress)


def _bytes_in_mosaics(distilled: DistilledSet, stored: RawSet, tiles: int) -> int:
    """The bytes of the images as they are stored, or would be in mosaics."""
    if tiles == distilled.tiles:
        return distilled.image_bytes
    return sum(size for _, size in stored_sizes([pixels_of(image) for image in stored.images], tiles))


def _require_own(folder: Path) -> None:
    """Raise UsageError if the folder is neither empty nor one of labels."""
    names = [path.name for path in (folder.iterdir() if folder.is_dir() else ())]
    if others := [name for name in names if name not in (GUARD, FILE, INDEX, UNFINISHED) and not is_temporary(name)]:
        raise UsageError(f"{folder} exists and has no soft labels (it holds {min(others)}); choose a new --out folder")
