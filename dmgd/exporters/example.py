"""What layouts write and read back: the images of a set with their metadata; and the description of the set."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from numpy import ndarray

from dmgd.classes.info import ClassInfo
from dmgd.files import sha256_bytes
from dmgd.images import decode, encode
from dmgd.progress import Task
from dmgd.runs.columns import COLUMN_TYPES, label_names, metadata
from dmgd.runs.directory import RunDirectory
from dmgd.runs.record import ImageRecord
from dmgd.sources.decode import in_order

READERS, READ_AHEAD = 2, 4
CHUNK = 16  # images that are read at a time: to hand over each alone takes as long as to read it


@dataclass(frozen=True)
class Limits:
    """The maximum number of images, and of bytes of image files, per shard. A larger image gets its own shard."""

    images: int = 10_000
    bytes: int = 500_000_000


@dataclass(frozen=True)
class Description:
    """The set to write: its classes in order, the images' file format, the shards' limits, and whether it has soft
    labels."""

    classes: tuple[ClassInfo, ...]
    image_format: str = "png"
    limits: Limits = Limits()
    soft_labels: bool = False


@dataclass(frozen=True)
class Example:
    """One image of an export: its label, its `metadata` (see `dmgd.runs.columns`), and the bytes of its file, or uint8
    pixels (h, w, c) when read from a layout without image files. `logits` (classes,), float32, are a teacher's soft
    label; they are not read back."""

    label: int
    metadata: dict[str, Any]
    image: bytes | ndarray
    logits: ndarray | None = None

    @property
    def key(self) -> str:
        return self.metadata["key"]

    @property
    def data(self) -> bytes:
        """The bytes of its file; of pixels alone, as PNG."""
        return self.image if isinstance(self.image, bytes) else encode(self.image)

    @property
    def pixels(self) -> ndarray:
        """The decoded pixels, uint8 (h, w, c)."""
        return decode(self.image) if isinstance(self.image, bytes) else self.image


def shards(examples: Iterable[Example], limits: Limits) -> Iterator[tuple[int, Iterator[Example]]]:
    """(shard number, its examples), streaming: a shard must be consumed before the next one."""
    number = count = size = 0

    def shard_of(example: Example) -> int:
        nonlocal number, count, size
        if count and (count >= limits.images or size + len(example.data) > limits.bytes):
            number, count, size = number + 1, 0, 0
        count, size = count + 1, size + len(example.data)
        return number

    return groupby(examples, key=shard_of)


def json_line(value: Any) -> bytes:
    """`value` as one line of JSON with sorted keys."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


def columns(description: Description, label: Any = None) -> list[dict[str, Any]]:
    """Names and types, in a dataset card's form, of the columns image, label, metadata and, with soft labels, logits.
    `label` is the type of the label (None: a ClassLabel)."""
    names = {str(i): name for i, name in enumerate(label_names(description.classes))}
    return [
        {"name": "image", "dtype": "image"},
        {"name": "label", "dtype": label or {"class_label": {"names": names}}},
        *({"name": name, "dtype": kind} for name, kind in COLUMN_TYPES.items()),
        *([{"name": "logits", "sequence": "float32"}] if description.soft_labels else []),
    ]


def examples(
    run: RunDirectory,
    records: Sequence[ImageRecord],
    image_format: str,
    logits: Mapping[str, ndarray] | None,
    task: Task,
) -> Iterator[Example]:
    """The run's images in order, each checked against its record when read."""
    classes = run.classes

    def read(record: ImageRecord) -> Example:
        data, sha256 = run.image_bytes(record), record.sha256
        if image_format != "png":
            data = encode(decode(data), image_format)
            sha256 = sha256_bytes(data)
        fields = metadata(record, classes[record.class_index], sha256)
        return Example(record.class_index, fields, data, logits[record.key] if logits else None)

    def read_all(chunk: Sequence[ImageRecord]) -> list[Example]:
        return [read(record) for record in chunk]

    chunks = (records[first : first + CHUNK] for first in range(0, len(records), CHUNK))
    # A few are read, checked and encoded while earlier ones are written.
    with ThreadPoolExecutor(READERS) as pool:
        for chunk in in_order(pool, read_all, chunks, READ_AHEAD):
            yield from chunk
            task.advance(len(chunk))
