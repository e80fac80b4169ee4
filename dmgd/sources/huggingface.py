"""The layout of Hugging Face datasets."""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmgd.classes.info import natural_key
from dmgd.errors import ArtifactError, DmgdError, UsageError, listed, said_by
from dmgd.sources.remote import failures, filesystem, remembered
from dmgd.sources.source import (
    SourceImage,
    fingerprint_files,
    label_text,
    lone_split,
    missing_split,
    which_splits,
)
from dmgd.specs import shown_url

LABEL_COLUMNS = ("label", "labels", "class", "cls", "fine_label")


@dataclass(frozen=True)
class Streamed:
    """How a dataset is read that is not here: `stamp` changes when it does, rows may name files below `url`, `remarks`
    are for the user."""

    url: str
    stamp: str
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class HuggingFaceLayout:
    """The splits of a dataset and the names of its image and label columns.

    `files`, which the splits are read from, are for the fingerprint, and rows may name others below `root`; a dataset
    elsewhere is `streamed` instead. `revision` is the Hub's commit, if known.
    """

    location: str
    splits: Mapping[str, Any]
    image: str
    label: str
    files: tuple[Path, ...]
    revision: str | None = None
    streamed: Streamed | None = None

    @property
    def has_test(self) -> bool:
        return "test" in which_splits(self.splits)

    def labels(self) -> list[str]:
        train = self._split("train")
        if (names := getattr(train.features[self.label], "names", None)) is not None:
            return list(dict.fromkeys(label_text(name, self.location) for name in names))
        return remembered(self.fingerprint("train"), self._found_labels) if self.streamed else self._found_labels()

    def _found_labels(self) -> list[str]:
        with _damaged_assaid_by(self.location):
            found = {row[self.label] for row in self._split("train").select_columns([self.label])}
        return sorted({label_text(str(label), self.location) for label in found}, key=natural_key)

    def remarks(self, split: str) -> list[str]:
        return [*lone_split(self.location, self.splits), *(self.streamed.remarks if self.streamed else ())]

    def images(self, split: str, skip: Collection[str] = ()) -> Iterator[SourceImage[str]]:
        from datasets import Image

        data = self._split(split)
        names = getattr(data.features[self.label], "names", None)
        texts = [label_text(name, self.location) for name in names] if names else None
        numbers = _numbers(texts or [])
        with _damaged_assaid_by(self.location):
            columns = data.select_columns([self.image, self.label]).cast_column(self.image, Image(decode=False))
            if skip and hasattr(columns, "select"):  # not streamed: rows that are skipped need not be read
                skipped = {row for row, text in enumerate(texts) if text in skip} if texts else skip
                columns = columns.select([i for i, label in enumerate(columns[self.label]) if label not in skipped])
            for number, row in enumerate(columns):
                image, label = row[self.image], row[self.label]
                if label is None or label == -1 or (texts and label not in range(len(texts))):
                    raise ArtifactError(f"{self.location}, row {number} has the label {label}; choose a labelled split")
                text = texts[label] if texts else label_text(str(label), f"{self.location}, row {number}")
                if text not in skip:
                    name, index = f"row {number} of {split}", label if isinstance(label, int) else None
                    yield SourceImage(self._image(image or {}, name), text, name, numbers.get(text, index))

    @property
    def root(self) -> Path:
        """The folder in which rows may name files: the dataset's own, or the cache of what came from the Hub."""
        from datasets import config

        path = Path(self.location).expanduser()
        return (path if path.is_dir() else path.parent) if path.exists() else Path(config.HF_DATASETS_CACHE)

    def _image(self, stored: Mapping[str, Any], name: str) -> bytes | Path:
        """The bytes of an image, or its file in the dataset; empty if a row has neither.

        Raises ArtifactError for a file elsewhere: data must not choose which files are read.
        """
        if stored.get("bytes") is not None or not stored.get("path"):
            return stored.get("bytes") or b""
        if self.streamed:
            if not stored["path"].startswith(f"{self.streamed.url}/") or "/../" in stored["path"]:
                raise self._outside(stored["path"], name, shown_url(self.streamed.url))
            fs, path = filesystem(stored["path"])
            with failures(stored["path"]):
                return bytes(fs.cat_file(path))
        file = self.root / stored["path"]
        if not file.resolve().is_relative_to(self.root.resolve()):
            raise self._outside(stored["path"], name, str(self.root))
        return file

    def _outside(self, path: str, name: str, root: str) -> ArtifactError:
        return ArtifactError(
            f"{self.location}, {name} has no image but the path {path!r}, which is outside {root}; "
            "write the data anew with the images' bytes in it"
        )

    def fingerprint(self, split: str) -> str:
        self._split(split)
        stamp = self.streamed.stamp if self.streamed else fingerprint_files(Path("/"), self.files)
        parts = [self.image, self.label, stamp, split]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def extent(self, split: str) -> str:
        return "" if self.streamed else f"{len(self._split(split)):,} rows"

    def _split(self, split: str) -> Any:
        if (name := which_splits(self.splits).get(split)) is None:
            raise missing_split(self.location, split, self.splits)
        return self.splits[name]


def _numbers(names: list[str]) -> dict[str, int]:
    """The number that each name is, if together they are 0, 1, …: a dataset made from folders lists "10" before "2"."""
    numbers = {name: int(name) for name in names if re.fullmatch("[0-9]{1,9}", name)}
    return numbers if sorted(numbers.values()) == list(range(len(names))) else {}


def layout_of_splits(
    location: str,
    columns: str | None,
    splits: Mapping[str, Any],
    files: Collection[Path],
    revision: str | None = None,
    streamed: Streamed | None = None,
) -> HuggingFaceLayout:
    """The layout of these splits of a dataset, read from `files`. Raises UsageError for ambiguous columns."""
    features = next(iter(splits.values())).features
    image, label = find_columns(features, columns, location)
    return HuggingFaceLayout(location, splits, image, label, tuple(files), revision, streamed)


def find_columns(features: Mapping[str, Any] | None, columns: str | None, location: str) -> tuple[str, str]:
    """The names of the image and the label column: as given ("IMAGE,LABEL"), else by type, else by usual name.

    Raises UsageError, listing the columns, for a missing or an ambiguous one.
    """
    from datasets import ClassLabel, Image

    if not features:
        raise UsageError(f"{location} does not say what its columns are")
    if columns is not None:
        image, _, label = (part.strip() for part in columns.partition(","))
        if unknown := [name for name in (image, label) if name not in features]:
            raise UsageError(
                f"{location} has no column {unknown[0]!r}; it has {', '.join(features)}: --columns IMAGE,LABEL"
            )
        return image, label
    images = [name for name, feature in features.items() if isinstance(feature, Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, ClassLabel)]
    images = images or [name for name in ("image", "img") if name in features]
    labels = labels or [name for name in LABEL_COLUMNS if name in features]
    for kind, found in (("image", images), ("label", labels)):
        if len(found) != 1:
            raise UsageError(
                f"the {kind} column of {location} is not clear: "
                f"{'none' if not found else ' or '.join(found)} of {listed(list(features))}; say --columns IMAGE,LABEL"
            )
    return images[0], labels[0]


@contextmanager
def _damaged_assaid_by(location: str) -> Iterator[None]:
    try:
        yield
    except DmgdError:
        raise
    except Exception as error:  # datasets and Arrow raise a dozen types
        raise ArtifactError(f"{location} is damaged, or has no images and labels ({said_by(error)})") from error
