"""A class, and an index of classes by WordNet id and by name."""

import re
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
                self._exact[str(key)].append(row)
            for synonym in {_normal(part) for part in (info.name, *info.name.split(","))}:
                self._loose[synonym].append(row)

    def find(self, text: str) -> list[int]:
        """The rows that `text` may mean; several if it is ambiguous, none if it is unknown.

        Exact matches of a WordNet id or a whole name come first, then those of a synonym in a name such as "tench,
        Tinca tinca", ignoring case, with "_" as a blank.
        """
        text = ALIASES.get(text, text)
        return self._exact.get(text) or ([] if is_wnid(text) else self._loose.get(_normal(text), []))


def _normal(text: str) -> str:
    return " ".join(text.replace("_", " ").casefold().split())


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """A sort key that puts "class 10" after "class 9"."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]
