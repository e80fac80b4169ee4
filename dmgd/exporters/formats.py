"""The layouts of exports by name: how each is written, read back, and described in the dataset card."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from dmgd.errors import unknown_choice

if TYPE_CHECKING:  # the command line lists the layouts without the libraries that they need
    from dmgd.exporters.example import Description, Example


PARTS_OF_AN_IMAGE = """\
from PIL import Image
def parts(image, tiles={tiles}):  # of a mosaic, each as large as the mosaic; all have its label
    width, height = image.width // tiles, image.height // tiles
    corners = [(x * width, y * height) for y in range(tiles) for x in range(tiles)]
    cut = [image.crop((x, y, x + width, y + height)) for x, y in corners]
    return [part.resize(image.size, Image.Resampling.BICUBIC) for part in cut]"""


@dataclass(frozen=True)
class Layout:
    """How an export is stored on disk.

    `write(folder, examples, description)` writes the examples to a folder and returns the index's entries of the files
    written; `read(folder, index)` reads them back, given the export's index.

    The rest is for the dataset card. `data_files` are the file patterns for `load_dataset` (none: it cannot read the
    layout), `columns(description)` the columns it then has, image and label first (None: those of
    `dmgd.exporters.example.columns`). `snippet` is Python that opens the export, at FOLDER, with another library. In
    patterns and snippet, {image_format} is replaced by the images' suffix. `parts_snippet` is Python that splits what
    was opened, mosaics of {tiles} × {tiles}, and enlarges the parts.
    """

    write: "Callable[[Path, Iterable[Example], Description], list[dict[str, Any]]]"
    read: "Callable[[Path, dict[str, Any]], Iterator[Example]]"
    data_files: tuple[str, ...] = ()
    columns: "Callable[[Description], list[dict[str, Any]]] | None" = None
    snippet: str = ""
    parts_snippet: str = PARTS_OF_AN_IMAGE


# A new layout is one more entry: itself, or where to import it from when it is used.
LAYOUTS: dict[str, Layout | str] = {
    "webdataset": "dmgd.exporters.webdataset:LAYOUT",
    "parquet": "dmgd.exporters.parquet:LAYOUT",
    "imagefolder": "dmgd.exporters.imagefolder:LAYOUT",
    "tensors": "dmgd.exporters.tensors:LAYOUT",
}


def layout_named(name: str) -> Layout:
    """The layout called `name`. Raises UsageError for an unknown one."""
    if name not in LAYOUTS:
        raise unknown_choice("format", name, tuple(LAYOUTS))
    layout = LAYOUTS[name]
    return resolve_name(layout) if isinstance(layout, str) else layout
