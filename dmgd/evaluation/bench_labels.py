"""The stored soft labels of a bench's sets, in its folder.

    labels/<name>/       those of a set, as of `dmgd relabel`
    sets/<name>.json     how long they took

Labels that are damaged are as if they were not there.
"""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from dmgd.errors import ArtifactError
from dmgd.evaluation.bench_sets import FORMAT, RECORDS, BenchSets
from dmgd.evaluation.cores import fitting_threads
from dmgd.evaluation.imageset import ImageSet, Shape
from dmgd.evaluation.labelling import Labelling
from dmgd.evaluation.planned_set import PlannedSet
from dmgd.evaluation.results import SetFacts
from dmgd.evaluation.stored_labels import soft_labels
from dmgd.exporters.soft_labels import StoredLabels, open_labels
from dmgd.files import read_sealed, remove_temporaries, write_sealed
from dmgd.progress import SILENT, PartOf, Progress

LABELS = "labels"


class Unlabelled(NamedTuple):
    """A set whose labels are not there yet."""

    one: PlannedSet
    labelling: Labelling


class BenchLabels:
    """The labels of these sets, each made as the terms say under which the set is trained on; where it is None, the set
    has the protocol's labels."""

    def __init__(self, sets: BenchSets, progress: Progress):
        self._sets, self._progress = sets, progress
        self._found: dict[Path, StoredLabels] = {}

    def data(self, one: PlannedSet, shape: Shape, labelling: Labelling | None) -> ImageSet | None:
        """The set with its labels, its images in this shape; None if either is not there."""
        if not self._sets.made(one) or (labelling and not self._there(one, labelling)):
            return None
        images = self._sets.at(one.images, shape)
        if not labelling:
            return images
        soft = soft_labels(self._found[self._path(one, labelling)], images.classes)
        return replace(images, name=str(one), soft=soft)

    def missing(self, wanted: Iterable[tuple[PlannedSet, Labelling | None]]) -> Mapping[Path, Unlabelled]:
        """Those of the labels that are not there, by their folders."""
        labelled = {self._path(one, how): Unlabelled(one, how) for one, how in wanted if how}
        return {path: one for path, one in labelled.items() if not self._there(*one)}

    def make(self, wanted: Iterable[tuple[PlannedSet, Labelling | None]]) -> None:
        """Write the labels that are missing. Raises MismatchError for others in their place, DmgdError if the teacher
        is hardly above chance."""
        missing = self.missing(wanted)
        counts = {path: self._sets.images_of(one) * how.images_of_each for path, (one, how) in missing.items()}
        with self._progress.task("label", sum(counts.values()), "images") if missing else nullcontext(SILENT) as bar:
            for path, (one, labelling) in missing.items():
                bar.describe(str(one))
                self._write(path, one, labelling, PartOf(self._progress, bar, str(one), "label", counts[path]))

    def _write(self, path: Path, one: PlannedSet, labelling: Labelling, progress: Progress) -> None:
        made = self._sets.made(one)
        assert made is not None
        path.mkdir(parents=True, exist_ok=True)
        remove_temporaries(path)
        with fitting_threads(labelling.size, labelling.on):
            labelling.checked  # noqa: B018 - tested before time is taken
            started = perf_counter()
            index = labelling.write(self._sets.raw(one), made.facts.image_bytes, one.seed, path, progress)
        seconds = round(perf_counter() - started, 3)
        write_sealed(self._record(path), {"format": FORMAT, "labels": index["sha256"], "seconds": seconds})
        self._found[path] = open_labels(path)

    def facts(self, one: PlannedSet, facts: SetFacts, labelling: Labelling) -> SetFacts:
        """The facts of a set, with the bytes of its labels and the seconds that they took, if that is known."""
        path = self._path(one, labelling)
        index, record, seconds = self._found[path].index, self._record(path), dict(facts.seconds)
        with suppress(OSError, ArtifactError):
            missing = ArtifactError(f"{record} is missing")
            kept = read_sealed(record, FORMAT, ("labels", "seconds"), missing=missing, remedy="")
            if kept["labels"] == index["sha256"]:
                seconds["labelling"] = float(kept["seconds"])
        return replace(facts, labels=one.labels, label_bytes=index["bytes"], seconds=seconds)

    def teacher(self, one: PlannedSet, labelling: Labelling) -> Mapping[str, Any]:
        """The teacher of a set's labels, with its accuracy."""
        return self._found[self._path(one, labelling)].index["teacher"]

    def _there(self, one: PlannedSet, labelling: Labelling) -> bool:
        """Whether the labels are there. Raises MismatchError if others are."""
        path = self._path(one, labelling)
        if path not in self._found and self._sets.made(one):
            with suppress(ArtifactError):
                if stored := labelling.known(self._sets.raw(one), one.seed, path):
                    self._found[path] = stored
        return path in self._found

    def _path(self, one: PlannedSet, labelling: Labelling) -> Path:
        config = labelling.config
        terms = f"-{config.protocol}-{labelling.size}px" if config.views else ""
        return self._sets.out / LABELS / f"{self._sets.name(one)}-{one.labels}{terms}"

    def _record(self, path: Path) -> Path:
        return self._sets.out / RECORDS / f"{path.name}.json"
