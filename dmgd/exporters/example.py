"""What every writer is given: images with their metadata, and a description of the whole set."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from numpy import ndarray

from dmgd.classes.info import ClassInfo
from dmgd.files import safe_name, sha256_bytes
from dmgd.images import decode, encode
from dmgd.progress import Task
from dmgd.runs.columns import COLUMN_TYPES, label_names, metadata
from dmgd.runs.directory import RunDirectory
from dmgd.runs.record import ImageRecord
from dmgd.sources.decode import in_order

READERS, READ_AHEAD = 2, 32


@dataclass(frozen=True)
class Limits:
    """The most that one shard holds: images, and bytes of image files. A larger image has a shard of its own."""

    images: int = 10_000
    bytes: int = 500_000_000


@dataclass(frozen=True)
class Description:
    """The set that is written: its classes in order, the images' file format, the shards' limits, and whether there
    are soft labels."""

    classes: tuple[ClassInfo, ...]
    image_format: str = "png"
    limits: Limits = Limits()
    soft_labels: bool = False

    def class_folder(self, class_index: int) -> str:
        """A folder name for one class that sorts by index and that every file system takes."""
        return f"{class_index:04d}-{safe_name(self.classes[class_index].identity)}"


@dataclass(frozen=True)
class Example:
    """One image: what the run recorded of it, its class, the bytes of its file in the description's format with their
    `sha256`, and a teacher's `logits` (classes,) float32, where there are soft labels."""

    record: ImageRecord
    info: ClassInfo
    data: bytes
    sha256: str
    logits: ndarray | None = None

    @property
    def key(self) -> str:
        return self.record.key

    @property
    def label(self) -> int:
        return self.record.class_index

    def metadata(self) -> dict[str, Any]:
        """Where the image comes from, see `dmgd.runs.columns`; `sha256` is that of `data`."""
        return metadata(self.record, self.info, self.sha256)


@dataclass(frozen=True)
class Stored:
    """One image as it is read back from an export: its file's bytes, or its pixels where the layout has no files."""

    label: int
    metadata: dict[str, Any]
    image: bytes | ndarray

    @property
    def pixels(self) -> ndarray:
        """The decoded pixels, uint8 (h, w, c)."""
        return decode(self.image) if isinstance(self.image, bytes) else self.image


def shards(examples: Iterable[Example], limits: Limits) -> Iterator[tuple[int, Iterator[Example]]]:
    """(shard number, its examples), streaming: a shard must be used up before the next is asked for."""
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
    """The columns image, label, metadata and, with soft labels, logits, with their types as a dataset card lists them.
    `label` is the label's (None: a ClassLabel)."""
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
    """The run's images in order, each checked against its record while it is read."""
    classes = run.classes

    def read(record: ImageRecord) -> Example:
        data, sha256 = run.image_bytes(record), record.sha256
        if image_format != "png":
            data = encode(decode(data), image_format)
            sha256 = sha256_bytes(data)
        return Example(record, classes[record.class_index], data, sha256, logits[record.key] if logits else None)

    # A few are read, checked and encoded while earlier ones are being written.
    with ThreadPoolExecutor(READERS) as pool:
        for example in in_order(pool, read, records, READ_AHEAD):
            yield example
            task.advance()
