"""An image folder: one folder a class, named so that sorting them gives the class index, and `metadata.jsonl`."""

from collections.abc import Iterable
from pathlib import Path

from dmgd.exporters.example import Description, Example, json_line
from dmgd.exporters.written import WrittenFile, hashed_file, write_hashed

METADATA = "metadata.jsonl"


def write_imagefolder(folder: Path, examples: Iterable[Example], description: Description) -> list[WrittenFile]:
    """Write `0003-cat/00007.png`, … and `metadata.jsonl` in `folder`."""
    files = []
    with hashed_file(folder, METADATA) as metadata:
        for example in examples:
            name = f"{example.record.image_index:05d}.{description.image_format}"
            path = f"{description.class_folder(example.label)}/{name}"
            files.append(write_hashed(folder, path, example.data, images=1))
            fields = {"file_name": path, "label": example.label, **example.metadata()}
            metadata.write(json_line(fields) + b"\n")
    return [*files, metadata.written(METADATA, images=0)]
