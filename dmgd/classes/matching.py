"""The one matcher of classes between tables: by identity, never by position."""

import re
import shlex
from collections.abc import Mapping, Sequence

from dmgd.classes.imagenet import imagenet_classes
from dmgd.classes.info import ClassIndex, ClassInfo
from dmgd.errors import MismatchError, listed, unknown_choice
from dmgd.files import safe_name

MATCHINGS = ("auto", "name", "index")
NEXT_STEP = "map them with --class-map FILE (JSON or CSV: the data's label, then WordNet id or class name)"


def candidates(
    table: Sequence[ClassInfo], classes: Sequence[ClassInfo], *, as_folders: bool = False
) -> list[list[int]]:
    """The rows of `table` that each of `classes` may mean: one, several if it is ambiguous, none if it is unknown.

    Tried in order: WordNet id, name (or a synonym in it) and, with `as_folders`, folder name; the first that matches a
    single row is used.
    """
    index = ClassIndex(table)
    folders = ClassIndex([ClassInfo(safe_name(info.name)) for info in table] if as_folders else [])

    def rows(info: ClassInfo) -> list[int]:
        found = [index.find(info.identity), index.find(info.name), folders.find(safe_name(info.name))]
        return next((rows for rows in found if len(rows) == 1), next(filter(None, found), []))

    return [rows(info) for info in classes]


def match_labels(
    name: str,
    found: Sequence[ClassInfo],
    wanted: Sequence[ClassInfo],
    matching: str = "auto",
    *,
    numbered: bool = True,
) -> list[int]:
    """For each of the classes `found` in the set `name` its index in the test source's `wanted`.

    "name": by WordNet id or name. "auto": the same, but a set that numbers its classes in another order than the source
    is refused (`numbered` False: its order means nothing). "index": by position.
    Raises MismatchError for classes that the source lacks, for two that match the same one, and for a refused order.
    """
    if matching not in MATCHINGS:
        raise unknown_choice("class matching", matching, MATCHINGS)
    if matching == "index":
        if len(found) != len(wanted):
            raise MismatchError(
                f"{name} has {len(found)} classes, the test source {len(wanted)}; they cannot be matched by position"
            )
        _check_numbers(name, [info.name for info in found])
        return list(range(len(found)))
    rows = candidates(wanted, found, as_folders=True)
    missing = [
        f"{info.identity} (ambiguous)" if own else info.identity
        for info, own in zip(found, rows, strict=True)
        if len(own) != 1
    ]
    if missing:
        raise MismatchError(
            f"{name} has {len(missing)} classes that the test source lacks: {_listed(missing)} (it has: "
            f"{_listed([info.identity for info in wanted])}); choose the right --source, or give --classes index "
            "if its classes are in the source's order"
        )
    matched = [own[0] for own in rows]
    if len(set(matched)) < len(matched):
        raise MismatchError(f"two classes of {name} match the same class of the test source; rename or merge them")
    if matching == "auto" and numbered and len(matched) == len(wanted) and matched != sorted(matched):
        at = next(i for i, row in enumerate(matched) if row != i)
        raise MismatchError(
            f"{name} numbers its classes in another order than the test source: number {at} is "
            f"{found[at].identity!r} there and {wanted[at].identity!r} in the source; give --classes name to match "
            "them by name, or --classes index if its names are wrong and its numbers right"
        )
    return matched


def _check_numbers(name: str, names: Sequence[str]) -> None:
    """Raise MismatchError if the names are all numbers, in order, and one between them is missing."""
    if all(re.fullmatch("[0-9]{1,9}", one) for one in names):
        numbers = [int(one) for one in names]
        gap = next((n for n, one in enumerate(numbers, numbers[0]) if n != one), None)
        if numbers == sorted(numbers) and gap is not None:
            raise MismatchError(
                f"{name} lacks the class {gap}, but has {numbers[gap - numbers[0]]}; its classes cannot be matched by "
                "position"
            )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")


def match_table(
    name: str, table: Sequence[ClassInfo], texts: Mapping[str, str], location: str
) -> dict[str, int | None]:
    """For every label of the data its row in `table`, or None for a class that the source leaves out.

    `texts` maps labels to class names or ids. Only data with all 1,000 classes of ImageNet may have more classes than
    the table. Raises MismatchError, listing the missing, extra and ambiguous classes.
    """
    rows_of = dict(zip(texts, candidates(table, [ClassInfo(text) for text in texts.values()]), strict=True))
    _disambiguate(rows_of)
    rows = {label: found[0] for label, found in rows_of.items() if len(found) == 1}
    ambiguous = [label for label, found in rows_of.items() if len(found) > 1]
    extra = [label for label, found in rows_of.items() if not found]
    whole = ClassIndex(imagenet_classes())
    if len(texts) == len(imagenet_classes()) and all(whole.find(text) for text in texts.values()):
        extra = []
    missing = [table[row].identity for row in sorted(set(range(len(table))) - set(rows.values()))]
    twice = sorted({label for label, row in rows.items() if list(rows.values()).count(row) > 1})
    wrong = {"missing": missing, "extra": extra, "ambiguous": ambiguous, "two labels for one class": twice}
    if problems := [f"{kind}: {listed(labels)}" for kind, labels in wrong.items() if labels]:
        raise MismatchError(f"the classes of {location} are not those of {name} ({'; '.join(problems)}); {NEXT_STEP}")
    return {label: rows.get(label) for label in texts}


def _disambiguate(rows_of: dict[str, list[int]]) -> None:
    """Remove from ambiguous labels the rows that other labels match unambiguously, in place."""
    certain = {found[0] for found in rows_of.values() if len(found) == 1}
    for label, found in rows_of.items():
        if len(found) > 1 and (left := [row for row in found if row not in certain]):
            rows_of[label] = left


def match_prior(
    name: str, table: Sequence[ClassInfo], classes: Sequence[ClassInfo], *, source: str = "SOURCE"
) -> tuple[ClassInfo, ...]:
    """The classes of the `source`, in their order, each with its row in the `table` of the prior `name`.

    Raises MismatchError, listing the classes that the prior lacks, that are ambiguous, or that share a row.
    """
    found = candidates(table, classes)
    rows = [row[0] if row else None for row in found]
    for problem, wrong in (
        ("lacks", [not row for row in found]),
        ("has several classes for the names of", [len(row) > 1 for row in found]),
        ("has the same class for", [rows.count(row) > 1 for row in rows]),
    ):
        if any(wrong):
            names = [c.identity for c, bad in zip(classes, wrong, strict=True) if bad]
            raise MismatchError(
                f"the prior {name!r} {problem} {len(names)} of the {len(classes)} classes: {listed(names)}; choose a "
                "--prior that was trained on them, or is told classes by prompts, as sd15 is; list its classes in its "
                "dmgd.json; map the source's to them with --class-map FILE; or train one: dmgd train-prior --source "
                f"{shlex.quote(source)} --out my-prior"
            )
    return tuple(ClassInfo(c.name, c.wnid, row) for c, row in zip(classes, rows, strict=True))
