"""Results on stdout: tables for people, JSON for machines."""

import json
import shlex
import sys
from collections.abc import Collection, Sequence
from textwrap import fill
from typing import Any

from rich.console import Console
from rich.table import Table

from dmgd.errors import visible

UNLIMITED, NARROW = 10_000, 80  # columns


def print_json(value: Any) -> None:
    """In ASCII, which every terminal and every encoding can show."""
    print(json.dumps(value, indent=2))


def typed_command() -> str:
    """The command that is running, as it was typed but for credentials in URLs."""
    return visible(shlex.join(["dmgd", *sys.argv[1:]]))


def print_line(text: str) -> None:
    print(visible(text))


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], section_ends: Collection[int] = ()
) -> None:
    """Print a table whose first column is text and whose other columns are numbers, with lines after the rows in
    `section_ends`. Nothing in it is cut: what is too wide for the terminal is folded."""
    table = Table(title=visible(title), title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(visible(column), justify="left" if i == 0 else "right", overflow="fold")
    for i, row in enumerate(rows):
        table.add_row(*(visible(str(cell)) for cell in row), end_section=i in section_ends)
    width = None if sys.stdout.isatty() else UNLIMITED
    Console(width=width, highlight=False, markup=False, emoji=False).print(table)


def print_comparison(result: dict[str, Any]) -> None:
    """Print the JSON of a comparison: its main tables with their notes, a line for every method, and the warnings."""
    from dmgd.evaluation.comparison_views import main_tables

    for table in main_tables(result):
        print_table(table.title, table.columns, table.rows, table.section_ends)
        print_wrapped(table.notes)
        print()
    print_wrapped(result["summary"])
    print_wrapped([f"warning: {line}" for line in result["warnings"]])


def print_wrapped(lines: Sequence[str]) -> None:
    """Print lines of text, broken to the width of a table."""
    for line in lines:
        print(fill(visible(line), NARROW, break_long_words=False, break_on_hyphens=False))
