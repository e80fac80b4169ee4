"""Reading the set to evaluate: a run, an export, or another tool's set, which is read as sources are."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from dmgd.classes.info import ClassInfo
from dmgd.errors import ArtifactError, UsageError
from dmgd.exporters import tensors
from dmgd.exporters.distilled import EXTRA, DistilledSet, export_problems
from dmgd.exporters.folder import CARD, INDEX
from dmgd.exporters.soft_labels import StoredLabels, set_digest
from dmgd.files import sha256_bytes
from dmgd.images import BadImage, channels_of, pixels_of, read_image, to_image
from dmgd.mosaics import require_mosaics, shrunk
from dmgd.runs.directory import MANIFEST
from dmgd.runs.manifest import recipe_of
from dmgd.runs.record import image_key
from dmgd.sources.layouts import open_layout
from dmgd.sources.source import Layout, SourceImage
from dmgd.specs import PriorSpec, SourceSpec

_NUMBERED = re.compile(r"(\d{3,})-(.+)")


@dataclass(frozen=True)
class RawSet:
    """A set as it was read. `labels` are indices into `classes`, which are as in the files. `numbered` is False where
    the order of the classes means nothing (folders without numbers). `specs` are the source and the prior that
    the set was made with, where they are recorded; `recipe` is a digest of all that it was made with but its seed, and
    the seed; `made_by` the names of its "method" and "prior". `remarks` say what was left out."""

    name: str
    images: list[Image.Image]
    labels: list[int]
    classes: tuple[ClassInfo, ...]
    numbered: bool = True
    specs: tuple[SourceSpec, PriorSpec] | None = None
    recipe: tuple[str, int] | None = None
    made_by: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    tiles: int = 1  # above 1 the images are the parts of mosaics of tiles × tiles, see dmgd.mosaics
    soft: StoredLabels | None = None  # a teacher's labels of the images
    weights: list[float] | None = None  # how much of its class each image stands for, see dmgd.runs.weights
    weighted: bool = False  # whether they are used in the loss

    @property
    def side(self) -> int:
        """The shorter side of a stored image, in pixels."""
        return min(self.images[0].size) * self.tiles

    @property
    def keys(self) -> list[str]:
        """The name of every image, as those of a run are called."""
        counts = Counter[int]()
        found = []
        for label in self.labels:
            found.append(image_key(label, counts[label]))
            counts[label] += 1
        return found

    @cached_property
    def digest(self) -> str:
        """What soft labels are of, see `set_digest`: the classes and the pixels of the images, in their order."""
        pixels = (sha256_bytes(pixels_of(image).tobytes()) for image in self.images)
        return set_digest((self.classes[label].identity, own) for label, own in zip(self.labels, pixels, strict=True))

    def in_mosaics(self, tiles: int | None) -> "RawSet":
        """The set as it would be in mosaics of `tiles` × `tiles`, its images shrunk; mosaics stay what they are.

        Raises UsageError if they are others, or if the images do not fill mosaics, ArtifactError as `check`.
        """
        self.check()
        if self.tiles > 1 and tiles not in (None, self.tiles):
            own = f"{self.tiles}×{self.tiles}"
            raise UsageError(f"{self.name} has mosaics of {own}, not {tiles}×{tiles}; leave tiles out")
        if self.tiles > 1 or tiles is None or tiles == 1:
            return self
        counts = {f"the class {info.name}": self.labels.count(label) for label, info in enumerate(self.classes)}
        require_mosaics(self.name, counts, self.images[0].size, tiles)
        parts = [to_image(shrunk(pixels_of(image), tiles)) for image in self.images]
        return replace(self, images=parts, tiles=tiles)

    def by_weight(self) -> "RawSet":
        """The set whose images count in the loss by their weights. Raises UsageError if it has none."""
        if self.weights is None:
            raise UsageError(
                f"{self.name} has no weights of its images; repeat the dmgd distill command of its run, without "
                "--stats, which adds them, and export that again, or leave --weighted out"
            )
        return replace(self, weighted=True)

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
        return _read_distilled(path)
    if (path / tensors.IMAGES).is_file():  # an export without its index
        try:
            own = list(tensors.read(path))
            named = [(to_image(s.pixels), s.label, s.metadata["wnid"] or s.metadata["class_name"]) for s in own]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # as above
            raise ArtifactError(f"{path} is damaged ({type(error).__name__}: {error}); export it again") from error
        return _numbered(path.name, named)
    return _read_foreign(path)


def _read_distilled(path: Path) -> RawSet:
    """A run, each image checked against its record, or an export, checked against its index."""
    try:
        distilled = DistilledSet.open(path)
        if distilled.index and (problem := _image_problem(path, distilled.index)):
            raise ArtifactError(f"{path} is damaged ({problem}); dmgd verify {path} lists all differences")
        own = list(distilled.entries())
        images, labels = [to_image(pixels) for _, _, pixels in own], [label for label, _, _ in own]
        weights = [fields.get("weight") for _, fields, _ in own]
        recipe, tiles = recipe_of(distilled.manifest), distilled.tiles
        made_by = {"method": distilled.manifest["config"]["method"]["name"], "prior": distilled.specs[1].name}
        known: dict[str, Any] = {"specs": distilled.specs, "recipe": recipe, "made_by": made_by, "tiles": tiles}
        known["weights"] = None if None in weights else weights
        return RawSet(path.name, images, labels, distilled.classes, **known)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # values of other types in its JSON
        raise ArtifactError(
            f"{path} is damaged ({type(error).__name__}: {error}); distil or export it again to a new folder"
        ) from error


def _image_problem(path: Path, index: dict[str, Any]) -> str | None:
    """The first difference of an export from its index, but for its card and further files: nobody trains on those."""
    images = {**index, "files": [file for file in index["files"] if file["path"] != CARD]}
    return next((problem for problem in export_problems(path, images) if not problem.endswith(EXTRA)), None)


def _read_foreign(path: Path) -> RawSet:
    """The training images of an image folder, WebDataset shards, or a Hugging Face dataset."""
    try:
        layout = open_layout(str(path))
    except UsageError as error:
        raise UsageError(
            f"{path} is not a set that can be read: no run, no export, and no other known layout ({error})"
        ) from error
    return replace(_read_layout(path.name, layout), remarks=tuple(layout.remarks("train")))


def _read_layout(name: str, layout: Layout) -> RawSet:
    """The training images. Class names are the data's own labels ("cat" for "0003-cat"). An empty class folder is a
    class without images."""
    everything = list(layout.images("train"))
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
