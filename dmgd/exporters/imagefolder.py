"""An image folder: one folder per class, whose names sort by class index, and `metadata.jsonl`."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dmgd.exporters.example import Description, Example, columns, json_line
from dmgd.exporters.folder import hashed_file, write_hashed
from dmgd.exporters.formats import Layout
from dmgd.files import safe_name

METADATA = "metadata.jsonl"
SNIPPET = """\
from torchvision.datasets import ImageFolder
dataset = ImageFolder("FOLDER")
image, label = dataset[0]"""


def write(folder: Path, examples: Iterable[Example], description: Description) -> list[dict[str, Any]]:
    """Write `0003-cat/00007.png`, … and `metadata.jsonl` in `folder`."""
    # Names that sort by class index and are valid on every file system.
    folders = [f"{label:04d}-{safe_name(info.identity)}" for label, info in enumerate(description.classes)]
    files = []
    with hashed_file(folder, METADATA) as metadata:
        for example in examples:
            path = f"{folders[example.label]}/{example.metadata['image_index']:05d}.{description.image_format}"
            files.append(write_hashed(folder, path, example.data, images=1))
            fields = {"file_name": path, "label": example.label, **example.metadata}
            if example.logits is not None:
                fields["logits"] = example.logits.tolist()
            metadata.write(json_line(fields) + b"\n")
    return [*files, metadata.entry(METADATA)]


def read(folder: Path, index: dict[str, Any]) -> Iterator[Example]:
    with (folder / METADATA).open(encoding="utf-8") as lines:
        for line in lines:
            fields = json.loads(line)
            data = (folder / fields.pop("file_name")).read_bytes()
            yield Example(fields.pop("label"), fields, data)


LAYOUT = Layout(
    write,
    read,
    data_files=("*/*.{image_format}", METADATA),
    # The reader in `datasets` infers the types from metadata.jsonl, without class labels.
    columns=lambda description: columns(description, label="int64"),
    snippet=SNIPPET,
)
