"""A teacher that was tested, and the labels that it writes for sets."""

from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dmgd.classes.matching import match_labels
from dmgd.evaluation.imageset import ImageSet, Shape, prepared_set, source_set, usual_shape
from dmgd.evaluation.inputs import RawSet
from dmgd.evaluation.label_config import RelabelConfig
from dmgd.evaluation.label_parts import LabelParts
from dmgd.evaluation.protocols import Protocol, resolved
from dmgd.evaluation.relabelling import teachers_logits
from dmgd.evaluation.teacher import TeacherModel, check_teacher, open_teacher, teacher_size
from dmgd.evaluation.views import draw_views
from dmgd.exporters.logits import Coding
from dmgd.exporters.soft_labels import VIEWS, StoredLabels, has_index, open_labels, write_labels
from dmgd.progress import Progress
from dmgd.runs.prior_folder import require_same
from dmgd.sources.source import Source


@dataclass(frozen=True)
class Labelling:
    """How a `teacher` labels sets: by the `config`, with views and temperature of the resolved `protocol`. It is tested
    on the `test` images, of the size in which it sees a set's, when that is first needed."""

    config: RelabelConfig
    protocol: Protocol
    test: ImageSet
    teacher: TeacherModel
    on: str

    @property
    def size(self) -> int:
        """The image size in pixels that the teacher is given."""
        return self.test.images.shape[-1]

    @property
    def images_of_each(self) -> int:
        """How many images the teacher is given of each of a set's: its views, or the image itself."""
        return max(1, self.config.views)

    @cached_property
    def checked(self) -> dict[str, Any]:
        """The teacher's identity, without a local path, and its top-1. Raises DmgdError if it is hardly above
        chance."""
        return {**check_teacher(self.teacher, self.test, self.on), "name": _published(self.teacher.name)}

    def asked(self, raw: RawSet, seed: int) -> dict[str, Any]:
        """What the labels of a set depend on."""
        asked = {**asdict(self.config), "seed": seed, "tiles": raw.tiles, "teacher": self.teacher.sha256}
        return {**{name: value for name, value in asked.items() if (name, value) != ("tiles", 1)}, "set": raw.digest}

    def known(self, raw: RawSet, seed: int, out: Path) -> StoredLabels | None:
        """The labels of the set in `out`; None if there are none. Raises MismatchError if they are others."""
        if not has_index(out):
            return None
        stored = open_labels(out)
        require_same(out, stored.index["asked"], self.asked(raw, seed))
        self._parts(raw, seed, out).remove()
        return stored

    def write(self, raw: RawSet, image_bytes: int, seed: int, out: Path, progress: Progress) -> dict[str, Any]:
        """Write the labels of the set, whose images have these bytes, to the folder `out`, and return their index. What
        an interrupted call has finished is used."""
        size, channels = self.size, self.test.images.shape[1]
        data = prepared_set(raw, self.test.classes, Shape(size, size, channels))
        views = draw_views(len(data), self.config.views, self.protocol.augmentation, size, seed)
        columns = match_labels(raw.name, raw.classes, self.test.classes, "name", numbered=raw.numbered)
        teacher, parts = self.checked, self._parts(raw, seed, out)
        if parts.begun:
            progress.note(f"continuing the labels that were interrupted in {out}")
        with progress.task("label", len(data) * self.images_of_each, "images") as bar:
            coded, errors = teachers_logits(
                self.teacher.network.on_unit(),
                data,
                views if self.config.views else None,
                Coding(self.config.bits, self.config.top_k, self.protocol.temperature),
                columns,
                (1.0, self.protocol.temperature),
                bar.advance,
                parts,
            )
        arrays = {f"{VIEWS}{name}": one for name, one in views.arrays().items()} if self.config.views else {}
        index = {
            "asked": self.asked(raw, seed),
            "set": {"digest": raw.digest, "images": len(data), "image_bytes": image_bytes},
            "classes": [info.to_json() for info in raw.classes],
            "teacher": teacher,
            "size": size,
            "augmentation": list(self.protocol.augmentation) if self.config.views else [],
            "errors": errors,
            "versions": {"dmgd": version("dmgd"), "torch": torch.__version__},
        }
        written = write_labels(out, raw.keys, {**coded, **arrays}, index)
        parts.remove()
        return written

    def _parts(self, raw: RawSet, seed: int, out: Path) -> LabelParts:
        return LabelParts(out, {**self.asked(raw, seed), "device": self.on})


def open_labelling(teacher: str, config: RelabelConfig, source: Source, on: str, progress: Progress) -> Labelling:
    """The labelling of sets that have the classes of the source, on whose test images the teacher is tested. Raises
    what `open_teacher` raises."""
    source_size, channels = usual_shape(source, "test")
    chosen = config.chosen(teacher_size(teacher))
    protocol = resolved(chosen, num_images=1, num_classes=len(source.classes), source_size=source_size)
    shape = Shape(protocol.size or 0, protocol.size or 0, channels)  # what is labelled are whole images
    test = source_set(source, "test", "test", shape, progress=progress)
    return Labelling(config, protocol, test, open_teacher(teacher, protocol, test), on)


def _published(teacher: str) -> str:
    """The teacher's name without a local path."""
    path = Path(teacher).expanduser()
    return path.resolve().name if path.exists() else teacher
