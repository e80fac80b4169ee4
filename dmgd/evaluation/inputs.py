"""Reading the set to evaluate: a run or an export of ours, or what another tool has made, as sources read it."""

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
from dmgd.sources.source import Found
from dmgd.specs import PriorSpec, SourceSpec

_NUMBERED = re.compile(r"(\d{3,})-(.+)")


@dataclass(frozen=True)
class Labelled:
    """Images as they were found. `labels` are indices into `classes`, which are as the files say. `numbered` is False
    where the order of the classes means nothing (folders without numbers). `specs`: the data that the images
    were distilled from and the weights that they were sampled with, where the files say so."""

    name: str
    images: list[Image.Image]
    labels: list[int]
    classes: tuple[ClassInfo, ...]
    numbered: bool = True
    specs: tuple[SourceSpec, PriorSpec] | None = None

    def check(self) -> "Labelled":
        """The same. Raises ArtifactError if there is no image, or if sizes or channels differ."""
        if not self.images:
            raise ArtifactError(f"{self.name} has no images")
        for what, kinds in (
            ("sizes", {f"{image.width}×{image.height}" for image in self.images}),
            ("channels", {"grey" if channels_of(image) == 1 else "RGB" for image in self.images}),
        ):
            if len(kinds) > 1:
                raise ArtifactError(
                    f"{self.name} has images of mixed {what} ({', '.join(sorted(kinds)[:5])}); "
                    "bring them all to one before evaluating"
                )
        return self


def read_labelled(path: Path) -> Labelled:
    """The images and labels at `path`, whatever its layout. Raises UsageError if it is none that is known,
    ArtifactError for an unfinished run and for damaged files."""
    if (path / MANIFEST).is_file() or (path / INDEX).is_file():
        distilled = DistilledSet.open(path)
        found = list(distilled.images())
        images, labels = [to_image(pixels) for _, _, pixels in found], [label for label, _, _ in found]
        return Labelled(path.name, images, labels, distilled.classes, specs=distilled.specs)
    if (path / tensors.IMAGES).is_file():  # an export that has lost its index
        return _numbered(
            path.name,
            ((to_image(s.pixels), s.label, s.metadata["wnid"] or s.metadata["class_name"]) for s in tensors.read(path)),
        )
    return _read_foreign(path)


def _read_foreign(path: Path) -> Labelled:
    """The training images of a folder with a folder for each class, WebDataset shards, or a Hugging Face dataset.

    Classes are called by the data's own labels, "0003-cat" by "cat". An empty class folder is a class without images.
    """
    try:
        layout = open_layout(str(path))
    except UsageError as error:
        raise UsageError(
            f"{path} is not a set that can be read: no run, no export, and no data of another tool ({error})"
        ) from error
    name, everything = path.name, list(layout.found("train"))
    images = [_image(name, found) for found in everything]
    rows = {label: row for row, label in enumerate(layout.labels())}
    labels = [rows[found.label] for found in everything]
    if any(found.number is not None for found in everything):
        numbers = [_number(name, found) for found in everything]
        if numbers != labels:  # else the labels are listed by their numbers, those without an image among them
            return _numbered(name, zip(images, numbers, (found.label for found in everything), strict=True))
        return Labelled(name, images, labels, tuple(ClassInfo(label) for label in rows))
    named = [_NUMBERED.fullmatch(label) for label in rows]
    classes = tuple(ClassInfo(parts[2] if parts else label) for label, parts in zip(rows, named, strict=True))
    return Labelled(name, images, labels, classes, numbered=all(named))


def _image(name: str, found: Found) -> Image.Image:
    try:
        return read_image(found.image)
    except BadImage as error:
        raise ArtifactError(
            f"{name}: {found.name} is not an image that can be read ({error}); remove or replace it"
        ) from error


def _number(name: str, found: Found) -> int:
    """The number of the image's class. Raises ArtifactError for another label."""
    text = str(found.number)
    if not text.isdecimal():
        raise ArtifactError(
            f"{name}: {found.name} has the label {found.number!r}; labels must be the numbers of classes, from 0 on"
        )
    return int(text)


def _numbered(name: str, samples: Iterable[tuple[Image.Image, int, str]]) -> Labelled:
    """The set of (image, number of its class, name of its class), which must agree."""
    images, labels, names = [], [], dict[int, str]()
    for image, label, said in samples:
        if names.setdefault(label, said) != said:
            raise ArtifactError(
                f"{name} calls class {label} both {names[label]!r} and {said!r}; its labels cannot be trusted"
            )
        images.append(image)
        labels.append(label)
    return Labelled(name, images, labels, tuple(ClassInfo(names.get(i, str(i))) for i in range(max(names) + 1)))
