"""WebDataset: tar shards of `KEY.png`, `KEY.cls`, `KEY.json` and, with soft labels, `KEY.logits.npy`."""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dmgd.exporters.example import Description, Example, Stored, json_line, shards
from dmgd.exporters.written import WrittenFile, hashed_file


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
        if not file["path"].endswith(".tar"):
            continue
        with tarfile.open(folder / file["path"], "r:") as tar:
            key, fields = "", dict[str, bytes]()
            for member in tar:
                name, _, extension = member.name.partition(".")
                if name != key and fields:
                    yield _stored(fields, index["image_format"])
                    fields = {}
                content = tar.extractfile(member)
                key, fields[extension] = name, content.read() if content else b""
            if fields:
                yield _stored(fields, index["image_format"])


def _stored(fields: dict[str, bytes], image_format: str) -> Stored:
    return Stored(int(fields["cls"]), json.loads(fields["json"]), fields[image_format])
