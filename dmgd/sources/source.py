"""What every source is."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL.Image import Image

from dmgd.classes.info import ClassInfo
from dmgd.specs import SourceSpec


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
