"""WebDataset: tar shards of `KEY.png`, `KEY.cls` and `KEY.json`, equal bytes for equal images."""

from collections.abc import Iterable
from pathlib import Path

import webdataset as wds

from dmgd.exporters.example import Description, Example, json_line, shards
from dmgd.exporters.written import WrittenFile, hashed_file


def write_webdataset(folder: Path, examples: Iterable[Example], description: Description) -> list[WrittenFile]:
    """Write `data/train-00000.tar`, … in `folder`."""
    files = []
    for number, shard in shards(examples, description.limits):
        path, count = f"data/train-{number:05d}.tar", 0
        # A fixed time: the same images give the same bytes on another day.
        with hashed_file(folder, path) as file, wds.TarWriter(file, encoder=False, mtime=0) as tar:
            for example in shard:
                tar.write(sample(example, description.image_format))
                count += 1
        files.append(file.written(path, count))
    return files


def sample(example: Example, image_format: str) -> dict[str, str | bytes]:
    """The fields of one image, as WebDataset's writer takes them."""
    return {
        "__key__": example.key,
        image_format: example.data,
        "cls": str(example.label).encode(),
        "json": json_line(example.metadata()),
    }
