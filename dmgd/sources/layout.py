"""How labelled images lie on disk: what every layout answers."""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dmgd.errors import UsageError

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
