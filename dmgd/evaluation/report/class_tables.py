"""How accuracy differs between classes: a heat table, and which classes are taken for which."""

from collections.abc import Sequence
from html import escape

import numpy as np

from dmgd.evaluation.report.charts import Line, plot
from dmgd.evaluation.report.page import folded, grid, scrolled
from dmgd.evaluation.report.rows import Row, first_synonyms

MATRIX_CLASSES = 30
MOST_MATRICES = 8
LONGEST = 20  # letters of a class beside a matrix


def class_accuracies(rows: Sequence[Row], names: Sequence[str], shown: Sequence[int]) -> str:
    """Classes by methods, the worst class (by the mean of all rows) first; the darker, the worse. Of more classes than
    are `shown`, a chart of all of them follows the table."""
    values = np.array([row.json["per_class"] for row in rows])
    best, extent = values[:, list(shown)].max(), max(np.ptp(values[:, list(shown)]), 1e-9)
    order = sorted(shown, key=lambda c: (values[:, c].mean(), c))
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("class", *(row.name for row in rows)))
    body = "".join(
        f'<tr><th scope="row">{escape(names[c])}</th>'
        + "".join(f'<td style="--a:{(best - value) / extent:.2f}">{value:.1f}</td>' for value in values[:, c])
        + "</tr>"
        for c in order
    )
    table = scrolled(
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>", "Accuracy of each class in %", "wide tall", "heat"
    )
    return table + (_sorted_classes(rows, values) if len(shown) < len(names) else "")


def _sorted_classes(rows: Sequence[Row], values: np.ndarray) -> str:
    count = values.shape[1]
    at = np.unique(np.linspace(0, count - 1, min(count, 200)).round().astype(int))
    lines = [
        Line(
            row.name,
            row.colour,
            [(float(i) / (count - 1), float(y)) for i, y in zip(at, np.sort(own)[at], strict=True)],
        )
        for row, own in zip(rows, values, strict=True)
    ]
    ends = [(part / 4, f"{max(1, round(count * part / 4)):,}") for part in range(5)]
    caption = f"All {count:,} classes, each method's from its worst to its best"
    return plot(lines, caption, "rank of the class", "accuracy, %", ends)


def confusions(rows: Sequence[Row], names: Sequence[str]) -> str:
    """What was taken for what, of the first two rows side by side, and folded away of the others: as a matrix, or of
    more than 30 classes as a list of pairs."""
    shown = [
        (f"Confusion of {row.name}", (_matrix if len(names) <= MATRIX_CLASSES else _pairs)(row, names))
        for row in rows[:MOST_MATRICES]
    ]
    open_ones = "".join(f"<div><h3>{escape(title)}</h3>{content}</div>" for title, content in shown[:2])
    return f'<div class="groups">{open_ones}</div>{"".join(folded(*one) for one in shown[2:])}'


def _matrix(row: Row, names: Sequence[str]) -> str:
    """Rows are true classes, columns predicted ones, cells per cent of the true class, with the counts on hover."""
    counts, called = np.array(row.json["confusion"]), first_synonyms(names)
    heads = [f' title="{escape(name)}">{escape(_cut(short))}</th>' for name, short in zip(names, called, strict=True)]
    head = "".join(f'<th scope="col"{one}' for one in (">true ↓ predicted →</th>", *heads))
    body = "".join(
        f'<tr><th scope="row"{heads[c]}{"".join(_cell(c, j, counts, names) for j in range(len(names)))}</tr>'
        for c in range(len(names))
    )
    table = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return scrolled(table, f"Confusion of {row.name} in % of the true class", "wide", "heat confusion")


def _cell(true: int, predicted: int, counts: np.ndarray, names: Sequence[str]) -> str:
    count, total = int(counts[true, predicted]), int(counts[true].sum())
    share, hit = count / max(total, 1), ' class="hit"' if true == predicted else ""
    said = escape(f"{names[true]} taken for {names[predicted]}: {count:,} of {total:,}")
    text = f"{100 * share:.0f}" if count else ""
    return f'<td{hit} style="--a:{share**0.5:.2f}" title="{said}">{text}</td>'


def _pairs(row: Row, names: Sequence[str]) -> str:
    """The pairs of classes that are confused most often, in per cent of the true class."""
    called = first_synonyms(names)
    lines = [
        [
            called[one["true"]],
            called[one["predicted"]],
            f"{100 * one['count'] / one['of']:.0f} %",
            f"{one['count']:,} of {one['of']:,}",
        ]
        for one in row.json["most_confused"]
    ]
    return grid(["true class", "taken for", "share", "test images"], lines)


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1].rstrip(' ,')}…"
