"""The folder of an export, written to a staging folder and moved into place at the end. `index.json`, which lists the
files with their digests, comes last: an export with an index is complete."""

import hashlib
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import RawIOBase
from pathlib import Path
from typing import Any

from dmgd.errors import ArtifactError, MismatchError, UsageError
from dmgd.files import file_problem, is_inside, read_sealed
from dmgd.guard import GUARD, guarded
from dmgd.progress import Progress

FORMAT = 4
INDEX, CARD = "index.json", "README.md"
TILES = "tiles"  # in the index of mosaics only
WEIGHTS = "weights"  # in the index of sets whose images have some only: their digest
STAGING = ".dmgd-unfinished"
BLOCK = 1 << 20


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a finished export. Raises UsageError if the folder has none, ArtifactError if it is damaged, has
    another format, or lists files outside the folder."""
    missing = UsageError(f"{folder} is not an export (it has no {INDEX}); make one with dmgd export")
    remedy = "export the run again to a new folder"
    index = read_sealed(folder / INDEX, FORMAT, ("files", "run"), missing=missing, remedy=remedy)
    for file in index["files"]:
        if not is_inside(file["path"]):
            raise ArtifactError(f"{folder / INDEX} was forged: {file['path']!r} is not in the folder; {remedy}")
    if TILES in index and not (type(index[TILES]) is int and index[TILES] > 1):
        raise ArtifactError(f"{folder / INDEX} was forged: mosaics have no {index[TILES]!r} tiles; {remedy}")
    return index


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
            (staging / path).replace(out / path)
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
    """The index of the export at `out`. Raises MismatchError if it is not the one wanted, ArtifactError if a file of it
    is missing or was changed."""
    index = read_index(out)
    if differing := sorted(key for key in {*wanted, TILES, WEIGHTS} if index.get(key) != wanted.get(key)):
        raise MismatchError(
            f"{out} contains another export (other {', '.join(differing)}); choose another --out folder"
        )
    problems = (file_problem(out, file["path"], file["sha256"]) for file in index["files"])
    if problem := next(filter(None, problems), None):
        raise ArtifactError(f"{out} is damaged ({problem}); remove it and repeat the command, or choose another --out")
    progress.note(f"{out} contains this export already, and all its files are sound")
    return index


class HashedFile(RawIOBase):
    """A file for sequential writing that computes its digest and size. A block is written and hashed in `thread` while
    another is filled, and then the other way round: there are only two."""

    def __init__(self, path: Path, thread: ThreadPoolExecutor):
        self._file, self._thread = path.open("wb", buffering=0), thread
        self._digest, self._size = hashlib.sha256(), 0
        self._filling, self._stored, self._filled = bytearray(BLOCK), bytearray(), 0
        self._storing: Future[None] | None = None

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        self._size += (size := len(left))
        while left:
            count = min(len(left), BLOCK - self._filled)
            self._filling[self._filled : self._filled + count] = left[:count]
            self._filled, left = self._filled + count, left[count:]
            if self._filled == BLOCK:
                self._await()
                self._storing = self._thread.submit(self._store, self._filling, BLOCK)
                self._filling, self._stored, self._filled = self._stored or bytearray(BLOCK), self._filling, 0
        return size

    def close(self) -> None:
        try:
            if not self.closed:
                self._await()
                self._store(self._filling, self._filled)
        finally:
            self._file.close()
            super().close()

    def entry(self, path: str, images: int = 0) -> dict[str, Any]:
        """The entry in the index of the finished file, whose path within the export is `path`."""
        return {"path": path, "sha256": self._digest.hexdigest(), "bytes": self._size, "images": images}

    def _await(self) -> None:
        if self._storing:
            self._storing.result()

    def _store(self, block: bytearray, size: int) -> None:
        left = memoryview(block)[:size]
        self._digest.update(left)
        while left:
            left = left[self._file.write(left) :]


@contextmanager
def hashed_file(folder: Path, path: str) -> Iterator[HashedFile]:
    """`folder / path`, created with its parents, open for writing. An OSError, such as a full disk, names the file."""
    whole = folder / path
    whole.parent.mkdir(parents=True, exist_ok=True)
    try:
        with ThreadPoolExecutor(1) as thread, HashedFile(whole, thread) as file:
            yield file
    except OSError as error:
        error.filename = error.filename or str(whole)
        raise


def write_hashed(folder: Path, path: str, data: bytes, images: int = 0) -> dict[str, Any]:
    """Write a whole file and return its entry in the index."""
    with hashed_file(folder, path) as file:
        file.write(data)
    return file.entry(path, images)
