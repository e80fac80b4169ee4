"""Finding a class by its WordNet id or one of its names. Standard library only."""

import re
from collections import defaultdict
from collections.abc import Sequence

from dmgd.records import ClassInfo

# Two classes of ImageNet are called "crane"; the Hub's ILSVRC/imagenet-1k tells the machine apart by this name.
ALIASES = {"crane2": "n03126707"}
_WNID = re.compile(r"n\d{8}")


def is_wnid(text: str) -> bool:
    """Whether `text` has the form of a WordNet id, such as n01440764."""
    return _WNID.fullmatch(text) is not None


class ClassIndex:
    """A table of classes that can be asked for rows by text; see `find`."""

    def __init__(self, classes: Sequence[ClassInfo]):
        self._exact: dict[str, list[int]] = defaultdict(list)
        self._loose: dict[str, list[int]] = defaultdict(list)
        for row, info in enumerate(classes):
            for key in {info.name, info.wnid} - {None}:
                self._exact[str(key)].append(row)
            for synonym in {_normal(part) for part in (info.name, *info.name.split(","))}:
                self._loose[synonym].append(row)

    def find(self, text: str) -> list[int]:
        """The rows that `text` may mean; more than one if it is ambiguous, none if it is unknown.

        A WordNet id or a class's whole name decides. Else each of the synonyms in a name like "tench, Tinca tinca"
        counts, whatever the case, and "_" for a blank.
        """
        text = ALIASES.get(text, text)
        return self._exact.get(text) or ([] if is_wnid(text) else self._loose.get(_normal(text), []))


def _normal(text: str) -> str:
    return " ".join(text.replace("_", " ").casefold().split())


def listed(items: Sequence[str], most: int = 10) -> str:
    """The first few `items`, and how many more there are."""
    return ", ".join(items[:most]) + (f", … ({len(items) - most} more)" if len(items) > most else "")
