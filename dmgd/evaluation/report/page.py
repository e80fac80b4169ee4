"""The frame of a page: its head, its sections, and the small parts that all sections are made of."""

import base64
import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from dmgd.errors import visible

_MINUS = re.compile(r"(?<![\w.-])-(?=\d)")  # a hyphen that stands for one


@dataclass(frozen=True)
class Section:
    """A part of the page; left out if its `content` (HTML) is empty. `note` (text) says how to read it."""

    title: str
    content: str
    note: str = ""

    @property
    def name(self) -> str:
        return self.title.lower().replace(" ", "-")


def page(kind: str, title: str, head: str, sections: Sequence[Section], footer: str) -> str:
    """The page as HTML: text, pictures, style and script in one file. `head` is HTML, the others are text."""
    shown = [section for section in sections if section.content]
    parts = {name: files(__package__).joinpath(name).read_text(encoding="utf-8") for name in PARTS}
    return Template(parts["page.html"]).substitute(
        kind=escape(kind),
        title=escape(title),
        head=head,
        links="".join(f'<a href="#{one.name}">{escape(one.title)}</a>' for one in shown),
        body="\n".join(map(_section, shown)),
        footer=escape(footer),
        style=parts["page.css"].strip(),
        script=parts["page.js"].strip(),
    )


PARTS = ("page.html", "page.css", "page.js")
LONG = 24  # letters of a cell that may be broken into lines


def _section(section: Section) -> str:
    note = f'<p class="note">{escape(section.note)}</p>' if section.note else ""
    return f'<section id="{section.name}"><h2>{escape(section.title)}</h2>{note}{section.content}</section>'


def facts(values: Mapping[str, object], command: str | None) -> str:
    """What the page is about, as names and values, without those that are empty; and the command that made it."""
    copied = f"<code>{escape(visible(command or ''))}</code><button data-copy hidden>Copy</button>"
    return named(values) + (f'<div class="command">{copied}</div>' if command else "")


def named(values: Mapping[str, object]) -> str:
    """Names and values, without those that are empty."""
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(visible(str(value)))}</dd></div>"
        for name, value in values.items()
        if value not in (None, "")
    )
    return f'<dl class="facts">{items}</dl>'


@dataclass(frozen=True)
class Tile:
    """A number that says most: what it is, the number, what is beside it, and a remark."""

    name: str
    value: str
    beside: str = ""
    remark: str = ""


def tiles(shown: Iterable[Tile]) -> str:
    items = "".join(
        f"<li><span>{escape(one.name)}</span><b>{escape(one.value)} <small>{escape(one.beside)}</small></b>"
        f"<small>{escape(one.remark)}</small></li>"
        for one in shown
    )
    return f'<ul class="tiles">{items}</ul>' if items else ""


def listed(lines: Sequence[str], style: str = "said") -> str:
    """The lines as a list; empty without any."""
    return f'<ul class="{style}">{"".join(f"<li>{escape(visible(line))}</li>" for line in lines)}</ul>' if lines else ""


def grid(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    best: frozenset[tuple[int, int]] = frozenset(),
    notes: Sequence[str] = (),
    ends: frozenset[int] = frozenset(),
) -> str:
    """A table of text that scrolls in itself where it is too wide, with notes under it. The first cell of a row is its
    header; cells at `best`, (row, column), are emphasised; under the rows `ends` is a darker line."""

    def cell(i: int, j: int, text: str) -> str:
        shown = escape(_MINUS.sub("−", text) if j else text)
        shown = f"<strong>{shown}</strong>" if (i, j) in best else shown
        if j == 0:
            return f'<th scope="row" class="text">{shown}</th>' if len(text) > LONG else f'<th scope="row">{shown}</th>'
        return f'<td class="text">{shown}</td>' if len(text) > LONG else f"<td>{shown}</td>"

    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    lines = ["".join(cell(i, j, c) for j, c in enumerate(row)) for i, row in enumerate(rows)]
    body = "".join(f'<tr class="end">{line}</tr>' if i in ends else f"<tr>{line}</tr>" for i, line in enumerate(lines))
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    table = f"{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    said = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return scrolled(table, caption or f"{columns[0]} and {columns[1]}") + said


def scrolled(table: str, name: str, style: str = "wide", kind: str = "") -> str:
    """A table (its content as HTML) in a box that scrolls, by keys, too."""
    shown = f'<table class="{kind}">' if kind else "<table>"
    return f'<div class="{style}" tabindex="0" role="region" aria-label="{escape(name)}">{shown}{table}</table></div>'


def folded(summary: str, content: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{content}</details>" if content else ""


def settings_folded(settings: Mapping[str, Any]) -> str:
    """All settings as JSON, folded away."""
    text = json.dumps(settings, indent=1, ensure_ascii=False, default=str)
    return f'<details class="long"><summary>Settings as JSON</summary><pre>{escape(text)}</pre></details>'


def csv_link(table: str, name: str) -> str:
    """A link that downloads the table, which is in the link, as a CSV file."""
    data = base64.b64encode(table.encode()).decode()
    return (
        f'<p class="download"><a download="{escape(name)}" href="data:text/csv;charset=utf-8;base64,{data}">'
        f"Download the table as CSV</a></p>"
    )


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([columns, *rows])
    return file.getvalue()
