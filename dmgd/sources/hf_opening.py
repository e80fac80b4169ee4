"""Opening Hugging Face datasets: local Parquet, saved to disk, on the Hub, or converted by it to Parquet."""

import glob
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from dmgd.classes.info import natural_key
from dmgd.errors import DmgdError, UsageError, said_by
from dmgd.network import hub_reachable
from dmgd.sources.data_cache import data_folder, filled
from dmgd.sources.hf_streaming import open_at_url, open_large
from dmgd.sources.huggingface import HuggingFaceLayout, layout_of_splits
from dmgd.sources.source import files_by_split, is_hidden, is_split_word, split_of
from dmgd.specs import is_url, shown_url

CONVERTED = "refs/convert/parquet"  # where the Hub keeps Parquet that it made of other datasets


class HubUnreachable(DmgdError):
    """A dataset is not in the cache and the Hub cannot be reached."""


def open_hugging_face(location: str, variant: str | None, columns: str | None) -> HuggingFaceLayout:
    """The dataset at a local path (folder or parquet file) or a URL, or with that id on the Hub or in the cache.

    Raises UsageError if it cannot be found or read or its columns are ambiguous, HubUnreachable if it is not in the
    cache and cannot be downloaded.
    """
    if is_url(location):
        if variant is not None:
            raise UsageError(f"--variant belongs to datasets on the Hub, not to {shown_url(location)}; leave it out")
        return open_at_url(location, columns)
    path = Path(location).expanduser()
    if path.exists():
        return layout_of_splits(location, columns, *_open_local(path, variant))
    if is_hub_id(location):
        return open_on_hub(location, variant, columns)
    raise UsageError(f"the dataset {location} does not exist; give a folder, a .parquet file or a Hub id")


def is_hub_id(location: str) -> bool:
    """Whether this names a dataset on the Hub, and no local path."""
    is_path = Path(location).expanduser().exists() or location.startswith((".", "/", "~"))
    return location.count("/") == 1 and not is_path


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
        raise UsageError(f"{path} cannot be read as a Hugging Face dataset: {said_by(error)}") from error
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
    """The dataset with that id on the Hub or in the cache; streamed if it is large and not in the cache. Raises as
    `open_hugging_face`."""
    is_here = (datasets_cache() / hub_id.replace("/", "___")).is_dir()
    if not is_here and not hub_reachable():
        raise HubUnreachable(f"the dataset {hub_id!r} is not in the cache and the Hub cannot be reached")
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    with hub_failures(hub_id, DatasetsError):
        if not is_here and (large := open_large(hub_id, variant)):
            splits, streamed, revision = large
            return layout_of_splits(hub_id, columns, splits, (), revision, streamed)
        splits = load_dataset(hub_id, variant)
    files = [Path(entry["filename"]) for split in splits.values() for entry in split.cache_files]
    urls = " ".join(next(iter(splits.values())).info.download_checksums or {})
    commit = re.search(r"@([0-9a-f]{40})/", urls)
    return layout_of_splits(hub_id, columns, splits, files, commit.group(1) if commit else None)


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
        return replace(layout_of_splits(str(folder), columns, *_open_local(folder, None)), location=hub_id)


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
        raise HubUnreachable(f"the Hub's dataset {hub_id!r} cannot be loaded: {said_by(error)}{gated}") from error


def datasets_cache() -> Path:
    """The cache folder of `datasets`, found without importing it."""
    from huggingface_hub import constants

    return Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets").expanduser()
