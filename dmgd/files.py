"""Atomic writes, digests, portable file names, and the folder guard, which allows one writer at a time in a folder."""

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

GUARD = ".dmgd.guard"
SEAL = "checksum"
_BLOCK = 1 << 20
_NAME_LENGTH = 60


def sha256_bytes(data: bytes) -> str:
    """The hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def file_problem(folder: Path, name: str, sha256: str) -> str | None:
    """Why the file `name` in the folder does not have this digest, in a few words, or None if it has."""
    if not (folder / name).is_file():
        return f"{name}: is missing"
    return None if sha256_file(folder / name) == sha256 else f"{name}: was changed (its checksum differs)"


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and a final newline: equal values give equal bytes. NaN and infinities are refused."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; renamed to `path` if the block succeeds, else removed.

    An OSError in the block, such as a full disk, gets the file's name.
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
    """Whether `name` is that of a temporary file of `written_whole`, for the file named `of` or for any file."""
    return re.fullmatch(rf"\.{re.escape(of) or '.+'}\.\d+\.tmp", name) is not None


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files under `folder` that a killed process left. Only for the holder of the guard."""
    for path in folder.rglob(".*.tmp"):
        if is_temporary(path.name):
            path.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with written_whole(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as canonical JSON, atomically."""
    write_bytes(path, canonical_json(value).encode())


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write the JSON object `value` with a checksum of itself, so that no later change to it goes unnoticed."""
    write_json(path, {**value, SEAL: _seal(value)})


def read_sealed(path: Path, format: int, *, missing: DmgdError, remedy: str) -> dict[str, Any]:
    """The JSON object that `write_sealed` wrote to `path`, without its checksum.

    Raises `missing` if there is no file, ArtifactError, with the `remedy`, if it was changed or has another format.
    """
    value = read_json(path, format, (), missing=missing, remedy=remedy)
    if value.pop(SEAL, None) != _seal(value):
        raise ArtifactError(f"{path} was changed (its checksum differs); {remedy}")
    return value


def _seal(value: dict[str, Any]) -> str:
    return sha256_bytes(json.dumps(value, sort_keys=True).encode())


def read_json(path: Path, format: int, keys: Iterable[str], *, missing: DmgdError, remedy: str) -> dict[str, Any]:
    """The JSON object at `path`, with its "format" and `keys` checked.

    Raises `missing` if there is no file, ArtifactError, with the `remedy`, if it is damaged or has another format.
    """
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); {remedy}") from error
    if not isinstance(value, dict) or value.get("format") != format:
        raise ArtifactError(f"{path} was written by another version of dmgd; {remedy}")
    if lacking := sorted(set(keys) - value.keys()):
        raise ArtifactError(f"{path} is damaged (it lacks {', '.join(lacking)}); {remedy}")
    return value


def safe_name(name: str) -> str:
    """`name` with all but ASCII letters, digits, `_` and `-` replaced by `_`, at most 60 characters, never empty.

    Not injective: prefix it with an index.
    """
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:_NAME_LENGTH] or "_"


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Hold the guard of `folder`, which is created if missing, and removed again if it is still empty.

    The guard is an flock on a file that names its holder. It ends with the process; the stale file of a killed process
    is taken over. Raises UsageError if `folder` is a file, ArtifactError if another process holds the guard, naming it,
    or if the file system does not support flock.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; choose a new or empty --out folder")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / GUARD
    try:
        descriptor = _acquire(path)
        try:
            os.ftruncate(descriptor, 0)
            holder = {"pid": os.getpid(), "host": platform.node(), "command": sys.argv}
            os.write(descriptor, json.dumps(holder).encode())
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)
    finally:
        if is_new:
            with suppress(OSError):
                folder.rmdir()  # only an empty folder can be removed


def _acquire(path: Path) -> int:
    """The descriptor of the file at `path`, with the flock held."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise ArtifactError(
                f"{path.parent} is being written by {holder}; wait until it is done, or stop it and repeat this command"
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise ArtifactError(
                f"{path.parent} is on a file system without support for flock ({error.strerror}); choose a local folder"
            ) from error
        # The previous holder may have removed the file between open and flock: then try again.
        with suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 65536, 0))
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
