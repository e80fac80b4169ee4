"""The layouts by name."""

from collections.abc import Callable, Iterable
from pathlib import Path

from dmgd.errors import unknown_choice
from dmgd.exporters.example import Description, Example
from dmgd.exporters.written import WrittenFile

Writer = Callable[[Path, Iterable[Example], Description], list[WrittenFile]]
"""Writes examples to a folder and returns what it wrote."""


def writer(layout: str) -> Writer:
    """The writer of a layout. Raises UsageError for an unknown name."""
    from dmgd.exporters.imagefolder import write_imagefolder
    from dmgd.exporters.parquet import write_parquet
    from dmgd.exporters.webdataset import write_webdataset

    writers: dict[str, Writer] = {
        "webdataset": write_webdataset,
        "parquet": write_parquet,
        "imagefolder": write_imagefolder,
    }
    if layout not in writers:
        raise unknown_choice("format", layout, tuple(writers))
    return writers[layout]
