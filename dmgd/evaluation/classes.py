"""Matching the classes of a set to those of the test source: by what they are, not by where they stand."""

import re
from collections.abc import Sequence
from typing import Literal

from dmgd.classnames import ClassIndex
from dmgd.errors import MismatchError, unknown_choice
from dmgd.files import safe_name
from dmgd.records import ClassInfo

Matching = Literal["auto", "name", "index"]
MATCHINGS = ("auto", "name", "index")

_NUMBERED = re.compile(r"(\d{3,})-(.+)")


def match_labels(
    name: str,
    found: Sequence[ClassInfo],
    wanted: Sequence[ClassInfo],
    matching: str = "auto",
    *,
    numbered: bool = True,
) -> list[int]:
    """For each class of the set `name` its position in the test source's `wanted`.

    "name": by WordNet id or name alone. "auto": the same, but refused where the set numbers its classes in another
    order than the source (`numbered` False: its order means nothing). "index": by position, which the user vouches for.
    Raises MismatchError for classes that the source lacks, for two that are one, and for the refused order.
    """
    if matching not in MATCHINGS:
        raise unknown_choice("class matching", matching, MATCHINGS)
    if matching == "index":
        return _by_position(name, found, wanted)
    index = ClassIndex(wanted)
    by_folder = ClassIndex([ClassInfo(safe_name(info.name)) for info in wanted])
    places = [_place(info, index, by_folder) for info in found]
    missing = [
        f"{info.identity} (ambiguous)" if index.find(info.name) else info.identity
        for info, place in zip(found, places, strict=True)
        if place is None
    ]
    if missing:
        raise MismatchError(
            f"{name} has {len(missing)} classes that the test source lacks: {_listed(missing)} (it has: "
            f"{_listed([info.identity for info in wanted])}); choose the right --source, or give --classes index "
            "if its classes stand in the source's order"
        )
    matched = [place for place in places if place is not None]
    if len(set(matched)) < len(matched):
        raise MismatchError(f"two classes of {name} are one class of the test source; rename or merge them")
    if matching == "auto" and numbered and len(matched) == len(wanted) and matched != sorted(matched):
        at = next(i for i, place in enumerate(matched) if place != i)
        raise MismatchError(
            f"{name} numbers its classes in another order than the test source: number {at} is "
            f"{found[at].identity!r} there and {wanted[at].identity!r} in the source; give --classes name to match "
            "them by name, or --classes index if its names are wrong and its numbers right"
        )
    return matched


def _by_position(name: str, found: Sequence[ClassInfo], wanted: Sequence[ClassInfo]) -> list[int]:
    if len(found) != len(wanted):
        raise MismatchError(
            f"{name} has {len(found)} classes, the test source {len(wanted)}; they cannot be matched by position"
        )
    return list(range(len(found)))


def _place(info: ClassInfo, index: ClassIndex, by_folder: ClassIndex) -> int | None:
    """The one class that the WordNet id means, or else the name, as it is or as a folder is called; or None."""
    candidates = (index.find(info.wnid or ""), index.find(info.name), by_folder.find(safe_name(info.name)))
    return next((rows[0] for rows in candidates if len(rows) == 1), None)


def folder_class(folder: str) -> tuple[int | None, str]:
    """The number and the name in a class folder's name: "0003-cat" is (3, "cat"), "cat" is (None, "cat")."""
    numbered = _NUMBERED.fullmatch(folder)
    return (int(numbered[1]), numbered[2]) if numbered else (None, folder)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
