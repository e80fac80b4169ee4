"""WebDataset: tar shards of `KEY.png`, `KEY.cls`, `KEY.json` and, with soft labels, `KEY.logits.npy`."""

import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dmgd.exporters.example import Description, Example, Stored, json_line, shards
from dmgd.exporters.written import WrittenFile, hashed_file
from dmgd.sources.shards import samples


def write_webdataset(folder: Path, examples: Iterable[Example], description: Description) -> list[WrittenFile]:
    """Write `data/train-00000.tar`, … in `folder`."""
    import webdataset as wds

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
    fields: dict[str, str | bytes] = {
        "__key__": example.key,
        image_format: example.data,
        "cls": str(example.label).encode(),
        "json": json_line(example.metadata()),
    }
    if example.logits is not None:
        array = io.BytesIO()
        np.save(array, example.logits)
        fields["logits.npy"] = array.getvalue()
    return fields


def read_webdataset(folder: Path, index: dict[str, Any]) -> Iterator[Stored]:
    """The images of an export in `folder`."""
    for file in index["files"]:
        if file["path"].endswith(".tar"):
            for found in samples(folder / file["path"]):
                label, fields, image = (found.read(name) or b"" for name in ("cls", "json", index["image_format"]))
                yield Stored(int(label), json.loads(fields), image)
