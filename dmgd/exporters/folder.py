"""An export's folder, which is filled aside and becomes whole at the end, wherever the work stops: `index.json`, which
lists the files with the digests that were taken while they were written, comes last, so that its presence says that
the export is whole."""

import hashlib
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dmgd.errors import ArtifactError, MismatchError, UsageError
from dmgd.files import LOCK, locked, read_json
from dmgd.progress import Progress

FORMAT = 3
INDEX = "index.json"
STAGING = ".dmgd-unfinished"
PIECE = 1 << 20


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a finished export. Raises UsageError if the folder has none, ArtifactError for one that is damaged
    or of another version."""
    missing = UsageError(f"{folder} is not an export (it has no {INDEX}); make one with dmgd export")
    remedy = "export the run again to a new folder"
    return read_json(folder / INDEX, FORMAT, ("files", "run"), missing=missing, remedy=remedy)


@contextmanager
def output_folder(out: Path) -> Iterator[None]:
    """Hold `out` as the only writer. What an earlier attempt left unfinished there is removed, and nothing else.

    Raises UsageError if `out` is something else than a new or empty folder or an export.
    """
    with locked(out):
        _remove_leftover(out)
        others = [path.name for path in out.iterdir() if path.name != LOCK]
        if others and INDEX not in others:
            raise UsageError(
                f"{out} holds something else ({min(others)}) and no export; choose a new or empty --out folder"
            )
        yield


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A new folder to write to; when the block ends well, its files are moved to `out`, the index last.

    It lies within `out`, which may be a mount point, and is removed when the block fails.
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
    """Remove an unfinished export: what is still aside, and what was moved already."""
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
        raise MismatchError(f"{out} holds another export (other {', '.join(differing)}); choose another --out folder")
    missing = [file["path"] for file in index["files"] if not (out / file["path"]).exists()]
    if missing:
        raise ArtifactError(f"{out / missing[0]} is missing from the export; choose another --out folder")
    progress.note(f"{out} holds this export already; dmgd verify {out} checks it")
    return index


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
