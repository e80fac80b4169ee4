"""A prior's label table as its files list it: `classes` in dmgd.json, or `id2label` as the Hub's configs have it."""

from collections.abc import Sequence
from typing import Any

from dmgd.classes.imagenet import imagenet_classes
from dmgd.classes.info import ClassIndex, ClassInfo
from dmgd.errors import UsageError

ALIKE = 0.9  # of ImageNet's names in their places, whatever the spelling of the others


def class_table(listed: Any) -> tuple[ClassInfo, ...]:
    """The classes of a description, row by row. Raises UsageError for anything else, and for a class listed twice."""
    rows, seen = _by_row(listed), dict[str, ClassInfo]()
    for row, one in enumerate(rows):
        fields = {"name": one} if isinstance(one, str) else dict(one) if isinstance(one, dict) else {}
        own_row = fields.pop("prior_index", None) in (None, row)
        name, wnid = fields.pop("name", None), fields.pop("wnid", None)
        if fields or not own_row or not (isinstance(name, str) and name and isinstance(wnid, str | None)):
            raise UsageError(f'classes must be names, or objects of "name" and "wnid"; row {row} is {one!r}')
        if (info := ClassInfo(name, wnid)).identity in seen:
            raise UsageError(f"classes has {info.identity!r} twice; every row needs a name of its own")
        seen[info.identity] = info
    return tuple(seen.values())


def labelled(id2label: Any) -> tuple[ClassInfo, ...] | None:
    """The classes of an `id2label`, an object by row or a list of names; ImageNet's own if it names these in their
    order; None if it is empty or has the names "LABEL_0", … that stand for none. Raises UsageError as `class_table`."""
    rows = _by_row(id2label)
    if all(one == f"LABEL_{row}" for row, one in enumerate(rows)):
        return None
    own = imagenet_classes()
    if len(rows) == len(own):
        index = ClassIndex(own)
        alike = [
            any(row in index.find(part) for part in (str(one), *str(one).split(","))) for row, one in enumerate(rows)
        ]
        if sum(alike) >= ALIKE * len(own):
            return own
    return class_table(rows)


def _by_row(listed: Any) -> Sequence[Any]:
    if isinstance(listed, dict):
        if lacking := [row for row in range(len(listed)) if str(row) not in listed]:
            raise UsageError(f"classes by row must be numbered from 0 without gaps; row {lacking[0]} is not there")
        listed = [listed[str(row)] for row in range(len(listed))]
    if not isinstance(listed, list):
        raise UsageError(f"classes must be a list of names, or an object of them by row, not {listed!r}")
    return listed
