"""Parquet in Hugging Face's layout: an Image column, a ClassLabel column and one column per metadata field."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dmgd.exporters.example import Description, Example, shards
from dmgd.exporters.folder import HashedFile, hashed_file
from dmgd.exporters.formats import Layout
from dmgd.runs.columns import COLUMN_TYPES, MOSAIC_TYPES, PART_TYPES, PARTS, features

ROWS_PER_GROUP = 100  # what readers fetch at once; the default of `datasets`


def write(folder: Path, examples: Iterable[Example], description: Description) -> list[dict[str, Any]]:
    """Write `data/train-00000-of-00002.parquet`, … in `folder`."""
    from datasets import Sequence, Value

    columns = features(description.classes, description.tiles)
    if description.soft_labels:
        label = Sequence(Value("float32"))
        columns["logits"] = label if description.tiles == 1 else Sequence(label)
    files = []
    for number, shard in shards(examples, description.limits):
        with hashed_file(folder, path := f"data/{number:05d}") as file:
            # The schema has the metadata in which `datasets` stores its Image and ClassLabel types.
            images = _write_shard(file, shard, columns.arrow_schema, description)
        files.append(file.entry(path, images))
    # File names contain the number of shards, which is known only now.
    for number, entry in enumerate(files):
        entry["path"] = f"data/train-{number:05d}-of-{len(files):05d}.parquet"
        (folder / f"data/{number:05d}").rename(folder / entry["path"])
    return files


def _write_shard(file: HashedFile, shard: Iterator[Example], schema: pa.Schema, description: Description) -> int:
    """Write one shard and return its number of images. Images are already compressed."""
    count, columns = 0, ["label", *COLUMN_TYPES]
    if description.tiles > 1:
        columns = ["label", *MOSAIC_TYPES, *(f"{PARTS}.list.element.{name}" for name in PART_TYPES)]
    compression = {**dict.fromkeys([*columns, "image.path"], "snappy"), "image.bytes": "none"}
    options: dict[str, Any] = {"compression": compression, "use_dictionary": columns, "write_statistics": columns}
    with pa.PythonFile(file, mode="w") as sink, pq.ParquetWriter(sink, schema, **options) as writer:
        while group := list(islice(shard, ROWS_PER_GROUP)):
            written = [row(example, description.image_format) for example in group]
            writer.write_table(pa.Table.from_pylist(written, schema=schema))
            count += len(group)
    return count


def row(example: Example, image_format: str) -> dict[str, Any]:
    image = {"bytes": example.data, "path": f"{example.key}.{image_format}"}
    fields = {"image": image, "label": example.label, **example.metadata}
    return fields if example.logits is None else {**fields, "logits": example.logits.tolist()}


def read(folder: Path, index: dict[str, Any]) -> Iterator[Example]:
    """The images of an export in `folder`, a group of rows at a time in memory."""
    for file in index["files"]:
        if file["path"].endswith(".parquet"):
            for batch in pq.ParquetFile(folder / file["path"]).iter_batches(ROWS_PER_GROUP):
                for fields in batch.to_pylist():
                    image = fields.pop("image")["bytes"]
                    yield Example(fields.pop("label"), fields, image)


LAYOUT = Layout(write, read, data_files=("data/train-*.parquet",))
