"""Parquet in Hugging Face's layout: an Image column, a ClassLabel column and one column per metadata field."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dmgd.exporters.example import Description, Example, shards
from dmgd.exporters.folder import HashedFile, WrittenFile, hashed_file
from dmgd.exporters.formats import Layout
from dmgd.runs.columns import COLUMN_TYPES, features

ROWS_PER_GROUP = 100  # what readers fetch at once; the default of `datasets`


def write(folder: Path, examples: Iterable[Example], description: Description) -> list[WrittenFile]:
    """Write `data/train-00000-of-00002.parquet`, … in `folder`."""
    schema = arrow_schema(description)
    shard_files: list[tuple[HashedFile, int]] = []
    for number, shard in shards(examples, description.limits):
        with hashed_file(folder, f"data/{number:05d}") as file:
            shard_files.append((file, _write_shard(file, shard, schema, description.image_format)))
    # File names contain the number of shards, which is known only now.
    files = []
    for number, (file, images) in enumerate(shard_files):
        path = f"data/train-{number:05d}-of-{len(shard_files):05d}.parquet"
        (folder / f"data/{number:05d}").rename(folder / path)
        files.append(file.written(path, images))
    return files


def arrow_schema(description: Description) -> pa.Schema:
    """The columns, with the schema metadata in which `datasets` stores its Image and ClassLabel types."""
    from datasets import Sequence, Value

    columns = features(description.classes)
    if description.soft_labels:
        columns["logits"] = Sequence(Value("float32"))
    return columns.arrow_schema


def _write_shard(file: HashedFile, shard: Iterator[Example], schema: pa.Schema, image_format: str) -> int:
    """Write one shard and return its number of images. Images are already compressed."""
    count, columns = 0, ["label", *COLUMN_TYPES]
    compression = {**dict.fromkeys([*columns, "image.path"], "snappy"), "image.bytes": "none"}
    options: dict[str, Any] = {"compression": compression, "use_dictionary": columns, "write_statistics": columns}
    with pa.PythonFile(file, mode="w") as sink, pq.ParquetWriter(sink, schema, **options) as writer:
        while group := list(islice(shard, ROWS_PER_GROUP)):
            written = [row(example, image_format) for example in group]
            writer.write_table(pa.Table.from_pylist(written, schema=schema))
            count += len(group)
    return count


def row(example: Example, image_format: str) -> dict[str, Any]:
    image = {"bytes": example.data, "path": f"{example.key}.{image_format}"}
    fields = {"image": image, "label": example.label, **example.metadata}
    return fields if example.logits is None else {**fields, "logits": example.logits}


def read(folder: Path, index: dict[str, Any]) -> Iterator[Example]:
    """The images of an export in `folder`, a group of rows at a time in memory."""
    for file in index["files"]:
        if file["path"].endswith(".parquet"):
            for batch in pq.ParquetFile(folder / file["path"]).iter_batches(ROWS_PER_GROUP):
                for fields in batch.to_pylist():
                    image = fields.pop("image")["bytes"]
                    yield Example(fields.pop("label"), fields, image)


LAYOUT = Layout(write, read, data_files=("data/train-*.parquet",))
