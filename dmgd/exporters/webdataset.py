"""WebDataset: tar shards of `KEY.png`, `KEY.cls`, `KEY.json` and, with soft labels, `KEY.logits.npy`."""

import io
import json
import tarfile
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
    """Write `data/train-00000.tar`, … in `folder`, byte for byte what `webdataset.ShardWriter` writes with mtime 0."""
    files = []
    for number, shard in shards(examples, description.limits):
        path, count = f"data/train-{number:05d}.tar", 0
        with hashed_file(folder, path) as file:
            for example in shard:
                for suffix, data in sorted(tar_fields(example, description.image_format).items()):
                    file.write(_header(f"{example.key}.{suffix}", len(data)))
                    file.write(data)
                    file.write(bytes(-len(data) % tarfile.BLOCKSIZE))
                count += 1
            file.write(bytes(2 * tarfile.BLOCKSIZE))
            file.write(bytes(-file.tell() % tarfile.RECORDSIZE))
        files.append(file.entry(path, count))
    return files


def _header(name: str, size: int) -> bytes:
    """The tar header of a file, as WebDataset's writer makes it. `name` is ASCII of at most 99 characters. It is filled
    in here, as for `tarfile` the headers take as long as the images."""
    header = bytearray(_HEADER)
    header[: len(name)] = name.encode("ascii")
    header[124:135] = b"%011o" % size
    header[148:155] = b"%06o\0" % sum(header)
    return bytes(header)


def _blank_header() -> bytes:
    """A header without name and size, and with blanks for the checksum, as they count in it."""
    # A fixed modification time: the same images always give the same bytes.
    member = tarfile.TarInfo()
    member.mode, member.mtime, member.uname, member.gname = 0o444, 0, "bigdata", "bigdata"
    header = member.tobuf(tarfile.USTAR_FORMAT)
    return header[:148] + b" " * 8 + header[156:]


_HEADER = _blank_header()


def tar_fields(example: Example, image_format: str) -> dict[str, bytes]:
    """The files of one image by suffix."""
    fields = {
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
