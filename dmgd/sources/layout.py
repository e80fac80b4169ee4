"""How labelled images lie on disk: what every layout answers, and how a path shows which one it is."""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dmgd.errors import UsageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif")
TEST_NAMES = ("val", "validation", "test")  # ImageNet's "test" has no labels, so it comes last


@dataclass(frozen=True)
class Found:
    """One image as a layout finds it: its file's bytes or path, the data's own label, and where it is."""

    image: bytes | Path
    label: str
    name: str


class Layout(Protocol):
    """Images with the labels that the data itself gives them. `place` names the data in messages."""

    @property
    def place(self) -> str: ...

    @property
    def has_test(self) -> bool:
        """Whether there is a test split."""

    def labels(self) -> list[str]:
        """The labels of the training split, each once."""

    def found(self, split: str, skip: Collection[str] = ()) -> Iterator[Found]:
        """The images of "train" or "test" without those whose label is in `skip`, always in the same order. Raises
        UsageError for a split it lacks."""

    def fingerprint(self, split: str) -> str:
        """A digest that changes when the split's files do."""


def missing_split(place: str, split: str) -> UsageError:
    """The error for data without a test split."""
    looked = " or ".join(TEST_NAMES)
    return UsageError(f"{place} has no {split} split ({looked}); name one with --test-data PATH")


def fingerprint_files(root: Path, files: Iterable[Path]) -> str:
    """A digest of the files' paths below `root`, sizes and times of change; their content is not read."""
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        digest.update(f"{file.relative_to(root)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sorts "class 10" behind "class 9"."""
    import re

    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def open_layout(kind: str | None, place: str, variant: str | None, columns: str | None) -> Layout:
    """The layout of the data at `place`; `kind` folder, hf or wds, or None to see from the files.

    Raises UsageError if there is nothing, or an option that this layout does not have.
    """
    if kind is None:
        prefix, _, rest = place.partition(":")
        kind, place = (prefix, rest) if prefix in ("folder", "hf", "wds") and rest else (kind_of(place), place)
    given = {"--variant": variant, "--columns": columns}
    if kind != "hf" and (misplaced := [option for option, value in given.items() if value is not None]):
        raise UsageError(f"{' and '.join(misplaced)} belong to Hugging Face datasets, not to {kind}:{place}")
    if kind == "folder":
        from dmgd.sources.folder import FolderLayout

        return FolderLayout.open(Path(place).expanduser())
    if kind == "wds":
        from dmgd.sources.shards import ShardLayout

        return ShardLayout.open(place)
    from dmgd.sources.huggingface import open_hugging_face

    return open_hugging_face(place, variant, columns)


def kind_of(place: str) -> str:
    """folder, hf or wds, from what lies at `place`. Raises UsageError if there is nothing."""
    path = Path(place).expanduser()
    if path.suffix == ".parquet":
        return "hf"
    if place.endswith((".tar", ".tar.gz", ".tgz")):
        return "wds"
    if not path.exists():
        raise UsageError(f"the data {place} does not exist; give --data a folder, parquet or WebDataset shards")
    if any(path.glob("*.tar")):
        return "wds"
    markers = ("dataset_dict.json", "dataset_info.json", "state.json")
    if any((path / marker).is_file() for marker in markers) or any(
        next(path.glob(pattern), None) for pattern in ("*.parquet", "*/*.parquet", "*.arrow")
    ):
        return "hf"
    return "folder"
