"""Which class of one table is which of another: by what they are, not by where they stand."""

from collections.abc import Mapping, Sequence
from typing import Literal

from dmgd.classes.imagenet import imagenet_classes
from dmgd.classes.info import ClassIndex, ClassInfo
from dmgd.errors import MismatchError, listed, unknown_choice
from dmgd.files import safe_name

Matching = Literal["auto", "name", "index"]
MATCHINGS = ("auto", "name", "index")
NEXT_STEP = "map them with --class-map FILE (JSON or CSV: the data's label, then WordNet id or class name)"


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


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")


def match_table(name: str, table: Sequence[ClassInfo], texts: Mapping[str, str], place: str) -> dict[str, int | None]:
    """For every label of the data the row of `table`, or None for a class that the source leaves out.

    `texts` are the labels and what they are called. Data with all 1,000 classes of ImageNet may hold more classes than
    the table. Raises MismatchError with the missing, extra and ambiguous classes.
    """
    index = ClassIndex(table)
    candidates = {label: index.find(text) for label, text in texts.items()}
    _settle(candidates)
    rows = {label: found[0] for label, found in candidates.items() if len(found) == 1}
    ambiguous = [label for label, found in candidates.items() if len(found) > 1]
    extra = [label for label, found in candidates.items() if not found]
    whole = ClassIndex(imagenet_classes())
    if len(texts) == len(imagenet_classes()) and all(whole.find(text) for text in texts.values()):
        extra = []
    missing = [table[row].identity for row in sorted(set(range(len(table))) - set(rows.values()))]
    twice = sorted({label for label, row in rows.items() if list(rows.values()).count(row) > 1})
    problems = [
        f"{kind}: {listed(labels)}"
        for kind, labels in (
            ("missing", missing),
            ("extra", extra),
            ("ambiguous", ambiguous),
            ("two labels for one class", twice),
        )
        if labels
    ]
    if problems:
        raise MismatchError(f"the classes of {place} are not those of {name} ({'; '.join(problems)}); {NEXT_STEP}")
    return {label: rows.get(label) for label in texts}


def _settle(candidates: dict[str, list[int]]) -> None:
    """Take from ambiguous labels the rows that other labels mean beyond doubt."""
    certain = {found[0] for found in candidates.values() if len(found) == 1}
    for label, found in candidates.items():
        if len(found) > 1 and (left := [row for row in found if row not in certain]):
            candidates[label] = left
