"""The latent cache of a source's split: numbered parts, each with a record that is written last.

    part-00000.npy        the latents, memory-mapped when read
    part-00000.index.npy  of each: class, image, digest, detail
    part-00000.json       how many images of the source it covers, the unreadable ones, the SHA-256 of both files, and
                          a checksum of itself

A part is valid if its record and checksums are; the first invalid part and all after it are computed again.
"""

import hashlib
import math
import mmap
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from dataclasses import fields as dataclass_fields
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy import ndarray

from dmgd.errors import ArtifactError
from dmgd.files import read_sealed, scratch_folder, sha256_file, write_sealed, written_whole
from dmgd.progress import Progress

FORMAT = 3
# NumPy reads the header of a file as a Python literal, and CPython 3.11 may raise a SystemError of two threads that do
# so at once (python/cpython#106905); k-means has a thread for every core.
_ONE_HEADER = Lock()


@dataclass(frozen=True)
class PartRecord:
    """The part covers `items` images of the source, unreadable ones included; `bad` lists name and reason of these.
    `last`: it is the last part of the split. `batch_invariant`: the encoder's latent of an image was found not to
    depend on the rest of its batch."""

    items: int
    rows: int
    bad: list[tuple[str, str]]
    last: bool
    batch_invariant: bool
    sha256: tuple[str, ...] = ()


# Per latent: the class index `label`, the image's ordinal `sample` among the split's readable images, the `digest` of
# its pixels, whether they are `mirrored`, and their `detail`.
INDEX = np.dtype([("label", "<i4"), ("sample", "<i8"), ("digest", ">u8", (4,)), ("mirrored", "?"), ("detail", "<f8")])


def warn_of_cache(error: OSError, progress: Progress) -> None:
    """Say that nothing can be written to the cache, and that the work goes on without it."""
    reason = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    progress.warn(f"the cache cannot be written ({reason}); going on without it, so the next time starts anew")


class LatentParts:
    """The valid parts in `folder`, up to the first invalid one, whose problem is `damaged`. Without a folder there are
    none, and new ones are temporary: they are removed with this object."""

    def __init__(self, folder: Path | None):
        self.folder = folder
        self.records: list[PartRecord] = []
        self.damaged: str | None = None
        self._temporary: tuple[int, Path] | None = None
        if folder is None:
            self.leave_cache()
        while not (self.complete or self.damaged) and (record := self._next_record()):
            self.records.append(record)

    def _next_record(self) -> PartRecord | None:
        """The record of the next part; None if there is none, or if the part is damaged."""
        number, remedy = len(self.records), "it is encoded again"
        path = self.path(number, ".json")
        try:
            if not path.is_file():
                return None
            content = read_sealed(path, FORMAT, missing=ArtifactError(f"{path} is missing; {remedy}"), remedy=remedy)
            fields = {one.name: content[one.name] for one in dataclass_fields(PartRecord)}
            if not all(self.path(number, ending).is_file() for ending in (".npy", ".index.npy")):
                self.damaged = f"{self.path(number)} is damaged (a file is missing); {remedy}"
            elif self._checksums(number) == tuple(fields["sha256"]):
                return PartRecord(**fields)
            else:
                self.damaged = f"{self.path(number)} is damaged (its checksum differs); {remedy}"
        except OSError as error:
            self.damaged = f"{self.path(number)} is damaged ({error}); {remedy}"
        except ArtifactError as error:
            self.damaged = str(error)
        return None

    @property
    def in_cache(self) -> bool:
        """Whether all parts are kept."""
        return self._temporary is None

    def leave_cache(self) -> None:
        """Write all further parts to a temporary folder."""
        scratch = ExitStack()
        self._temporary = (len(self.records), scratch.enter_context(scratch_folder()))
        weakref.finalize(self, scratch.close)

    @property
    def complete(self) -> bool:
        return bool(self.records) and self.records[-1].last

    def path(self, number: int, ending: str = ".npy") -> Path:
        first, temporary = self._temporary or (math.inf, None)
        folder = temporary if number >= first else self.folder
        assert folder is not None
        return folder / f"part-{number:05d}{ending}"

    def _checksums(self, number: int) -> tuple[str, ...]:
        return tuple(sha256_file(self.path(number, ending)) for ending in (".npy", ".index.npy"))

    def append(self, latents: ndarray, index: ndarray, record: PartRecord) -> None:
        """Write the next part: float32 `latents` (n, d), their `index` (n,) of type INDEX, and last the record."""
        number = len(self.records)
        for ending, rows in ((".npy", latents), (".index.npy", index)):
            with written_whole(self.path(number, ending)) as temporary, temporary.open("wb") as file:
                np.save(file, rows, allow_pickle=False)
        whole = replace(record, sha256=self._checksums(number))
        write_sealed(self.path(number, ".json"), {**asdict(whole), "format": FORMAT})
        self.records.append(whole)

    def read(self, number: int) -> np.memmap:
        """The latents of one part, memory-mapped."""
        with _ONE_HEADER:
            return np.load(self.path(number), mmap_mode="r", allow_pickle=False)


@dataclass(frozen=True)
class ClassLatents:
    """The flattened latents `rows` (n, d), float32, of one class, and the `ordinals` (n,) of their images among the
    readable images of the split, in the order of the pixels' digests: the same however the source is stored."""

    rows: ndarray
    ordinals: ndarray


class Latents(Sequence[ClassLatents]):
    """The latents of a split by class, read from the parts on access: one class is in memory at a time.

    `content` is a digest of the split's pixels and classes, independent of their order and files; `total` is the number
    of images, `detail` their mean detail, `bad` lists the unreadable ones, `in_cache` says whether all parts are kept.
    """

    def __init__(self, parts: LatentParts, identities: Sequence[str]):
        paths = [parts.path(number, ".index.npy") for number in range(len(parts.records))]
        indices = [np.load(path, allow_pickle=False) for path in paths]
        index = np.concatenate(indices)
        digests, mirrored = index["digest"].astype(">u8"), index["mirrored"]  # concatenate swaps the byte order
        self._parts, self._ordinals = parts, index["sample"].copy()
        self._starts = np.cumsum([0, *(len(rows) for rows in indices)])
        self._order = np.lexsort((self._ordinals, *digests.T[::-1], index["label"]))
        self._bounds = np.searchsorted(index["label"][self._order], np.arange(len(identities) + 1))
        self.dimension: int = parts.read(0).shape[1]
        self.in_cache = parts.in_cache
        self.total = int((~mirrored).sum())
        self.detail = math.fsum(index["detail"][~mirrored]) / max(self.total, 1)  # fsum: the same in any order
        self.bad = [(name, reason) for record in parts.records for name, reason in record.bad]
        self.batch_invariant = all(record.batch_invariant for record in parts.records)
        plain = [rows[~mirrored[rows]] for rows in map(self._rows_of, range(len(self)))]
        self.content = content_digest(identities, [[row.tobytes() for row in digests[own]] for own in plain])

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        rows = self._rows_of(range(len(self))[index])
        gathered = np.empty((len(rows), self.dimension), np.float32)
        part_of = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(part_of):  # mapped only while it is read, so that resident pages do not add up
            mine = part_of == number
            mapped, wanted = self._parts.read(number), rows[mine] - self._starts[number]
            _prefetch(mapped, wanted)
            gathered[mine] = mapped[wanted]
        return ClassLatents(gathered, self._ordinals[rows])

    def images(self, index: int) -> int:
        """The number of images of class `index`, without mirror images."""
        return len(np.unique(self._ordinals[self._rows_of(index)]))

    def _rows_of(self, index: int) -> ndarray:
        """The row numbers of a class, counted over all parts."""
        return self._order[self._bounds[index] : self._bounds[index + 1]]


def _prefetch(mapped: np.memmap, rows: ndarray) -> None:
    """Advise the operating system to read just these rows; its read-ahead fetches many times as much."""
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
    """A digest of the classes and of the `digests` of their images, independent of the order of both."""
    digest = hashlib.sha256()
    for name, own in sorted(zip(identities, digests, strict=True)):
        digest.update(f"{name}\0{len(own)}\n".encode() + b"".join(sorted(own)))
    return digest.hexdigest()
