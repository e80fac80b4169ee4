"""WebDataset: tar shards of `KEY.png`, `KEY.cls`, `KEY.json` and, with soft labels, `KEY.logits.npy`."""

import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dmgd.exporters.example import Description, Example, columns, json_line, shards
from dmgd.exporters.folder import hashed_file
from dmgd.exporters.formats import Layout
from dmgd.sources.shards import read_shard

SNIPPET = """\
import glob, webdataset as wds
shards = sorted(glob.glob("FOLDER/data/train-*.tar"))
dataset = wds.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("{image_format}", "cls", "json")"""


def write(folder: Path, examples: Iterable[Example], description: Description) -> list[dict[str, Any]]:
    """Write `data/train-00000.tar`, … in `folder`."""
    import webdataset as wds

    files = []
    for number, shard in shards(examples, description.limits):
        path, count = f"data/train-{number:05d}.tar", 0
        # A fixed modification time: the same images always give the same bytes.
        with hashed_file(folder, path) as file, wds.TarWriter(file, encoder=False, mtime=0) as tar:
            for example in shard:
                tar.write(tar_fields(example, description.image_format))
                count += 1
        files.append(file.entry(path, count))
    return files


def tar_fields(example: Example, image_format: str) -> dict[str, str | bytes]:
    """The tar fields of one image, as WebDataset's writer takes them."""
    fields: dict[str, str | bytes] = {
        "__key__": example.key,
        image_format: example.data,
        "cls": str(example.label).encode(),
        "json": json_line(example.metadata),
    }
    if example.logits is not None:
        array = io.BytesIO()
        np.save(array, example.logits)
        fields["logits.npy"] = array.getvalue()
    return fields


def read(folder: Path, index: dict[str, Any]) -> Iterator[Example]:
    for file in index["files"]:
        if file["path"].endswith(".tar"):
            for _, members in read_shard(folder / file["path"]):
                label, fields, image = (members[suffix]() for suffix in ("cls", "json", index["image_format"]))
                yield Example(int(label), json.loads(fields), image)


def _columns(description: Description) -> list[dict[str, Any]]:
    """The fields by suffix, as `load_dataset` names them."""
    image, label, *metadata = columns(description)
    logits = [{**metadata.pop(), "name": "logits.npy"}] if description.soft_labels else []
    return [
        {**image, "name": description.image_format},
        {**label, "name": "cls"},
        {"name": "json", "struct": metadata},
        *logits,
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
    ]


LAYOUT = Layout(write, read, data_files=("data/train-*.tar",), columns=_columns, snippet=SNIPPET)
