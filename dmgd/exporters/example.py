"""What layouts write and read back: the images of a set with their metadata; and the description of the set."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
from numpy import ndarray

from dmgd.classes.info import ClassInfo
from dmgd.files import sha256_bytes
from dmgd.images import decode, encode
from dmgd.mosaics import shrunk, split, stitched
from dmgd.progress import Task
from dmgd.runs.columns import (
    COLUMN_TYPES,
    MOSAIC_TYPES,
    PART_TYPES,
    PARTS,
    label_names,
    metadata,
    mosaic_metadata,
)
from dmgd.runs.directory import RunDirectory
from dmgd.runs.record import ImageRecord
from dmgd.sources.decode import in_order

READERS, READ_AHEAD = 2, 4
Item = TypeVar("Item")
CHUNK = 16  # images that are read at a time: to hand over each alone takes as long as to read it


@dataclass(frozen=True)
class Limits:
    """The maximum number of images, and of bytes of image files, per shard. A larger image gets its own shard."""

    images: int = 10_000
    bytes: int = 500_000_000


@dataclass(frozen=True)
class Description:
    """The set to write: its classes in order, the images' file format, the shards' limits, whether it has soft labels
    beside each image, and with `tiles` above 1 that its images are mosaics. `labelled` says of soft labels, in words,
    whose they are and how many bytes they take."""

    classes: tuple[ClassInfo, ...]
    image_format: str = "png"
    limits: Limits = Limits()
    soft_labels: bool = False
    tiles: int = 1
    labelled: str = ""


@dataclass(frozen=True)
class Example:
    """One stored image of an export: its label, its `metadata` (see `dmgd.runs.columns`), and the bytes of its file, or
    uint8 pixels (h, w, c) when read from a layout without image files. `logits` (classes,), float32, are a teacher's
    soft label; of a mosaic (parts, classes), those of its parts. They are not read back."""

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

    @property
    def recorded(self) -> ndarray:
        """The pixels with the channels that were recorded."""
        return _as_recorded(self.metadata, self.pixels)

    def images(self, tiles: int) -> list[tuple[dict[str, Any], ndarray]]:
        """The metadata and pixels of the images in it: its own, or those of its parts. Raises KeyError or ValueError if
        it is no mosaic of tiles × tiles."""
        if tiles == 1:
            return [(self.metadata, self.recorded)]
        parts = zip(self.metadata[PARTS], split(self.pixels, tiles), strict=True)
        return [(fields, _as_recorded(fields, pixels)) for fields, pixels in parts]


def _as_recorded(metadata: dict[str, Any], pixels: ndarray) -> ndarray:
    """The pixels, of one channel if that is what was recorded: WebP has three also for grey images."""
    grey = pixels[..., :1]
    return grey if sha256_bytes(grey.tobytes()) == metadata["pixels_sha256"] and (pixels == grey).all() else pixels


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
    logits = "float32" if description.tiles == 1 else {"sequence": "float32"}  # of each part
    return [
        {"name": "image", "dtype": "image"},
        {"name": "label", "dtype": label or {"class_label": {"names": names}}},
        *_dtypes(COLUMN_TYPES if description.tiles == 1 else MOSAIC_TYPES),
        *([{"name": PARTS, "list": _dtypes(PART_TYPES)}] if description.tiles > 1 else []),
        *([{"name": "logits", "sequence": logits}] if description.soft_labels else []),
    ]


def _dtypes(types: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "dtype": kind} for name, kind in types.items()]


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

    return _read_ahead(read, records, task)


def mosaic_examples(
    run: RunDirectory,
    records: Sequence[ImageRecord],
    image_format: str,
    tiles: int,
    logits: Mapping[str, ndarray] | None,
    task: Task,
) -> Iterator[Example]:
    """The run's images in order as mosaics of tiles × tiles, filled by those of a class; each image is checked against
    its record when read."""
    classes, each = run.classes, tiles * tiles

    def read(own: Sequence[ImageRecord]) -> Example:
        label, parts = own[0].class_index, [shrunk(run.pixels(record), tiles) for record in own]
        pixels = stitched(parts, tiles)
        data = encode(pixels, image_format)
        fields = mosaic_metadata(own, classes[label], sha256_bytes(data), pixels, parts)
        return Example(label, fields, data, np.stack([logits[record.key] for record in own]) if logits else None)

    return _read_ahead(read, [records[first : first + each] for first in range(0, len(records), each)], task)


def _read_ahead(read: Callable[[Item], Example], items: Sequence[Item], task: Task) -> Iterator[Example]:
    """What is read of the items, in order: a few are read, checked and encoded while earlier ones are written."""

    def read_all(chunk: Sequence[Item]) -> list[Example]:
        return [read(item) for item in chunk]

    chunks = (items[first : first + CHUNK] for first in range(0, len(items), CHUNK))
    with ThreadPoolExecutor(READERS) as pool:
        for chunk in in_order(pool, read_all, chunks, READ_AHEAD):
            yield from chunk
            task.advance(len(chunk))
