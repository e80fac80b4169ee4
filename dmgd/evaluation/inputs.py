"""Reading the set to evaluate: a run, an export of any layout, or an image folder that another tool has made."""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from dmgd.classes.info import ClassInfo
from dmgd.errors import ArtifactError, UsageError
from dmgd.exporters.folder import INDEX
from dmgd.exporters.tensors import IMAGES, read_tensors
from dmgd.images import BadImage, channels_of, read_image, to_image
from dmgd.runs.directory import MANIFEST, RunDirectory
from dmgd.runs.manifest import specs_of
from dmgd.sources.folder import class_folders, image_files
from dmgd.sources.shards import Sample, samples
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
    ArtifactError for damaged files."""
    if (path / MANIFEST).is_file():
        return read_run(RunDirectory.open(path))
    table = _index_of(path)
    if (path / IMAGES).is_file():
        return _from_samples(path.name, _tensor_samples(path), table)
    if tars := _files(path, ".tar"):
        return _from_samples(path.name, _tar_samples(tars), table)
    if parquets := _files(path, ".parquet"):
        return _from_parquet(path.name, parquets, table)
    if path.is_dir():
        return read_folder(path, table)
    raise UsageError(
        f"{path} is not a set that can be read: a run, an export (WebDataset, Parquet, image folder or tensors), or a "
        "folder with one folder of images for each class"
    )


def read_run(run: RunDirectory) -> Labelled:
    """A finished run's images. Raises ArtifactError for an unfinished or damaged one."""
    records = run.complete_records()
    return Labelled(
        name=run.path.name,
        images=[Image.open(io.BytesIO(run.image_bytes(record))) for record in records],
        labels=[record.class_index for record in records],
        classes=run.classes,
        specs=run.specs,
    )


def read_folder(path: Path, table: "_Table | None" = None) -> Labelled:
    """An image folder: one folder for each class, named by WordNet id, class name, or both a number and a name.

    Without an export's index, an empty class folder is a class without images. Raises UsageError if there is no class
    folder.
    """
    path = path / "train" if not table and (path / "train").is_dir() else path
    folders = sorted(class_folders(path))
    if not folders:
        raise UsageError(f"{path} is not a set: it has no {MANIFEST}, no {INDEX} and no class folders of images")
    images, labels = [], []
    for label, folder in enumerate(folders):
        for file in image_files(folder):
            images.append(open_image(file.read_bytes(), str(file)))
            labels.append(label)
    named = [folder_class(folder.name) for folder in folders]
    if table:
        numbers = [number if number is not None else place for place, (number, _) in enumerate(named)]
        return Labelled(path.name, images, [numbers[label] for label in labels], table.classes, True, table.specs)
    classes = tuple(ClassInfo(name) for _, name in named)
    return Labelled(path.name, images, labels, classes, numbered=all(number is not None for number, _ in named))


@dataclass(frozen=True)
class _Table:
    """What an export's index says: its classes in order, and the data and weights that it was made from."""

    classes: tuple[ClassInfo, ...]
    specs: tuple[SourceSpec, PriorSpec] | None = None


def _index_of(path: Path) -> _Table | None:
    """The class table of an export, or None where there is no index of one."""
    if not (path / INDEX).is_file():
        return None
    try:
        run = json.loads((path / INDEX).read_text())["run"]
        classes = tuple(ClassInfo.from_json(fields) for fields in run["classes"])
        return _Table(classes, specs_of(run))
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path / INDEX} is damaged or of another version ({error!r}); export again") from error


def _files(path: Path, suffix: str) -> list[Path]:
    """The file itself, or the files with the suffix in a folder or its data/, in order."""
    if path.is_file():
        return [path] if path.suffix == suffix else []
    return sorted({*path.glob(f"*{suffix}"), *path.glob(f"data/*{suffix}")})


Numbered = tuple[Image.Image, int, str | None]
"""An image, its number of class, and the class's name where the sample has one."""


def _tar_samples(paths: list[Path]) -> Iterator[Numbered]:
    """The samples of WebDataset shards: an image with .cls, and .json for the name where there is one."""
    for path in paths:
        for sample in samples(path):
            yield _tar_sample(f"{path.name}, sample {sample.key.lstrip('/')}", sample)


def _tar_sample(place: str, sample: Sample) -> Numbered:
    image, label = sample.image(), sample.read("cls")
    if image is None or label is None:
        raise ArtifactError(f"{place} has no {'image' if image is None else '.cls'} field")
    try:
        described = json.loads(sample.read("json") or b"{}")
    except ValueError as error:
        raise ArtifactError(f"the .json of {place} is damaged ({error})") from error
    name = (described.get("wnid") or described.get("class_name")) if isinstance(described, dict) else None
    return open_image(image[1], place), _number(label.decode(errors="replace"), place), name


def _tensor_samples(path: Path) -> Iterator[Numbered]:
    """The samples of class-ordered tensors, as `dmgd export --format tensors` writes them."""
    for stored in read_tensors(path):
        assert not isinstance(stored.image, bytes)
        yield to_image(stored.image), stored.label, stored.metadata["wnid"] or stored.metadata["class_name"]


def _number(label: Any, place: str) -> int:
    """The number of a class. Raises ArtifactError for another label."""
    try:
        number = int(label)
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        raise ArtifactError(f"{place} has the label {label!r}; labels must be the numbers of classes, from 0 on")
    return number


def _from_parquet(name: str, paths: list[Path], table: _Table | None) -> Labelled:
    """Parquet files with the columns image and label, the class names from the ClassLabel type where it is there."""
    from pyarrow.parquet import read_schema

    from dmgd.exporters.parquet import rows

    names: list[str] | None = None
    found: list[Numbered] = []
    for path in paths:
        schema = read_schema(path)
        label = next((column for column in ("label", "labels", "cls") if column in schema.names), None)
        if label is None or "image" not in schema.names:
            raise ArtifactError(f"{path} needs the columns image and label, it has {', '.join(schema.names)}")
        note = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = note.get("info", {}).get("features", {}).get(label, {}).get("names") or names
        for number, row in enumerate(rows(path, ["image", label])):
            data = row["image"]["bytes"] if isinstance(row["image"], dict) else row["image"]
            place = f"{path.name}, row {number}"
            found.append((open_image(data, place), _number(row[label], place), None))
    if names and not table:
        table = _Table(tuple(ClassInfo(label) for label in names))
    return _from_samples(name, iter(found), table)


def _from_samples(name: str, found: Iterator[Numbered], table: _Table | None) -> Labelled:
    """The set of numbered samples. Where one says its class's name, it must be the table's."""
    images, labels, names = [], [], dict[int, str]()
    for image, label, said in found:
        if table and not 0 <= label < len(table.classes):
            raise ArtifactError(
                f"{name} has an image of class {label}, its class table ends at {len(table.classes) - 1}"
            )
        known = table.classes[label].identity if table else names.get(label, said)
        if said is not None and said not in (known, table.classes[label].name if table else known):
            raise ArtifactError(f"{name} calls class {label} both {known!r} and {said!r}; its labels cannot be trusted")
        images.append(image)
        labels.append(label)
        names[label] = said or str(label)
    if table:
        return Labelled(name, images, labels, table.classes, True, table.specs)
    classes = tuple(ClassInfo(names.get(i, str(i))) for i in range(max(labels, default=-1) + 1))
    return Labelled(name, images, labels, classes)


def open_image(data: bytes, place: str) -> Image.Image:
    """The decoded image. Raises ArtifactError, naming the place, for bytes that are no image."""
    try:
        return read_image(data)
    except BadImage as error:
        raise ArtifactError(f"{place} is not an image that can be read ({error}); remove or replace it") from error


def folder_class(folder: str) -> tuple[int | None, str]:
    """The number and the name in a class folder's name: "0003-cat" is (3, "cat"), "cat" is (None, "cat")."""
    numbered = _NUMBERED.fullmatch(folder)
    return (int(numbered[1]), numbered[2]) if numbered else (None, folder)
