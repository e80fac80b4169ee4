"""A distilled set on disk, a run or an export of one, which contains the run's manifest; and the check of an export
against its index."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy import ndarray

from dmgd.classes.info import ClassInfo
from dmgd.errors import ArtifactError, DmgdError, UsageError, visible
from dmgd.exporters.example import Example
from dmgd.exporters.folder import INDEX, TILES, WEIGHTS, read_index
from dmgd.exporters.formats import layout_named
from dmgd.exporters.soft_labels import FILE as LABELS
from dmgd.exporters.soft_labels import has_index, open_labels, set_digest
from dmgd.files import file_problem, sha256_bytes
from dmgd.guard import GUARD
from dmgd.images import LOSSLESS, encode
from dmgd.runs.columns import COLUMN_TYPES, PARTS, features
from dmgd.runs.directory import MANIFEST, RunDirectory
from dmgd.runs.manifest import specs_of
from dmgd.runs.record import image_key
from dmgd.runs.weights import weights_digest
from dmgd.specs import PriorSpec, SourceSpec, require_no_url

if TYPE_CHECKING:  # slow to import
    from datasets import Dataset

EXTRA = "is not part of the export"  # how the line ends that names a file beside those of the index
# What git and the Hub client put beside the files of a dataset.
FOREIGN = {".git", ".gitattributes", ".cache", GUARD}


@dataclass(frozen=True, repr=False)
class DistilledSet:
    """A `run`, or an export with its `index`; `manifest` is the run's in both."""

    path: Path
    manifest: dict[str, Any]
    run: RunDirectory | None = None
    index: dict[str, Any] | None = None

    @classmethod
    def open(cls, path: Path | str) -> "DistilledSet":
        """The run or export at `path`. Raises UsageError if it is neither, ArtifactError if it has another format."""
        path = Path(path)
        if (path / MANIFEST).is_file():
            run = RunDirectory.open(path)
            return cls(path, run.manifest, run=run)
        if (path / INDEX).is_file():
            index = read_index(path)
            return cls(path, index["run"], index=index)
        raise UsageError(f"{path} is neither a run (no {MANIFEST}) nor an export (no {INDEX})")

    @property
    def tiles(self) -> int:
        """1, or how many parts the mosaics of an export have along a side."""
        return (self.index or {}).get(TILES, 1)

    @property
    def specs(self) -> tuple[SourceSpec, PriorSpec]:
        return specs_of(self.manifest)

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        return tuple(ClassInfo.from_json(fields) for fields in self.manifest["classes"])

    @property
    def image_bytes(self) -> int:
        """The bytes of the images' files; of an export, of the files that they are in."""
        if self.run is not None:
            return sum((self.path / record.path).stat().st_size for record in self.run.records())
        return sum(file["bytes"] for file in (self.index or {})["files"] if file["images"])

    def images(self) -> Iterator[tuple[int, int, ndarray]]:
        """(class index, image index, uint8 pixels (h, w, c)) of every image, in order; of mosaics, of every part.
        Raises ArtifactError for an unfinished run, and for missing, damaged or mislabelled images."""
        yield from ((label, fields["image_index"], pixels) for label, fields, pixels in self.entries())

    def entries(self) -> Iterator[tuple[int, dict[str, Any], ndarray]]:
        """(class index, metadata, uint8 pixels (h, w, c)) of every image, as `images`; `weight` is missing in exports
        of earlier versions."""
        if self.run is not None:
            for record in self.run.complete_records():
                yield record.class_index, vars(record), self.run.pixels(record)
        yield from self._exported()

    def described(self) -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:
        """(class index, image index) and metadata of every image, see `dmgd.runs.columns`, in the order of `images`,
        and raising what that does."""
        for record in self.run.complete_records() if self.run else ():
            yield (record.class_index, record.image_index), record.to_json()
        for label, fields, _ in self._exported():
            yield (label, fields["image_index"]), fields

    def to_dataset(self) -> "Dataset":
        """The images as a Hugging Face dataset with the columns of a Parquet export; of mosaics a row for every part,
        at its own size, which has no file and no `sha256`. Raises ArtifactError as `images`."""
        if self.run is not None:
            return self.run.to_dataset()
        from datasets import Dataset

        rows, classes = [], self.classes
        for label, fields, pixels in self._exported():
            known = {**vars(classes[label]), "class_name": classes[label].name, **fields}
            image = {"bytes": encode(pixels), "path": f"{fields['key']}.png"}
            rows.append({"image": image, "label": label, **{name: known.get(name) for name in COLUMN_TYPES}})
        return Dataset.from_list(rows, features=features(classes))

    def _exported(self) -> Iterator[tuple[int, dict[str, Any], ndarray]]:
        """(class index, metadata, pixels) of every image of an export; of mosaics, of every part. Raises ArtifactError
        as `images`."""
        if self.index is None:
            return
        names = {label: info.name for label, info in enumerate(self.classes)}
        try:
            for example in layout_named(self.index["layout"]).read(self.path, self.index):
                label, class_name = example.label, example.metadata["class_name"]
                if label not in names or names[label] != class_name:
                    raise ArtifactError(
                        f"{self.path} calls class {label} both {names.get(label)!r} and {class_name!r}; "
                        "its labels cannot be trusted"
                    )
                for fields, pixels in example.images(self.tiles):
                    yield label, fields, pixels
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{self.path} is damaged ({error}); dmgd verify {self.path} names the files") from error

    def __repr__(self) -> str:
        if self.run is not None:
            return repr(self.run)
        index = self.index or {}
        images = f"{index['images']} {'images' if self.tiles == 1 else f'mosaics of {self.tiles}×{self.tiles}'}"
        return visible(f"DistilledSet('{self.path}', {index['layout']}, {images}, {len(self.classes)} classes)")


open_export = DistilledSet.open


def require_outside_sets(out: Path) -> None:
    """Raise UsageError if `out` is a URL, or lies in a run or an export, of which what is written there is no part."""
    require_no_url(out)
    for parent in out.resolve().parents:
        try:
            DistilledSet.open(parent)
        except DmgdError:
            continue
        raise UsageError(f"{out} lies in {parent}, which is a run or an export; choose a place outside")


def export_problems(folder: Path, index: dict[str, Any]) -> Iterator[str]:
    """One line per difference from the index, beginning with the file: checksums, missing and extra files and, if the
    files are intact, the images, labels and metadata in them."""
    problems = (file_problem(folder, file["path"], file["sha256"]) for file in index["files"])
    damaged = [problem for problem in problems if problem]
    yield from damaged
    expected = {INDEX, *(file["path"] for file in index["files"])}
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    extra = sorted(path.as_posix() for path in found if path.parts[0] not in FOREIGN)
    yield from (f"{path}: {EXTRA}" for path in extra if path not in expected)
    if not damaged:
        yield from _content_problems(folder, index)


def _content_problems(folder: Path, index: dict[str, Any]) -> Iterator[str]:
    names = dict(enumerate(info["name"] for info in index["run"]["classes"]))
    is_lossless, tiles, ipc = index["image_format"] in LOSSLESS, index.get(TILES, 1), index["run"]["config"]["ipc"]
    counts, keys, images = Counter[int](), set(), list[tuple[str, str]]()
    weights = list[float | None]()
    identities = {label: ClassInfo.from_json(info).identity for label, info in enumerate(index["run"]["classes"])}
    for example in layout_named(index["layout"]).read(folder, index):
        key, class_name = example.key, example.metadata["class_name"]
        counts[example.label] += 1
        if key in keys:
            yield f"{key}: is there twice"
        keys.add(key)
        if example.label not in names or names[example.label] != class_name:
            yield f"{key}: has label {example.label}, but is of class {class_name!r}"
        if isinstance(example.image, bytes) and sha256_bytes(example.image) != example.metadata["sha256"]:
            yield f"{key}: its file is not the one of its metadata"
        elif is_lossless and sha256_bytes(example.recorded.tobytes()) != example.metadata["pixels_sha256"]:
            yield f"{key}: its pixels are not those of its metadata"
        if tiles > 1:
            yield from _part_problems(example, tiles, is_lossless)
        of = [example.metadata] if tiles == 1 else example.metadata.get(PARTS, [])
        weights += [fields.get("weight") for fields in of]
        images += ((identities.get(example.label, ""), fields["pixels_sha256"]) for fields in of)
    if has_index(folder):
        try:
            open_labels(folder).require_of("this export", set_digest(images), len(images), tiles)
        except DmgdError as error:
            yield f"{LABELS}: {error}"
    if weights_digest(weights) != index.get(WEIGHTS):
        yield f"{INDEX}: the weights of the images are not those that it says"
    for label, count in enumerate(index["images_per_class"]):
        if counts[label] != count:
            yield f"class {label}: has {counts[label]} images, {INDEX} says {count}"
    if others := sorted({count * tiles**2 for count in index["images_per_class"]} - {ipc}):
        yield f"{INDEX}: a class has {others[0]} images, the run has {ipc} of each"
    if sum(counts.values()) != index["images"] or sum(file["images"] for file in index["files"]) != index["images"]:
        yield f"{INDEX}: the numbers of images do not add up to {index['images']}"


def _part_problems(mosaic: Example, tiles: int, is_lossless: bool) -> Iterator[str]:
    """One line per part of the mosaic that is not the one of its metadata, or whose place is another's."""
    try:
        parts = mosaic.images(tiles)
        first = mosaic.metadata["image_index"] * tiles**2
    except (KeyError, ValueError) as error:
        yield f"{mosaic.key}: is no mosaic of {tiles}×{tiles} ({error})"
        return
    for place, (metadata, pixels) in enumerate(parts):
        key, index = image_key(mosaic.label, first + place), metadata["image_index"]
        if (metadata["key"], index) != (key, first + place):
            yield f"{mosaic.key}: its part {place + 1} is called {metadata['key']} (image {index}), not {key}"
        elif is_lossless and sha256_bytes(pixels.tobytes()) != metadata["pixels_sha256"]:
            yield f"{key}: part {place + 1} of {mosaic.key} does not have the pixels of its metadata"
