"""Tables of text, the same for every format, and how numbers are written in them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dmgd.evaluation.significance import plus_minus

WIDTH = 80  # columns of a terminal
NONE = "–"
JsonRow = dict[str, Any]  # a row of bench.json


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first column is the method, the second the IPC. `best` are the (row, column) of the highest
    accuracies, `notes` what a reader must know."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    best: frozenset[tuple[int, int]] = frozenset()

    @property
    def width(self) -> int:
        """The columns that it takes in a terminal."""
        return sum(max(map(len, cells)) + 3 for cells in zip(self.columns, *self.rows, strict=True)) + 1

    @property
    def section_ends(self) -> frozenset[int]:
        """The rows after which another IPC begins."""
        return frozenset(i for i in range(len(self.rows) - 1) if self.rows[i][1] != self.rows[i + 1][1])


@dataclass(frozen=True)
class Column:
    """A column for the rows of one protocol and network: the text of a row, and its value if the highest is best."""

    title: str
    group: tuple[str, str]
    text: Callable[[JsonRow], str]
    value: Callable[[JsonRow], float | None] = lambda row: None


def column_groups(rows: Sequence[JsonRow]) -> list[tuple[str, list[tuple[str, tuple[str, str]]]]]:
    """What to show side by side: all networks of the only protocol, or for each network all protocols, those with hard
    and soft labels. Each is a name, and the titles and (protocol, network) of its columns."""
    groups = list(dict.fromkeys((row["protocol"], row["network"]) for row in rows))
    apart = 1 if len({protocol for protocol, _ in groups}) > 1 else 0
    names = dict.fromkeys(group[apart] for group in groups)
    together = [(name, [(group[1 - apart], group) for group in groups if group[apart] == name]) for name in names]
    return [(name if len(own) > 1 else ", ".join(own[0][1]), own) for name, own in together]


def side_by_side(title: str, rows: Sequence[JsonRow], columns: Sequence[Column]) -> list[Table]:
    """A line for every method and IPC that there is in one of the columns; as many tables as are needed to fit a
    terminal. Columns without a value are left out."""
    groups = {column.group for column in columns}
    lines = list(dict.fromkeys((r["method"], r["ipc"]) for r in rows if (r["protocol"], r["network"]) in groups))
    by_place = {(row["method"], row["ipc"], row["protocol"], row["network"]): row for row in rows}
    made: list[Table] = []
    for column in columns:
        own = [by_place.get((*line, *column.group)) for line in lines]
        cells = [column.text(row) if row else NONE for row in own]
        if set(cells) == {NONE}:
            continue
        wider = _with_column(made[-1], column, cells, own) if made else None
        if wider and wider.width <= WIDTH:
            made[-1] = wider
        else:
            made.append(_with_column(_without_columns(title, lines), column, cells, own))
    return made


def _without_columns(title: str, lines: Sequence[tuple[str, int | None]]) -> Table:
    return Table(title, ("method", "IPC"), tuple((method, shown_ipc(ipc)) for method, ipc in lines))


def _with_column(table: Table, column: Column, cells: Sequence[str], rows: Sequence[JsonRow | None]) -> Table:
    values = [column.value(row) if row else None for row in rows]
    best = set()
    for ipc in {line[1] for line in table.rows}:
        own = {i: v for i, v in enumerate(values) if v is not None and table.rows[i][1] == ipc}
        if len(own) > 1:
            best |= {(i, len(table.columns)) for i, value in own.items() if value == max(own.values())}
    widened = tuple((*line, cell) for line, cell in zip(table.rows, cells, strict=True))
    return Table(table.title, (*table.columns, column.title), widened, table.notes, table.best | best)


def shown_ipc(ipc: int | None) -> str:
    return "all" if ipc is None else str(ipc)


def shown_pooled(value: dict[str, Any] | None, usual: int | None = None) -> str:
    """Mean ± standard deviation, the mean alone if it is of one; with n, unless it is `usual`; a dash for None."""
    if value is None:
        return NONE
    text = f"{value['mean']:.1f}" if value["n"] == 1 else plus_minus(value)
    return text if value["n"] == usual else f"{text} (n {value['n']})"


def shown_bytes(count: int) -> str:
    """Bytes in decimal units."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 1000:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} TB"
