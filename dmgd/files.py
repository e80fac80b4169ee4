"""Writing files so that a reader sees a whole one or none, naming them so that every file system takes them, and one
writer at a time in a folder."""

import fcntl
import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dmgd.errors import ArtifactError, DmgdError, UsageError

LOCK = ".dmgd.lock"
_CHUNK = 1 << 20
_NAME_LENGTH = 60


def sha256_bytes(data: bytes) -> str:
    """The hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def file_problem(folder: Path, name: str, sha256: str) -> str | None:
    """What is wrong with the file `name` in the folder, which should have this digest; None if nothing is."""
    if not (folder / name).is_file():
        return f"{name}: is missing"
    return None if sha256_file(folder / name) == sha256 else f"{name}: was changed (its checksum differs)"


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and a final newline: equal values give equal bytes. NaN and infinities are refused."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; renamed to `path` when the block ends well, else removed.

    An OSError of the block, such as a full disk, names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def is_temporary(name: str, of: str = "") -> bool:
    """Whether a file is called as the temporary one of `written_whole`, of the file named `of` or of any."""
    return re.fullmatch(rf"\.{re.escape(of) or '.+'}\.\d+\.tmp", name) is not None


def remove_temporaries(folder: Path) -> None:
    """Remove what `written_whole` left under `folder` when a process was killed. Only for the folder's one writer."""
    for path in folder.rglob(".*.tmp"):
        if is_temporary(path.name):
            path.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with written_whole(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as canonical JSON, whole or not at all."""
    write_bytes(path, canonical_json(value).encode())


def read_json(path: Path, format: int, keys: Iterable[str], *, missing: DmgdError, remedy: str) -> dict[str, Any]:
    """The JSON object at `path`, whose "format" is `format` and which has the `keys`.

    Raises `missing` if there is no file, and ArtifactError, which ends with the `remedy`, for a damaged one or one of
    another version.
    """
    try:
        value = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing from error
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged ({error}); {remedy}") from error
    if not isinstance(value, dict) or value.get("format") != format:
        raise ArtifactError(f"{path} was written by another version of dmgd; {remedy}")
    if lacking := sorted(set(keys) - value.keys()):
        raise ArtifactError(f"{path} is damaged (it lacks {', '.join(lacking)}); {remedy}")
    return value


def safe_name(name: str) -> str:
    """`name` with all but ASCII letters, digits, `_` and `-` replaced by `_`, at most 60 characters, never empty.

    Different names may become equal: put an index before it.
    """
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:_NAME_LENGTH] or "_"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which is made if need be, and removed again if it has stayed empty.

    The operating system holds the lock for as long as the process lives, so a killed process leaves none behind: the
    file that names its owner is then stale and is taken over. Raises UsageError if `folder` is a file, ArtifactError,
    naming the owner, if another process holds the lock, and where the file system has no locks.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; choose a new or empty --out folder")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    try:
        descriptor = _acquire(path)
        try:
            os.ftruncate(descriptor, 0)
            owner = {"pid": os.getpid(), "host": platform.node(), "command": sys.argv}
            os.write(descriptor, json.dumps(owner).encode())
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)
    finally:
        if is_new:
            with suppress(OSError):
                folder.rmdir()  # only an empty folder can be removed


def _acquire(path: Path) -> int:
    """The descriptor of the locked file at `path`."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = _owner(descriptor)
            os.close(descriptor)
            raise ArtifactError(
                f"{path.parent} is being written by {owner}; wait until it is done, or stop it and repeat this command"
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise ArtifactError(
                f"{path.parent} lies on a file system that cannot lock files ({error.strerror}); choose a local folder"
            ) from error
        # The owner before may have removed the file between opening and locking: then this lock is of no file.
        with suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        os.close(descriptor)


def _owner(descriptor: int) -> str:
    """Who holds the lock, as far as the file says."""
    try:
        owner = json.loads(os.pread(descriptor, 65536, 0))
        return f"process {owner['pid']} on {owner['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
