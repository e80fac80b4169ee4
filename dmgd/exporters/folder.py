"""The folder of an export, written to a staging folder and moved into place at the end. `index.json`, which lists the
files with their digests, comes last: an export with an index is complete."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dmgd.errors import ArtifactError, MismatchError, UsageError
from dmgd.files import GUARD, guarded, read_json, sync
from dmgd.progress import Progress

FORMAT = 3
INDEX = "index.json"
STAGING = ".dmgd-unfinished"
BLOCK = 1 << 20


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a finished export. Raises UsageError if the folder has none, ArtifactError if it is damaged or has
    another format."""
    missing = UsageError(f"{folder} is not an export (it has no {INDEX}); make one with dmgd export")
    remedy = "export the run again to a new folder"
    return read_json(folder / INDEX, FORMAT, ("files", "run"), missing=missing, remedy=remedy)


@contextmanager
def output_folder(out: Path) -> Iterator[None]:
    """Hold the guard of `out`. Remove an unfinished export there, and nothing else.

    Raises UsageError unless `out` is a new or empty folder or an export.
    """
    with guarded(out):
        _remove_leftover(out)
        others = [path.name for path in out.iterdir() if path.name != GUARD]
        if others and INDEX not in others:
            raise UsageError(
                f"{out} exists and is not an export (it holds {min(others)}); choose a new or empty --out folder"
            )
        yield


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A staging folder to write to; if the block succeeds, its files are moved to `out`, the index last.

    It is inside `out`, which may be a mount point, and is removed if the block fails.
    """
    staging = out / STAGING
    staging.mkdir()
    try:
        yield staging
        files = [path.relative_to(staging) for path in staging.rglob("*") if path.is_file()]
        for path in sorted(files, key=lambda path: (path == Path(INDEX), path)):
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            if path == Path(INDEX):
                for folder in {out / parent for other in files for parent in other.parents}:
                    sync(folder)
            (staging / path).replace(out / path)
        sync(out)
        shutil.rmtree(staging)
    except BaseException:
        _remove_leftover(out)
        raise


def _remove_leftover(out: Path) -> None:
    """Remove an unfinished export: the staging folder, and the files that were already moved out of it."""
    staging = out / STAGING
    if (staging / INDEX).exists():
        for file in read_index(staging)["files"]:
            path = out / file["path"]
            if not (staging / file["path"]).exists():
                path.unlink(missing_ok=True)
            with suppress(OSError):
                path.parent.rmdir() if path.parent != out else None
    if staging.exists():
        shutil.rmtree(staging)


def same_export(out: Path, wanted: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """The index of the export at `out`. Raises MismatchError if it is not the one wanted."""
    index = read_index(out)
    if differing := sorted(key for key in wanted if index.get(key) != wanted[key]):
        raise MismatchError(
            f"{out} contains another export (other {', '.join(differing)}); choose another --out folder"
        )
    missing = [file["path"] for file in index["files"] if not (out / file["path"]).exists()]
    if missing:
        raise ArtifactError(f"{out / missing[0]} is missing from the export; choose another --out folder")
    progress.note(f"{out} contains this export already; dmgd verify {out} checks it")
    return index


@dataclass(frozen=True)
class WrittenFile:
    """A finished file: its path within the export, SHA-256, size in bytes, and number of images."""

    path: str
    sha256: str
    bytes: int
    images: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class HashedFile:
    """A binary file for sequential writing that computes its digest and size.

    It writes large blocks, and hashes each in `thread` while the next is filled.
    """

    def __init__(self, file: BinaryIO, thread: ThreadPoolExecutor):
        self._file, self._digest, self.size = file, hashlib.sha256(), 0
        self._block, self._thread = bytearray(), thread
        self._hashing: Future[None] | None = None

    def write(self, data: bytes) -> int:
        self._block += data
        self.size += memoryview(data).nbytes
        if len(self._block) >= BLOCK:
            self.flush()
        return memoryview(data).nbytes

    def flush(self) -> None:
        if self._hashing:
            self._hashing.result()  # at most two blocks in memory
        self._hashing = self._thread.submit(self._digest.update, self._block)
        self._file.write(self._block)
        self._block = bytearray()

    def tell(self) -> int:
        return self.size

    def close(self) -> None:
        if not self.closed:
            self.flush()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def written(self, path: str, images: int) -> WrittenFile:
        """The closed file's entry in the index."""
        if self._hashing:
            self._hashing.result()
        return WrittenFile(path, self._digest.hexdigest(), self.size, images)


@contextmanager
def hashed_file(folder: Path, path: str) -> Iterator[HashedFile]:
    """`folder / path`, created with its parents, open for writing. An OSError, such as a full disk, names the file."""
    whole = folder / path
    whole.parent.mkdir(parents=True, exist_ok=True)
    try:
        with ThreadPoolExecutor(1) as thread, whole.open("wb") as file:
            hashed = HashedFile(file, thread)
            yield hashed
            hashed.close()
    except OSError as error:
        error.filename = error.filename or str(whole)
        raise


def write_hashed(folder: Path, path: str, data: bytes, images: int = 0) -> WrittenFile:
    with hashed_file(folder, path) as file:
        file.write(data)
    return file.written(path, images)
