"""Hugging Face datasets: local parquet, saved to disk, or on the Hub."""

import glob
import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dmgd.classes.info import natural_key
from dmgd.errors import ArtifactError, DmgdError, UsageError, listed, without_credentials
from dmgd.network import hub_reachable
from dmgd.sources.data_cache import data_folder, filled
from dmgd.sources.source import (
    SourceImage,
    files_by_split,
    fingerprint_files,
    is_hidden,
    is_split_word,
    label_text,
    lone_split,
    missing_split,
    split_of,
    which_splits,
)

CONVERTED = "refs/convert/parquet"  # where the Hub keeps Parquet that it made of other datasets
LABEL_COLUMNS = ("label", "labels", "class", "cls", "fine_label")


class HubUnreachable(DmgdError):
    """A dataset is not in the cache and the Hub cannot be reached."""


@dataclass(frozen=True)
class HuggingFaceLayout:
    """The splits of a dataset and the names of its image and label columns.

    `files`, which the splits are read from, are for the fingerprint, and rows may name others below `root`; `revision`
    is the Hub's commit, if known.
    """

    location: str
    splits: Mapping[str, Any]
    image: str
    label: str
    files: tuple[Path, ...]
    revision: str | None = None

    @property
    def has_test(self) -> bool:
        return "test" in which_splits(self.splits)

    def labels(self) -> list[str]:
        train = self._split("train")
        if (names := getattr(train.features[self.label], "names", None)) is not None:
            return list(dict.fromkeys(label_text(name, self.location) for name in names))
        with _damaged_as_one_line(self.location):
            found = {row[self.label] for row in train.select_columns([self.label])}
        return sorted({label_text(str(label), self.location) for label in found}, key=natural_key)

    def remarks(self, split: str) -> list[str]:
        return lone_split(self.location, self.splits)

    def images(self, split: str, skip: Collection[str] = ()) -> Iterator[SourceImage[str]]:
        from datasets import Image

        data = self._split(split)
        names = getattr(data.features[self.label], "names", None)
        texts = [label_text(name, self.location) for name in names] if names else None
        numbers = _numbers(texts or [])
        with _damaged_as_one_line(self.location):
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
        file = self.root / stored["path"]
        if not file.resolve().is_relative_to(self.root.resolve()):
            raise ArtifactError(
                f"{self.location}, {name} has no image but the path {stored['path']!r}, which is outside {self.root}; "
                "write the data anew with the images' bytes in it"
            )
        return file

    def fingerprint(self, split: str) -> str:
        self._split(split)
        parts = [self.image, self.label, fingerprint_files(Path("/"), self.files), split]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _split(self, split: str) -> Any:
        if (name := which_splits(self.splits).get(split)) is None:
            raise missing_split(self.location, split, self.splits)
        return self.splits[name]


def _numbers(names: list[str]) -> dict[str, int]:
    """The number that each name is, if together they are 0, 1, …: a dataset made from folders lists "10" before "2"."""
    numbers = {name: int(name) for name in names if re.fullmatch("[0-9]{1,9}", name)}
    return numbers if sorted(numbers.values()) == list(range(len(names))) else {}


def open_hugging_face(location: str, variant: str | None, columns: str | None) -> HuggingFaceLayout:
    """The dataset at a local path (folder or parquet file), or with that id on the Hub or in the cache.

    Raises UsageError if it cannot be found or read or its columns are ambiguous, HubUnreachable if it is not in the
    cache and cannot be downloaded.
    """
    path = Path(location).expanduser()
    if path.exists():
        return _layout(location, columns, *_open_local(path, variant))
    if is_hub_id(location):
        return open_on_hub(location, variant, columns)
    raise UsageError(f"the dataset {location} does not exist; give a folder, a .parquet file or a Hub id")


def is_hub_id(location: str) -> bool:
    """Whether this names a dataset on the Hub, and no local path."""
    is_path = Path(location).expanduser().exists() or location.startswith((".", "/", "~"))
    return location.count("/") == 1 and not is_path


def _layout(
    location: str,
    columns: str | None,
    splits: Mapping[str, Any],
    files: Collection[Path],
    revision: str | None = None,
) -> HuggingFaceLayout:
    features = next(iter(splits.values())).features
    image, label = find_columns(features, columns, location)
    return HuggingFaceLayout(location, splits, image, label, tuple(files), revision)


def _open_local(path: Path, variant: str | None) -> tuple[Mapping[str, Any], list[Path]]:
    from datasets import DatasetDict, load_dataset, load_from_disk

    entries = [path] if not path.is_dir() else sorted(path.rglob("*"))
    if special := [entry for entry in entries if not entry.is_file() and not entry.is_dir()]:
        raise UsageError(f"{special[0]} is a link to nothing or no regular file; remove it")
    try:
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            saved = load_from_disk(str(path))
            splits: Mapping[str, Any] = saved if isinstance(saved, DatasetDict) else {"train": saved}
            for split in splits.values():
                split.data.validate(full=True)  # Arrow itself ends the process at a damaged offset
        elif parquet := _parquet_by_split(path):
            # Paths are escaped, as patterns are expected.
            escaped = {split: [glob.escape(str(file)) for file in own] for split, own in parquet.items()}
            splits = load_dataset("parquet", data_files=escaped, streaming=True)
        elif glob.has_magic(str(path)):
            raise UsageError(f"{path} has one of *?[] in its path, which datasets takes for a pattern; rename it")
        else:
            splits = load_dataset(str(path), variant, streaming=True)  # streamed: nothing is copied into the cache
            known = {split_of(str(split)) for split in splits}
            folders = [entry for entry in entries if entry.parent == path and is_split_word(entry.name)]
            if wrong := [entry for entry in folders if entry.is_dir() and split_of(entry.name) not in known]:
                raise UsageError(f"datasets does not take {wrong[0]} for a split of its own; give folder:{path}")
    except DmgdError:
        raise
    except Exception as error:  # the readers raise a dozen types for damaged files
        raise UsageError(f"{path} cannot be read as a Hugging Face dataset: {_one_line(error)}") from error
    return splits, [entry.resolve() for entry in entries if entry.is_file()]


def _parquet_by_split(path: Path) -> dict[str, list[Path]]:
    """The Parquet files by split: the one at `path`, or those in that folder if no card there says how to read it."""
    if path.is_file():
        return {"train": [path]}
    card = path / "README.md"
    if card.is_file() and re.search(r"^configs:", card.read_text(errors="replace"), re.MULTILINE):
        return {}
    files = (file for file in path.rglob("*.parquet") if not any(map(is_hidden, file.relative_to(path).parts)))
    return files_by_split(f"hf:{path}", path, sorted(files, key=lambda file: natural_key(str(file))))


def open_on_hub(hub_id: str, variant: str | None, columns: str | None) -> HuggingFaceLayout:
    """The dataset with that id on the Hub or in the cache. Raises as `open_hugging_face`."""
    if not (datasets_cache() / hub_id.replace("/", "___")).is_dir() and not hub_reachable():
        raise HubUnreachable(f"the dataset {hub_id!r} is not in the cache and the Hub cannot be reached")
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    with hub_failures(hub_id, DatasetsError):
        splits = load_dataset(hub_id, variant)
    files = [Path(entry["filename"]) for split in splits.values() for entry in split.cache_files]
    urls = " ".join(next(iter(splits.values())).info.download_checksums or {})
    commit = re.search(r"@([0-9a-f]{40})/", urls)
    return _layout(hub_id, columns, splits, files, commit.group(1) if commit else None)


def open_converted(hub_id: str, variant: str, columns: str | None) -> HuggingFaceLayout:
    """The Parquet that the Hub made of a dataset's variant, downloaded into the cache if it is not there yet. Raises as
    `open_hugging_face`."""

    def fill(work: Path) -> Path:
        from huggingface_hub import snapshot_download

        found = snapshot_download(
            hub_id,
            repo_type="dataset",
            revision=CONVERTED,
            allow_patterns=f"{variant}/*.parquet",
            local_dir=work / "hub",
        )
        if not (Path(found) / variant).is_dir():
            raise HubUnreachable(f"there is no {variant} in {CONVERTED}")
        return Path(found) / variant

    with hub_failures(hub_id):
        folder = filled(converted_folder(hub_id, variant), fill)
        return replace(_layout(str(folder), columns, *_open_local(folder, None)), location=hub_id)


def converted_folder(hub_id: str, variant: str) -> Path:
    """The folder in the cache of the Parquet that the Hub made of a dataset's variant."""
    return data_folder(f"{hub_id.replace('/', '--')}-{variant}")


@contextmanager
def hub_failures(hub_id: str, *more: type[Exception]) -> Iterator[None]:
    """Turn the errors of the Hub's clients, and `more`, into HubUnreachable with one line."""
    from huggingface_hub.errors import HfHubHTTPError

    # The client's HTTP library depends on its version; its errors share a base with the client's.
    caught: tuple[type[Exception], ...] = (ValueError, OSError, RuntimeError, *HfHubHTTPError.__bases__, *more)
    try:
        yield
    except caught as error:
        gated = "; accept the terms on its page and set HF_TOKEN" if "gated" in str(error) else ""
        raise HubUnreachable(f"the Hub's dataset {hub_id!r} cannot be loaded: {_one_line(error)}{gated}") from error


def datasets_cache() -> Path:
    """The cache folder of `datasets`, found without importing it."""
    from huggingface_hub import constants

    return Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets").expanduser()


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
def _damaged_as_one_line(location: str) -> Iterator[None]:
    try:
        yield
    except DmgdError:
        raise
    except Exception as error:  # datasets and Arrow raise a dozen types
        raise ArtifactError(f"{location} is damaged, or has no images and labels ({_one_line(error)})") from error


def _one_line(error: Exception) -> str:
    return without_credentials(" ".join(str(error).split()))[:200] or type(error).__name__
