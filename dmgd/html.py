"""HTML shared by reports and notebooks."""

import base64
from collections.abc import Iterable, Sequence
from html import escape


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with a header row."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(c))}</td>" for c in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def png_url(data: bytes) -> str:
    """A data URL of a PNG file."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
