"""Which class of one table is which of another: by what they are, not by where they stand."""

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

    The WordNet id decides, else the name or one of the names in a list such as "tench, Tinca tinca", else, with
    `as_folders`, the name as a folder is called; never the position. The first of them that means one row alone counts.
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
    """For each class of the set `name` its position in the test source's `wanted`.

    "name": by WordNet id or name alone. "auto": the same, but refused where the set numbers its classes in another
    order than the source (`numbered` False: its order means nothing). "index": by position, which the user vouches for.
    Raises MismatchError for classes that the source lacks, for two that are one, and for the refused order.
    """
    if matching not in MATCHINGS:
        raise unknown_choice("class matching", matching, MATCHINGS)
    if matching == "index":
        return _by_position(name, found, wanted)
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
            "if its classes stand in the source's order"
        )
    matched = [own[0] for own in rows]
    if len(set(matched)) < len(matched):
        raise MismatchError(f"two classes of {name} are one class of the test source; rename or merge them")
    if matching == "auto" and numbered and len(matched) == len(wanted) and matched != sorted(matched):
        at = next(i for i, row in enumerate(matched) if row != i)
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


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")


def match_table(name: str, table: Sequence[ClassInfo], texts: Mapping[str, str], place: str) -> dict[str, int | None]:
    """For every label of the data the row of `table`, or None for a class that the source leaves out.

    `texts` are the labels and what they are called. Data with all 1,000 classes of ImageNet may hold more classes than
    the table. Raises MismatchError with the missing, extra and ambiguous classes.
    """
    meant = dict(zip(texts, candidates(table, [ClassInfo(text) for text in texts.values()]), strict=True))
    _settle(meant)
    rows = {label: found[0] for label, found in meant.items() if len(found) == 1}
    ambiguous = [label for label, found in meant.items() if len(found) > 1]
    extra = [label for label, found in meant.items() if not found]
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


def _settle(meant: dict[str, list[int]]) -> None:
    """Take from ambiguous labels the rows that other labels mean beyond doubt."""
    certain = {found[0] for found in meant.values() if len(found) == 1}
    for label, found in meant.items():
        if len(found) > 1 and (left := [row for row in found if row not in certain]):
            meant[label] = left


def match_prior(name: str, table: Sequence[ClassInfo], classes: Sequence[ClassInfo]) -> tuple[ClassInfo, ...]:
    """The source's `classes`, in their order, each with its row in the `table` of the prior `name`.

    Raises MismatchError with the classes that the prior lacks or knows several of, and with those of the source that
    are one class to the prior.
    """
    found = candidates(table, classes)
    rows = [row[0] if row else None for row in found]
    for problem, wrong in (
        ("lacks", [not row for row in found]),
        ("knows several classes called like", [len(row) > 1 for row in found]),
        ("has one class for several", [row is not None and rows.count(row) > 1 for row in rows]),
    ):
        if any(wrong):
            names = [c.identity for c, bad in zip(classes, wrong, strict=True) if bad]
            raise MismatchError(
                f"the prior {name!r} {problem} {len(names)} of the {len(classes)} classes: {listed(names)}; choose a "
                "--prior that was trained on them, say its classes in its dmgd.json, or map the source's to them with "
                "--class-map FILE"
            )
    return tuple(ClassInfo(c.name, c.wnid, row) for c, row in zip(classes, rows, strict=True))
