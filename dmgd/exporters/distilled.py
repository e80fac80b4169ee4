"""A distilled set on disk: a run, or an export of one, which contains the run's manifest."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy import ndarray

from dmgd.classes.info import ClassInfo
from dmgd.errors import ArtifactError, UsageError
from dmgd.exporters.folder import INDEX, read_index
from dmgd.exporters.formats import layout_named
from dmgd.runs.directory import MANIFEST, RunDirectory
from dmgd.runs.manifest import specs_of
from dmgd.specs import PriorSpec, SourceSpec


@dataclass(frozen=True)
class DistilledSet:
    """A `run`, or an export with its `index`; `manifest` is the run's in both."""

    path: Path
    manifest: dict[str, Any]
    run: RunDirectory | None = None
    index: dict[str, Any] | None = None

    @classmethod
    def open(cls, path: Path) -> "DistilledSet":
        """The run or export at `path`. Raises UsageError if it is neither, ArtifactError if it has another format."""
        if (path / MANIFEST).is_file():
            run = RunDirectory.open(path)
            return cls(path, run.manifest, run=run)
        if (path / INDEX).is_file():
            index = read_index(path)
            return cls(path, index["run"], index=index)
        raise UsageError(f"{path} is neither a run (no {MANIFEST}) nor an export (no {INDEX})")

    @property
    def specs(self) -> tuple[SourceSpec, PriorSpec]:
        return specs_of(self.manifest)

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        return tuple(ClassInfo.from_json(fields) for fields in self.manifest["classes"])

    def images(self) -> Iterator[tuple[int, int, ndarray]]:
        """(class index, image index, uint8 pixels (h, w, c)) of every image, in order. Raises ArtifactError for an
        unfinished run, and for missing, damaged or mislabelled images."""
        if self.run is not None:
            for record in self.run.complete_records():
                yield record.class_index, record.image_index, self.run.pixels(record)
        elif self.index is not None:
            classes = dict(enumerate(self.classes))
            try:
                for example in layout_named(self.index["layout"]).read(self.path, self.index):
                    info = classes.get(example.label)
                    if info is None or example.metadata["class_name"] != info.name:
                        raise ArtifactError(
                            f"{self.path} calls class {example.label} both {info and info.name!r} and "
                            f"{example.metadata['class_name']!r}; its labels cannot be trusted"
                        )
                    yield example.label, example.metadata["image_index"], example.pixels
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ArtifactError(
                    f"{self.path} is damaged ({error}); dmgd verify {self.path} names the files"
                ) from error
