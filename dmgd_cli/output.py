"""Results on stdout: tables for people, JSON for machines."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from dmgd.errors import visible

UNLIMITED = 10_000  # columns


def print_json(value: Any) -> None:
    """In ASCII, which every terminal and every encoding can show."""
    print(json.dumps(value, indent=2))


def print_line(text: str) -> None:
    print(visible(text))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table whose first column is text and whose other columns are numbers. Nothing in it is cut: what is too
    wide for the terminal is folded."""
    table = Table(title=visible(title), title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(visible(column), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(visible(str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else UNLIMITED
    Console(width=width, highlight=False, markup=False, emoji=False).print(table)
