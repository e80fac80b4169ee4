"""Sources and layouts: a source is a labelled dataset, a layout how it is stored."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from PIL.Image import Image

from dmgd.classes.info import ClassInfo
from dmgd.errors import UsageError
from dmgd.images import readable
from dmgd.specs import SourceSpec

TEST_NAMES = ("val", "validation", "test")  # ImageNet's "test" has no labels, so it comes last

Label = TypeVar("Label", int, str)


@dataclass(frozen=True)
class SourceImage(Generic[Label]):
    """One image before it is decoded: its file's bytes or path, or pixels.

    `label` is the class index in a source, the data's own label in a layout. `name` identifies the image in messages.
    `number` is the class number, unchecked, where the data has one beside a class name.
    """

    image: "bytes | Path | Image"
    label: Label
    name: str
    number: int | str | None = None


class Source(ABC):
    """A labelled image dataset: `spec` reopens it; `name` holds no local path; `licence` is one line on its terms."""

    spec: SourceSpec
    name: str
    variant: str
    licence: str
    classes: tuple[ClassInfo, ...]

    def __repr__(self) -> str:
        return f"Source('{self.name}', {len(self.classes)} classes, {self.variant})"

    @abstractmethod
    def images(self, split: str) -> Iterator[SourceImage[int]]:
        """The images of "train" or "test" in a fixed order. Raises UsageError for a split that the source lacks."""

    @abstractmethod
    def fingerprint(self, split: str) -> str:
        """A digest that changes when the split's files do; cheap, and valid on this machine only."""

    def decoded(self, split: str) -> Iterator[tuple[Image, int]]:
        """The readable images of the split, decoded, with their class indices, in the order of `images`."""
        return readable((one.image, one.label) for one in self.images(split))


class Layout(Protocol):
    """Images with the data's own labels. `location` (a path, a pattern or a Hub id) identifies the data in messages."""

    @property
    def location(self) -> str: ...

    @property
    def has_test(self) -> bool: ...

    def labels(self) -> list[str]:
        """The distinct labels of the training split, classes without images included."""

    def images(self, split: str, skip: Collection[str] = ()) -> Iterator[SourceImage[str]]:
        """The images of "train" or "test" whose label is not in `skip`, in a fixed order. Raises UsageError for a split
        that the data lacks."""

    def fingerprint(self, split: str) -> str:
        """A digest that changes when the split's files do."""


def missing_split(location: str, split: str) -> UsageError:
    """The error for data without a test split."""
    looked = " or ".join(TEST_NAMES)
    return UsageError(f"{location} has no {split} split ({looked}); give one with --test-data PATH")


def fingerprint_files(root: Path, files: Iterable[Path]) -> str:
    """A digest of the files' paths below `root`, sizes and modification times; their content is not read."""
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        digest.update(f"{file.relative_to(root)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
