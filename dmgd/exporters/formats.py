"""The layouts by name: how each is written and read back."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from dmgd.errors import unknown_choice
from dmgd.exporters.example import Description, Example, Stored
from dmgd.exporters.written import WrittenFile

LAYOUTS = ("webdataset", "parquet", "imagefolder", "tensors")


@dataclass(frozen=True)
class Layout:
    """`write` puts examples into a folder and returns what it wrote; `read` gives back the images of a folder, given
    the index of the export."""

    write: Callable[[Path, Iterable[Example], Description], list[WrittenFile]]
    read: Callable[[Path, dict[str, Any]], Iterator[Stored]]


def layout_named(name: str) -> Layout:
    """The layout called `name`, in the module of its name. Raises UsageError for an unknown one."""
    if name not in LAYOUTS:
        raise unknown_choice("format", name, LAYOUTS)
    module = import_module(f"dmgd.exporters.{name}")
    return Layout(getattr(module, f"write_{name}"), getattr(module, f"read_{name}"))
