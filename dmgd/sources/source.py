"""What every source is, and the way from the name a user types to one."""

from collections.abc import Iterator
from typing import Protocol

from PIL.Image import Image

from dmgd.errors import unknown_choice
from dmgd.records import ClassInfo

NAMES = ("digits",)


class Source(Protocol):
    """A labelled image dataset.

    `name` is what the user asked for, `variant` which of its editions this is, `licence` a line on its terms.
    """

    name: str
    variant: str
    licence: str
    classes: tuple[ClassInfo, ...]

    def samples(self, split: str) -> Iterator[tuple[Image, int]]:
        """The images of "train" or "test" and their class indices, always in the same order."""

    def fingerprint(self, split: str) -> str:
        """A digest of the split's images and labels."""


def open_source(name: str) -> Source:
    """The source called `name`. Raises UsageError for an unknown name."""
    from dmgd.sources.digits import digits_source

    if name == "digits":
        return digits_source()
    raise unknown_choice("source", name, NAMES)
