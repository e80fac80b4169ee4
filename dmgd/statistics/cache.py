"""The latents of a source's split in the cache: numbered parts, and a record beside each that is written last.

    part-00000.npy        the latents, memory-mapped when read
    part-00000.index.npy  of each: class, image, digest, detail
    part-00000.json       how many items of the source it covers, the unreadable ones, the SHA-256 of both files

A part counts when its record and its checksum are right; the first that is not, and all behind it, are made again.
"""

import hashlib
import json
import math
import mmap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from dmgd.files import sha256_file, write_json, written_whole


@dataclass(frozen=True)
class PartRecord:
    """`items` of the source, readable or not, the `bad` ones with name and reason; `last`: the split ends here.

    `batch_invariant`: whether the encoder was seen to give a picture the same latent whatever shares its batch.
    """

    items: int
    rows: int
    bad: list[tuple[str, str]]
    last: bool
    batch_invariant: bool
    sha256: tuple[str, ...] = ()


# What is known of a latent: the class index `label`, the ordinal `sample` among the split's readable images, the
# `digest` of the pixels, whether they were `mirrored`, and their `detail`.
INDEX = np.dtype([("label", "<i4"), ("sample", "<i8"), ("digest", ">u8", (4,)), ("mirrored", "?"), ("detail", "<f8")])


@dataclass
class LatentParts:
    """The parts in `folder`, which may be unfinished."""

    folder: Path
    records: list[PartRecord] = field(default_factory=list)
    damaged: str | None = None

    @classmethod
    def open(cls, folder: Path) -> "LatentParts":
        """The whole parts in `folder`, from the first on; `damaged` says what is wrong with the next, if anything."""
        parts = cls(folder)
        while not parts.complete and parts._record_path(len(parts.records)).is_file():
            number = len(parts.records)
            try:
                fields = json.loads(parts._record_path(number).read_text())
                record = PartRecord(**fields)
                if parts._checksums(number) != tuple(record.sha256):
                    raise ValueError("its checksum differs")
            except (OSError, ValueError, TypeError) as error:
                parts.damaged = f"{parts.path(number)} is damaged ({error})"
                break
            parts.records.append(record)
        return parts

    @property
    def complete(self) -> bool:
        return bool(self.records) and self.records[-1].last

    def path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.npy"

    def _record_path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.json"

    def index_path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.index.npy"

    def _checksums(self, number: int) -> tuple[str, ...]:
        return tuple(sha256_file(path) for path in (self.path(number), self.index_path(number)))

    def append(self, latents: ndarray, index: ndarray, record: PartRecord) -> None:
        """Store the next part, float32 `latents` (n, d) and their `index` (n,) of type INDEX; its record comes last."""
        number = len(self.records)
        for path, rows in ((self.path(number), latents), (self.index_path(number), index)):
            with written_whole(path) as temporary, temporary.open("wb") as file:
                np.save(file, rows, allow_pickle=False)
        whole = PartRecord(**{**asdict(record), "sha256": self._checksums(number)})
        write_json(self._record_path(number), asdict(whole))
        self.records.append(whole)

    def read_index(self, number: int) -> ndarray:
        return np.load(self.index_path(number), allow_pickle=False)

    def read(self, number: int) -> np.memmap:
        """The latents of one part, memory-mapped."""
        return np.load(self.path(number), mmap_mode="r", allow_pickle=False)


@dataclass(frozen=True)
class ClassLatents:
    """The flattened latents `rows` (n, d), float32, of one class, and of which image each is: `samples` (n,) holds its
    ordinal among the readable images of the source's split. They are in the order of the pixels' digests, which is
    the same however the source is stored or shuffled."""

    rows: ndarray
    samples: ndarray


class Latents(Sequence[ClassLatents]):
    """All latents of a split, class by class, read from the parts when asked for: one class is in memory at a time.

    `content` is a digest of the split's pixels and classes, whatever their order and the files they came in; `total`
    counts the images, `detail` is their mean, `bad` lists those that could not be read.
    """

    def __init__(self, parts: LatentParts, identities: Sequence[str]):
        indices = [parts.read_index(number) for number in range(len(parts.records))]
        index = np.concatenate(indices)
        digests, mirrored = index["digest"].astype(">u8"), index["mirrored"]  # concatenate turns bytes round
        self._parts, self._samples = parts, index["sample"].copy()
        self._starts = np.cumsum([0, *(len(rows) for rows in indices)])
        self._order = np.lexsort((self._samples, *digests.T[::-1], index["label"]))
        self._bounds = np.searchsorted(index["label"][self._order], np.arange(len(identities) + 1))
        self.dimension: int = parts.read(0).shape[1]
        self.total = int((~mirrored).sum())
        self.detail = math.fsum(index["detail"][~mirrored]) / max(self.total, 1)  # fsum: the same in any order
        self.bad = [(name, reason) for record in parts.records for name, reason in record.bad]
        self.batch_invariant = all(record.batch_invariant for record in parts.records)
        plain = [places[~mirrored[places]] for places in map(self._places, range(len(self)))]
        self.content = content_digest(identities, [[row.tobytes() for row in digests[own]] for own in plain])

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"class {index} of {len(self)}")
        places = self._places(index % len(self))
        return ClassLatents(self._gather(places), self._samples[places])

    def images(self, index: int) -> int:
        """How many images class `index` has, mirrored ones not counted."""
        return len(np.unique(self._samples[self._places(index)]))

    def _places(self, index: int) -> ndarray:
        return self._order[self._bounds[index] : self._bounds[index + 1]]

    def _gather(self, places: ndarray) -> ndarray:
        """The latents at `places`. Each part is mapped only while it is read, or the pages of all would add up."""
        rows = np.empty((len(places), self.dimension), np.float32)
        owner = np.searchsorted(self._starts, places, side="right") - 1
        for number in np.unique(owner):
            mine = owner == number
            mapped, wanted = self._parts.read(number), places[mine] - self._starts[number]
            _announce(mapped, wanted)
            rows[mine] = mapped[wanted]
        return rows


def _announce(mapped: np.memmap, rows: ndarray) -> None:
    """Ask the system for just these rows of a memory-mapped array, where it takes advice.

    Its own read-ahead fetches many times as much when a class is scattered over a file that is not in memory.
    """
    memory = mapped.base
    if not isinstance(memory, mmap.mmap) or not hasattr(mmap, "MADV_WILLNEED"):
        return
    memory.madvise(mmap.MADV_RANDOM)
    length = mapped.strides[0]
    for row in rows.tolist():
        start = mapped.offset + row * length
        page = start - start % mmap.PAGESIZE
        memory.madvise(mmap.MADV_WILLNEED, page, start + length - page)


def content_digest(identities: Sequence[str], digests: Sequence[Sequence[bytes]]) -> str:
    """A digest of the classes and of the `digests` of each class's images, whatever the order of both."""
    digest = hashlib.sha256()
    for name, own in sorted(zip(identities, digests, strict=True)):
        digest.update(f"{name}\0{len(own)}\n".encode() + b"".join(sorted(own)))
    return digest.hexdigest()
