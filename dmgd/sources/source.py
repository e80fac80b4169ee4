"""What every source is, and what every layout of labelled images on disk answers."""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL.Image import Image

from dmgd.classes.info import ClassInfo
from dmgd.errors import UsageError
from dmgd.specs import SourceSpec

TEST_NAMES = ("val", "validation", "test")  # ImageNet's "test" has no labels, so it comes last


@dataclass(frozen=True)
class Item:
    """One image of a source before it is decoded: the bytes of its file, the file's path, or pixels.

    `label` is the index of its class, `name` says where it is within the source, for messages.
    """

    image: "bytes | Path | Image"
    label: int
    name: str


class Source(Protocol):
    """A labelled image dataset.

    `spec` is what it was opened from, `name` what it is called (without local paths), `variant` which of its editions
    this is, `licence` a line on its terms.
    """

    @property
    def spec(self) -> SourceSpec: ...
    @property
    def name(self) -> str: ...
    @property
    def variant(self) -> str: ...
    @property
    def licence(self) -> str: ...
    @property
    def classes(self) -> tuple[ClassInfo, ...]: ...

    def items(self, split: str) -> Iterator[Item]:
        """The images of "train" or "test", not yet decoded, always in the same order. Raises UsageError if the source
        has no such split."""

    def samples(self, split: str) -> Iterator[tuple[Image, int]]:
        """The images of the split that can be read, decoded, and their class indices, always in the same order."""

    def fingerprint(self, split: str) -> str:
        """A digest that changes when the split's files do; cheap, and only for use on this machine."""


@dataclass(frozen=True)
class Found:
    """One image as a layout finds it: its file's bytes or path, the data's own label, and where it is. `number` is that
    of its class, unchecked, where the data has one beside a name."""

    image: bytes | Path
    label: str
    name: str
    number: int | str | None = None


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
