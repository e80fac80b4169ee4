"""Reading the set to evaluate: a run, an export, or another tool's set, which is read as sources are."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dmgd.classes.info import ClassInfo
from dmgd.errors import ArtifactError, UsageError
from dmgd.exporters import tensors
from dmgd.exporters.distilled import DistilledSet
from dmgd.exporters.folder import INDEX
from dmgd.images import BadImage, channels_of, read_image, to_image
from dmgd.runs.directory import MANIFEST
from dmgd.sources.layouts import open_layout
from dmgd.sources.source import SourceImage
from dmgd.specs import PriorSpec, SourceSpec

_NUMBERED = re.compile(r"(\d{3,})-(.+)")


@dataclass(frozen=True)
class RawSet:
    """A set as it was read. `labels` are indices into `classes`, which are as in the files. `numbered` is False where
    the order of the classes means nothing (folders without numbers). `specs` are the source and the prior that
    the set was made with, where they are recorded."""

    name: str
    images: list[Image.Image]
    labels: list[int]
    classes: tuple[ClassInfo, ...]
    numbered: bool = True
    specs: tuple[SourceSpec, PriorSpec] | None = None

    def check(self) -> "RawSet":
        """The set itself. Raises ArtifactError if it is empty, or if image sizes or channels differ."""
        if not self.images:
            raise ArtifactError(f"{self.name} has no images")
        for what, kinds in (
            ("sizes", {f"{image.width}×{image.height}" for image in self.images}),
            ("channels", {"grey" if channels_of(image) == 1 else "RGB" for image in self.images}),
        ):
            if len(kinds) > 1:
                raise ArtifactError(
                    f"{self.name} has images of mixed {what} ({', '.join(sorted(kinds)[:5])}); "
                    "convert them all to one before evaluating"
                )
        return self


def read_raw_set(path: Path) -> RawSet:
    """The set at `path`, in any known layout. Raises UsageError for an unknown layout, ArtifactError for an unfinished
    run and for damaged files."""
    if (path / MANIFEST).is_file() or (path / INDEX).is_file():
        distilled = DistilledSet.open(path)
        own = list(distilled.images())
        images, labels = [to_image(pixels) for _, _, pixels in own], [label for label, _, _ in own]
        return RawSet(path.name, images, labels, distilled.classes, specs=distilled.specs)
    if (path / tensors.IMAGES).is_file():  # an export without its index
        return _numbered(
            path.name,
            ((to_image(s.pixels), s.label, s.metadata["wnid"] or s.metadata["class_name"]) for s in tensors.read(path)),
        )
    return _read_foreign(path)


def _read_foreign(path: Path) -> RawSet:
    """The training images of an image folder, WebDataset shards, or a Hugging Face dataset.

    Class names are the data's own labels ("cat" for "0003-cat"). An empty class folder is a class without images.
    """
    try:
        layout = open_layout(str(path))
    except UsageError as error:
        raise UsageError(
            f"{path} is not a set that can be read: no run, no export, and no other known layout ({error})"
        ) from error
    name, everything = path.name, list(layout.images("train"))
    images = [_decoded(name, one) for one in everything]
    rows = {label: row for row, label in enumerate(layout.labels())}
    labels = [rows[one.label] for one in everything]
    if any(one.number is not None for one in everything):
        numbers = [_number(name, one) for one in everything]
        if numbers != labels:  # else the labels are listed by number, including those without an image
            return _numbered(name, zip(images, numbers, (one.label for one in everything), strict=True))
        return RawSet(name, images, labels, tuple(ClassInfo(label) for label in rows))
    named = [_NUMBERED.fullmatch(label) for label in rows]
    classes = tuple(ClassInfo(parts[2] if parts else label) for label, parts in zip(rows, named, strict=True))
    return RawSet(name, images, labels, classes, numbered=all(named))


def _decoded(name: str, one: SourceImage[str]) -> Image.Image:
    try:
        return read_image(one.image)
    except BadImage as error:
        raise ArtifactError(
            f"{name}: {one.name} is not an image that can be read ({error}); remove or replace it"
        ) from error


def _number(name: str, one: SourceImage[str]) -> int:
    """The image's class number. Raises ArtifactError if it is not a number."""
    text = str(one.number)
    if not text.isdecimal():
        raise ArtifactError(f"{name}: {one.name} has the label {one.number!r}; labels must be class numbers, from 0 on")
    return int(text)


def _numbered(name: str, decoded: Iterable[tuple[Image.Image, int, str]]) -> RawSet:
    """The set of (image, class number, class name). Raises ArtifactError if a class has two names."""
    images, labels, names = [], [], dict[int, str]()
    for image, label, class_name in decoded:
        if names.setdefault(label, class_name) != class_name:
            raise ArtifactError(
                f"{name} calls class {label} both {names[label]!r} and {class_name!r}; its labels cannot be trusted"
            )
        images.append(image)
        labels.append(label)
    return RawSet(name, images, labels, tuple(ClassInfo(names.get(i, str(i))) for i in range(max(names) + 1)))
