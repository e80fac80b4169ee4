"""A comparison's JSON as Markdown, LaTeX and CSV."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from dmgd.errors import visible
from dmgd.evaluation.comparison_views import tables
from dmgd.evaluation.contrasts import OWN_LABELS, PLAIN, RANDOM, STRONGEST
from dmgd.evaluation.table_layout import Table

BOLD = "Bold is the highest mean of its IPC, significant or not."
POOLED = ("top1", "top1_best_epoch", "top1_without_augmentation", "hlr", "ior", "lrs", "ars")
SIZES = ("tiles", "labels", "images", "stored_images", "pixels", "image_bytes", "label_bytes")
AGAINST = ("name", "difference", "p", "p_holm", "seeds")


def comparison_files(result: dict[str, Any]) -> dict[str, str]:
    """The contents of the files of a comparison by name: tables as Markdown and LaTeX, all numbers as CSV with a line
    for every row, and the accuracy of every training."""
    return {
        "table.md": as_markdown(result),
        "table.tex": as_latex(result),
        "table.csv": as_csv(result),
        "trainings.csv": trainings_csv(result),
    }


def as_markdown(result: dict[str, Any]) -> str:
    """The tables with their notes, the comparisons in a line for every method, and the warnings."""
    parts = [f"# Methods compared on {_markdown(result['settings']['source']['name'])}"]
    for title, said in (("Summary", result["summary"]), ("Warnings", result["warnings"])):
        if said:
            parts += [f"## {title}", "\n".join(f"- {_markdown(line)}" for line in said)]
    for table in tables(result):
        notes = "\n".join(f"- {_markdown(note)}" for note in _notes(table))
        parts += [f"## {_markdown(table.title)}", _markdown_table(table), notes]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_latex(result: dict[str, Any]) -> str:
    """The tables as LaTeX floats, which need the package booktabs, with their notes in the caption; in that of the
    first, the warnings."""
    first, *others = tables(result)
    warned = replace(first, notes=(*first.notes, *(f"Warning: {line}." for line in result["warnings"])))
    return "\n".join(["% \\usepackage{booktabs}", *map(_latex_table, (warned, *others))])


def as_csv(result: dict[str, Any]) -> str:
    """A line for every method, IPC, protocol and network, with all numbers. Empty: all images, as IPC; else
    unknown."""
    more = [title for title in (PLAIN, OWN_LABELS) if any(title in row["against"] for row in result["rows"])]
    titles = [RANDOM, STRONGEST, *more]
    return _csv([dict(_fields(row, titles)) for row in result["rows"]])


def trainings_csv(result: dict[str, Any]) -> str:
    """A line for every training: the seed of the set, the number of the training, and its top-1 after the last
    epoch."""
    names = ("method", "ipc", "protocol", "network")
    return _csv([{**{name: row[name] for name in names}, **one} for row in result["rows"] for one in row["by_seed"]])


def _fields(row: dict[str, Any], opponents: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for name in ("method", "ipc", "protocol", "network", *SIZES):
        yield name, row[name]
    for name in POOLED:
        for part in ("mean", "std", "n"):
            yield f"{name}_{part}", row[name] and row[name][part]
    yield "of_full", row["of_full"]
    for title in opponents:
        one = row["against"].get(title)
        prefix = f"against_{title.replace(' ', '_')}"
        for name in AGAINST:
            yield f"{prefix}_{name}", one and one[name]
        for i, end in enumerate(("low", "high")):
            yield f"{prefix}_{end}", one and one["interval"] and one["interval"][i]
    for stage, seconds in row["seconds"].items():
        yield f"seconds_{stage}", seconds
    for name, value in row["budget"].items():
        yield name, "+".join(value) if isinstance(value, list) else value["name"] if isinstance(value, dict) else value
    yield "teacher_top1", row["budget"]["teacher"] and row["budget"]["teacher"]["top1"]
    yield "published", "; ".join(" ".join([f"{one['value']}", one["note"]]).strip() for one in row["published"])


def _csv(lines: Sequence[dict[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def _notes(table: Table) -> list[str]:
    return [*table.notes, *([BOLD] if table.best and table.notes else [])]


def _markdown_table(table: Table) -> str:
    lines = [_markdown_line(list(map(_markdown, table.columns))), "|---|" + "---:|" * (len(table.columns) - 1)]
    for i, row in enumerate(table.rows):
        cells = [f"**{_markdown(cell)}**" if (i, j) in table.best else _markdown(cell) for j, cell in enumerate(row)]
        lines.append(_markdown_line(cells))
    return "\n".join(lines)


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    """The text with Markdown's own characters escaped."""
    return re.sub(r"([\\|*_`<\[])", r"\\\1", visible(text))


def _latex_table(table: Table) -> str:
    lines = []
    for i, row in enumerate(table.rows):
        cells = [f"\\textbf{{{_latex(cell)}}}" if (i, j) in table.best else _latex(cell) for j, cell in enumerate(row)]
        lines.append("    " + " & ".join(cells) + " \\\\")
        if i in table.section_ends:
            lines.append("    \\addlinespace")
    caption = " ".join(map(_latex, [f"{table.title}.", *_notes(table)]))
    return "\n".join(
        [
            "\\begin{table}",
            "  \\centering\\small\\belowcaptionskip=4pt",
            f"  \\caption{{{caption}}}",
            f"  \\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
            "    \\toprule",
            "    " + " & ".join(map(_latex, table.columns)) + " \\\\",
            "    \\midrule",
            *lines,
            "    \\bottomrule",
            "  \\end{tabular}",
            "\\end{table}",
            "",
        ]
    )


_LATEX = {
    **{character: f"\\{character}" for character in "_%&#${}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
    "−": "$-$",
    "–": "--",
    "…": "\\dots{}",
    "τ": "$\\tau$",
    "↑": "$\\uparrow$",
    "↓": "$\\downarrow$",
    "<": "$<$",
    ">": "$>$",
    "*": "$^{*}$",
    "†": "$^{\\dagger}$",
    "×": "$\\times$",
}


def _latex(text: str) -> str:
    """The text with LaTeX's own characters escaped, symbols as commands, and minus signs before numbers."""
    escaped = "".join(_LATEX.get(character, character) for character in visible(text))
    return re.sub(r"(?<![\w.-])-(?=\d)", "$-$", escaped)
