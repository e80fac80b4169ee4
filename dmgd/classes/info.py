"""A class, and an index of classes by WordNet id and by name."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

# Two classes of ImageNet are called "crane"; the Hub's ILSVRC/imagenet-1k calls the machine "crane2".
ALIASES = {"crane2": "n03126707"}
_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class ClassInfo:
    """One class: its readable name, its WordNet id if it has one, and its row in the prior's label table."""

    name: str
    wnid: str | None = None
    prior_index: int | None = None

    @property
    def identity(self) -> str:
        """The WordNet id, or else the name: identifies the class in any source or prior."""
        return self.wnid or self.name

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "ClassInfo":
        return cls(**fields)


def is_wnid(text: str) -> bool:
    """Whether `text` looks like a WordNet id, such as n01440764."""
    return _WNID.fullmatch(text) is not None


class ClassIndex:
    """An index of a class table by text; see `find`."""

    def __init__(self, classes: Sequence[ClassInfo]):
        self._exact: dict[str, list[int]] = defaultdict(list)
        self._loose: dict[str, list[int]] = defaultdict(list)
        for row, info in enumerate(classes):
            for key in {info.name, info.wnid} - {None}:
                self._exact[composed(str(key))].append(row)
            for synonym in {_normal(part) for part in (info.name, *info.name.split(","))}:
                self._loose[synonym].append(row)

    def find(self, text: str) -> list[int]:
        """The rows that `text` may mean; several if it is ambiguous, none if it is unknown.

        Exact matches of a WordNet id or a whole name come first, then those of a synonym in a name such as "tench,
        Tinca tinca", ignoring case, with "_" as a blank.
        """
        text = composed(ALIASES.get(text, text))
        return self._exact.get(text) or ([] if is_wnid(text) else self._loose.get(_normal(text), []))


def _normal(text: str) -> str:
    return composed(" ".join(text.replace("_", " ").casefold().split()))


def natural_key(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """A sort key that puts "class 10" after "class 9", and gives "1" and "01" an order, too."""
    # The number of digits and then the digits: their order is that of the numbers, however long they are.
    key = []
    for part in filter(None, re.split(r"([0-9]+)", text)):
        digits = part.lstrip("0")
        key.append((0, len(digits), digits) if part[0] in "0123456789" else (1, 0, part))
    return key, text


def composed(text: str) -> str:
    """The text with letters and accents composed (NFC): names that look the same are then equal."""
    return unicodedata.normalize("NFC", text)
