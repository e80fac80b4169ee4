"""Hugging Face datasets: local parquet, saved to disk, or on the Hub."""

import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dmgd.classes.info import natural_key
from dmgd.errors import ArtifactError, DmgdError, UsageError, listed
from dmgd.network import hub_reachable, without_credentials
from dmgd.sources.data_cache import data_folder, filled
from dmgd.sources.source import TEST_NAMES, SourceImage, fingerprint_files, missing_split

CONVERTED = "refs/convert/parquet"  # where the Hub keeps Parquet that it made of other datasets
LABEL_COLUMNS = ("label", "labels", "class", "cls", "fine_label")


class HubUnreachable(DmgdError):
    """A dataset is not in the cache and the Hub cannot be reached."""


@dataclass(frozen=True)
class HuggingFaceLayout:
    """The splits of a dataset and the names of its image and label columns.

    `files`, which the splits are read from, are for the fingerprint; `revision` is the Hub's commit, if known.
    """

    location: str
    splits: Mapping[str, Any]
    image: str
    label: str
    files: tuple[Path, ...]
    revision: str | None = None

    @property
    def has_test(self) -> bool:
        return any(name in self.splits for name in TEST_NAMES)

    def labels(self) -> list[str]:
        train = self._split("train")
        if (names := getattr(train.features[self.label], "names", None)) is not None:
            return list(names)
        return sorted({str(row[self.label]) for row in train.select_columns([self.label])}, key=natural_key)

    def images(self, split: str, skip: Collection[str] = ()) -> Iterator[SourceImage[str]]:
        from datasets import Image

        data = self._split(split)
        names = getattr(data.features[self.label], "names", None)
        columns = data.select_columns([self.image, self.label]).cast_column(self.image, Image(decode=False))
        if skip and hasattr(columns, "select"):  # not streamed: rows that are skipped need not be read
            skipped = {names.index(label) if names else label for label in skip}
            columns = columns.select([i for i, label in enumerate(columns[self.label]) if label not in skipped])
        for number, row in enumerate(columns):
            image, label = row[self.image], row[self.label]
            if label is None or label == -1:
                raise ArtifactError(f"{self.location}, row {number} has the label {label}; choose a labelled split")
            inside, text = image["bytes"] if image else b"", names[label] if names else str(label)
            if text not in skip:
                source = inside if inside is not None else Path(image["path"])
                yield SourceImage(source, text, f"row {number} of {split}", label if isinstance(label, int) else None)

    def fingerprint(self, split: str) -> str:
        self._split(split)
        parts = [self.image, self.label, fingerprint_files(Path("/"), self.files), split]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _split(self, split: str) -> Any:
        if split == "train" and len(self.splits) == 1:  # whatever it is called
            return next(iter(self.splits.values()))
        for name in ("train",) if split == "train" else TEST_NAMES:
            if name in self.splits:
                return self.splits[name]
        raise missing_split(self.location, split)


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

    try:
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            saved = load_from_disk(str(path))
            splits: Mapping[str, Any] = saved if isinstance(saved, DatasetDict) else {"train": saved}
        elif path.is_file():
            splits = load_dataset("parquet", data_files={"train": str(path)}, streaming=True)
        else:
            splits = load_dataset(str(path), variant, streaming=True)  # streamed: nothing is copied into the cache
    except (ValueError, OSError, TypeError) as error:
        raise UsageError(f"{path} cannot be read as a Hugging Face dataset: {_one_line(error)}") from error
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return splits, [file.resolve() for file in files]


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


def _one_line(error: Exception) -> str:
    return without_credentials(" ".join(str(error).split()))[:200] or type(error).__name__
