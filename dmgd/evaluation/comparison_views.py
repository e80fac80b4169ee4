"""A comparison's JSON as tables: accuracy, differences, DD-Ranking, students, cost, published figures."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from dmgd.evaluation.contrasts import RANDOM, STRONGEST
from dmgd.evaluation.planned_set import OWN, in_mosaics
from dmgd.evaluation.significance import LEVEL, is_significant, shown_p
from dmgd.evaluation.table_layout import (
    NONE,
    Column,
    JsonRow,
    Table,
    column_groups,
    shown_bytes,
    shown_ipc,
    shown_pooled,
    side_by_side,
)

MEASURES = {
    "last epoch": "Top-1 %, last epoch",
    "best epoch": "Top-1 %, best epoch",
    "% of full": "Top-1 in % of that of all images",
}
MOSAICS = (
    "2×2: a stored image is a mosaic of 2×2 images at half their side, on which networks are trained one by one. IPC "
    "counts stored images. Mosaics are compared with selections in equal mosaics, and with what the same method is "
    "without them."
)
LABELS = (
    "soft: trained on a teacher's stored logits of each image, soft-N: of N views of each, in turn. These are compared "
    "with selections that have equal labels, and with the same images and the protocol's labels."
)
SCORES = {"hlr": "HLR ↓", "ior": "IOR ↑", "lrs": "LRS % ↑", "ars": "ARS % ↑"}


def main_tables(result: dict[str, Any]) -> list[Table]:
    """Those of `tables` that answer the question: the accuracies, and the order of the students."""
    return [table for table in [*_accuracies(result), *_students(result["students"])] if table.rows]


def tables(result: dict[str, Any]) -> list[Table]:
    """The tables of a comparison, accuracies first. Those that would say nothing are left out."""
    rows = result["rows"]
    made = _accuracies(result)
    by_group: dict[str, list[JsonRow]] = {}
    for row in rows:
        by_group.setdefault(f"{row['protocol']}, {row['network']}", []).append(row)
    made += _noted_once(_differences(own, name, result["tests"]["count"]) for name, own in by_group.items())
    made += _noted_once(_dd_ranking(own, name) for name, own in by_group.items())
    made += [*_students(result["students"]), _sizes(rows), *_seconds(rows), _published(rows)]
    return [table for table in made if table.rows]


def _noted_once(made: Iterable[Table]) -> list[Table]:
    """The tables that have rows, without notes that an earlier one has."""
    kept: list[Table] = []
    for table in made:
        known = {note for other in kept for note in other.notes}
        if table.rows:
            kept.append(replace(table, notes=tuple(note for note in table.notes if note not in known)))
    return kept


def _accuracies(result: dict[str, Any]) -> list[Table]:
    """Hard and soft labels, or all networks, side by side."""
    rows, tests = result["rows"], result["tests"]["count"]
    usual = Counter(row["top1"]["n"] for row in rows).most_common(1)[0][0]
    made = []
    for name, columns in column_groups(rows):
        if len(columns) == 1:
            title = f"Top-1 %, {name}"
            made += side_by_side(title, rows, [_measure(measure, columns[0][1], usual) for measure in MEASURES])
            continue
        for measure, title in MEASURES.items():
            shown = [replace(_measure(measure, group, usual), title=label) for label, group in columns]
            made += side_by_side(f"{title}, {name}", rows, shown)
    tested = (
        f"* significantly above random, † above the strongest selection (p < {LEVEL} by Holm over {tests} comparisons)."
        if tests
        else "No difference could be tested."
    )
    notes = [f"Mean ± population standard deviation over n = {usual} trainings, unless another n is given.", tested]
    if any(row["tiles"] > 1 for row in rows):
        notes.append(MOSAICS)
    if any(row["labels"] != OWN for row in rows):
        notes.append(LABELS)
    return [replace(made[0], notes=(*notes, *_budgets(rows))), *made[1:]]


def _measure(measure: str, group: tuple[str, str], usual: int) -> Column:
    """A column of MEASURES. Numbers of trainings other than the usual one are shown."""

    def last(row: JsonRow) -> str:
        return shown_pooled(row["top1"], usual) + _marks(row)

    def best(row: JsonRow) -> str:
        return shown_pooled(row["top1_best_epoch"], usual)

    def of_full(row: JsonRow) -> str:
        return NONE if row["of_full"] is None else f"{row['of_full']:.1f}"

    if measure == "last epoch":
        return Column(measure, group, last, lambda row: row["top1"]["mean"])
    return Column(measure, group, best if measure == "best epoch" else of_full)


def _marks(row: JsonRow) -> str:
    """ "*" where the row is significantly above random, "†" where it is above the strongest selection."""
    above = {title for title, one in row["against"].items() if is_significant(one) and one["difference"] > 0}
    return "*" * (RANDOM in above) + "†" * (STRONGEST in above)


def _budgets(rows: Sequence[JsonRow]) -> list[str]:
    """The terms of every protocol, and the batch, epochs and steps of every IPC."""
    lengths: dict[str, dict[str, None]] = {}
    for row in rows:
        one = row["budget"]
        terms = f"{one['size']} pixels, {one['optimizer']}, {' + '.join(one['augmentation'])}, {one['loss']} labels"
        if one["teacher"]:
            terms += f" of {one['teacher']['name']} ({one['teacher']['top1']:.1f} %)"
        length = f"{one['epochs']:,} epochs, {one['steps']:,} steps of {one['batch']}"
        of = in_mosaics(f"IPC {shown_ipc(row['ipc'])}", row["tiles"], " of ")
        lengths.setdefault(f"{row['protocol']}: {terms}", {})[f"{of}: {length}"] = None
    return [f"{terms}; {'; '.join(each)}." for terms, each in lengths.items()]


def _differences(rows: Sequence[JsonRow], label: str, tests: int) -> Table:
    lines = []
    for row in rows:
        for one in {one["name"]: one for one in row["against"].values()}.values():
            mark = "*" if is_significant(one) else ""
            interval = "no test" if one["interval"] is None else "{:+.1f} to {:+.1f}".format(*one["interval"])
            shown = f"{one['difference']:+.1f}{mark}", interval, shown_p(one["p_holm"])
            lines.append((row["method"], shown_ipc(row["ipc"]), one["name"], *shown))
    notes = (
        "Against random and against the strongest selection of real images, the one with the highest mean; once, if "
        "that is random.",
        f"Student's t, paired by the seed of the set; p corrected by Holm over {tests} comparisons; * p < {LEVEL}."
        if tests
        else "No test: there is only one seed, or the differences are equal.",
    )
    columns = ("method", "IPC", "against", "points", "95 % interval", "p (Holm)")
    return Table(f"Difference in top-1, {label}", columns, tuple(lines), notes)


def _dd_ranking(rows: Sequence[JsonRow], label: str) -> Table:
    known = [name for name in SCORES if any(row[name] for row in rows)]
    own = [row for row in rows if any(row[name] for name in known)]
    usual = max((row[name]["n"] for row in own for name in known if row[name]), default=0)
    lines = [(row["method"], shown_ipc(row["ipc"]), *(shown_pooled(row[name], usual) for name in known)) for row in own]
    notes = (
        "HLR: all images − set, with hard labels; IOR: set − random; in points. LRS combines both, ARS the gains over "
        f"random with and without augmentation (DD-Ranking). Mean ± population standard deviation over the n = {usual} "
        "seeds of the set.",
    )
    return Table(f"DD-Ranking, {label}", ("method", "IPC", *(SCORES[name] for name in known)), tuple(lines), notes)


def _students(students: Sequence[dict[str, Any]]) -> list[Table]:
    made = []
    for protocol in dict.fromkeys(one["protocol"] for one in students):
        own = [one for one in students if one["protocol"] == protocol and one["tau"] is not None]
        lines = tuple(
            (one["method"], shown_ipc(one["ipc"]), f"{one['tau']:+.2f}", f"{len(one['swapped'])} of {one['pairs']}")
            for one in own
        )
        orders = [f"On all images: {' > '.join(one['order_full'])}." for one in own[:1]]
        swaps = [
            f"{one['method']}, IPC {one['ipc']} swaps {', '.join(' and '.join(pair) for pair in one['swapped'])}."
            for one in own
            if one["swapped"]
        ]
        title = f"Order of the networks on the set and on all images, {protocol}"
        made.append(Table(title, ("method", "IPC", "Kendall's τ", "swapped pairs"), lines, (*orders, *swaps)))
    return made


def _sizes(rows: Sequence[JsonRow]) -> Table:
    largest: dict[tuple[str, str], JsonRow] = {}
    for row in sorted(rows, key=lambda row: -row["label_bytes"]):
        largest.setdefault((row["method"], row["ipc"]), row)
    own = [largest[line] for line in dict.fromkeys((row["method"], row["ipc"]) for row in rows)]
    lines = tuple(
        (
            *(row["method"], shown_ipc(row["ipc"]), _images(row), f"{row['pixels']:,}"),
            *(shown_bytes(row["image_bytes"]), shown_bytes(row["label_bytes"])),
        )
        for row in own
    )
    return Table("Size of a set", ("method", "IPC", "images", "pixels", "image files", "soft labels"), lines)


def _images(row: JsonRow) -> str:
    return f"{row['images']:,}" if row["tiles"] == 1 else f"{row['images']:,} parts in {row['stored_images']:,}"


def _seconds(rows: Sequence[JsonRow]) -> list[Table]:
    def of(stage: str) -> Callable[[JsonRow], str]:
        return lambda row: f"{row['seconds'][stage]:.1f}" if row["seconds"][stage] else NONE

    first = (rows[0]["protocol"], rows[0]["network"])
    stages = [Column(stage, first, of(stage)) for stage in rows[0]["seconds"] if stage != "training"]
    groups = column_groups(rows)
    if len(groups) == 1 and len(groups[0][1]) == 1:
        return side_by_side(
            "Seconds for a set and for a training", rows, [*stages, Column("training", first, of("training"))]
        )
    made = side_by_side("Seconds for a set", rows, stages)
    for name, columns in groups:
        training = [Column(label, group, of("training")) for label, group in columns]
        made += side_by_side(f"Seconds for a training, {name}", rows, training)
    return made


def _published(rows: Sequence[JsonRow]) -> Table:
    lines, terms, remarks = [], dict[str, None](), dict[str, str]()
    for row in rows:
        for one in row["published"]:
            number = one["note"] and remarks.setdefault(one["note"], f" [{len(remarks) + 1}]")
            here = (shown_pooled(row[name], row[name] and row[name]["n"]) for name in ("top1", "top1_best_epoch"))
            lines.append((row["method"], shown_ipc(row["ipc"]), row["protocol"], *here, f"{one['value']:.1f}{number}"))
            terms[f"Published with {one['source']}; papers report the best epoch."] = None
    columns = ("method", "IPC", "protocol", "last epoch", "best epoch", "published")
    notes = (*terms, *(f"{number.strip()} {note}." for note, number in remarks.items()))
    return Table("Top-1 % here and as published", columns, tuple(lines), notes)
