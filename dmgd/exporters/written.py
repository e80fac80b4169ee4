"""The files of an export: hashed while they are written, listed in its index."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

PIECE = 1 << 20


@dataclass(frozen=True)
class WrittenFile:
    """A finished file: its path within the export, SHA-256, size in bytes, and how many images it holds."""

    path: str
    sha256: str
    bytes: int
    images: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class HashedFile:
    """A binary file opened for writing from start to end, that knows its digest and size.

    It writes in large pieces, and hashes each in `thread` while the next is gathered.
    """

    def __init__(self, file: BinaryIO, thread: ThreadPoolExecutor):
        self._file, self._digest, self.size = file, hashlib.sha256(), 0
        self._piece, self._thread = bytearray(), thread
        self._hashing: Future[None] | None = None

    def write(self, data: bytes) -> int:
        self._piece += data
        self.size += memoryview(data).nbytes
        if len(self._piece) >= PIECE:
            self.flush()
        return memoryview(data).nbytes

    def flush(self) -> None:
        if self._hashing:
            self._hashing.result()  # so that never more than two pieces are in memory
        self._hashing = self._thread.submit(self._digest.update, self._piece)
        self._file.write(self._piece)
        self._piece = bytearray()

    def tell(self) -> int:
        return self.size

    def close(self) -> None:
        if not self.closed:
            self.flush()
            self._file.close()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def written(self, path: str, images: int) -> WrittenFile:
        """What the index says of the file, which is closed."""
        if self._hashing:
            self._hashing.result()
        return WrittenFile(path, self._digest.hexdigest(), self.size, images)


@contextmanager
def hashed_file(folder: Path, path: str) -> Iterator[HashedFile]:
    """`folder / path`, new, open for writing; its parents are made. An OSError, such as a full disk, names the file."""
    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with ThreadPoolExecutor(1) as thread, place.open("wb") as file:
            hashed = HashedFile(file, thread)
            yield hashed
            hashed.close()
    except OSError as error:
        error.filename = error.filename or str(place)
        raise


def write_hashed(folder: Path, path: str, data: bytes, images: int = 0) -> WrittenFile:
    """Write a whole file `folder / path`."""
    with hashed_file(folder, path) as file:
        file.write(data)
    return file.written(path, images)
