"""What every writer is given: images with their metadata, and a description of the whole set."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from numpy import ndarray

from dmgd.classes.info import ClassInfo
from dmgd.files import safe_name, sha256_bytes
from dmgd.images import decode, encode
from dmgd.progress import Task
from dmgd.runs.columns import metadata
from dmgd.runs.directory import RunDirectory
from dmgd.runs.record import ImageRecord

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

    for example in read_ahead(read, records):
        yield example
        task.advance()


def read_ahead(read: Callable[[ImageRecord], Example], records: Sequence[ImageRecord]) -> Iterator[Example]:
    """`read` of every record, in order; a few are read, checked and encoded while earlier ones are being written."""
    with ThreadPoolExecutor(READERS) as pool:
        waiting: deque[Future[Example]] = deque()
        for record in records:
            waiting.append(pool.submit(read, record))
            if len(waiting) > READ_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
