"""Atomic writes, digests, JSON with checksums, and portable file names."""

import errno
import fcntl
import functools
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from dmgd.errors import ArtifactError, DmgdError

SEAL = "checksum"
TEMPORARY = ".dmgd-tmp-"  # followed by a random token: a name that is never a user's own
_BLOCK = 1 << 20
_NAME_LENGTH = 60


def sha256_bytes(data: bytes) -> str:
    """The hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def open_regular(path: Path) -> BinaryIO:
    """The file, open for reading. Raises OSError for a FIFO or a device, which might never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def load_json(path: Path) -> Any:
    """The JSON value in a file. Raises OSError if it cannot be read, ValueError if it is damaged."""
    with open_regular(path) as file:
        try:
            return json.loads(file.read())
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error


def file_problem(folder: Path, name: str, sha256: str) -> str | None:
    """Why the file `name` in the folder does not have this digest, in a few words, or None if it has."""
    if not (folder / name).is_file():
        return f"{name}: is missing"
    return None if sha256_file(folder / name) == sha256 else f"{name}: was changed (its checksum differs)"


def is_inside(name: str) -> bool:
    """Whether `name` is a plain relative path, which leads nowhere but into the folder that it is relative to."""
    return not Path(name).is_absolute() and ".." not in Path(name).parts and "\0" not in name


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and a final newline: equal values give equal bytes. NaN and infinities are refused."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; if the block succeeds, it is renamed to `path` and both file and
    folder are flushed to the disk, else it is removed.

    What killed processes left in the folder is removed first. A link at `path` is replaced, not followed. An OSError in
    the block, such as a full disk, gets the file's name, and a reason where it has none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _swept(path.parent)
        temporary, descriptor = _new_temporary(path.parent)
        try:
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(descriptor)
    except OSError as error:
        own = error.filename is None or is_temporary(Path(os.fsdecode(error.filename)).name)
        name = str(path) if own else error.filename
        raise OSError(error.errno or 0, error.strerror or str(error), name) from error


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder for temporary files, which is removed at the end; the next call removes those of killed
    processes."""
    parent = Path(tempfile.gettempdir())
    remove_temporaries(parent, deep=False)
    folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=parent))
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        flocked(descriptor, folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def is_temporary(name: str) -> bool:
    """Whether `name` is one that only `written_whole` and `scratch_folder` give."""
    return re.fullmatch(re.escape(TEMPORARY) + r"\w+", name) is not None


def remove_temporaries(folder: Path, *, deep: bool = True) -> None:
    """Remove the temporary files and folders that killed processes left in `folder` and, if `deep`, below it.

    Those in use are locked, and stay.
    """
    for path in [*(folder.rglob if deep else folder.glob)(TEMPORARY + "*")]:
        with suppress(OSError):  # another process was faster, or it belongs to another user
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if is_temporary(path.name) and flocked(descriptor, path):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(descriptor)


@functools.cache
def _swept(folder: Path) -> None:
    """Remove what killed processes left in the folder, once per process."""
    remove_temporaries(folder, deep=False)


def _new_temporary(folder: Path) -> tuple[Path, int]:
    """A new empty file in the folder, and a descriptor that keeps it locked."""
    while True:
        path = folder / f"{TEMPORARY}{secrets.token_hex(8)}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            if flocked(descriptor, path):
                return path, descriptor
        except BlockingIOError:
            pass  # taken for a dead process's, in the moment before it was locked
        except OSError:  # no locks on this file system: then nobody removes it, either
            return path, descriptor
        os.close(descriptor)


def flocked(descriptor: int, path: Path) -> bool:
    """Whether the file, whose flock is taken, is still the one at `path`. Raises BlockingIOError if another has it."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk, so that they survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with written_whole(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as canonical JSON, atomically."""
    write_bytes(path, canonical_json(value).encode())


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write the JSON object `value` with a checksum of itself, so that no later change to it goes unnoticed."""
    write_json(path, {**value, SEAL: _seal(value)})


def read_sealed(
    path: Path, format: int, keys: Iterable[str] = (), *, missing: DmgdError, remedy: str
) -> dict[str, Any]:
    """The JSON object that `write_sealed` wrote to `path`, without its checksum, with its "format" and `keys` checked.

    Raises `missing` if there is no file, ArtifactError, with the `remedy`, if it was changed or is another one.
    """
    value = read_json(path, format, keys, missing=missing, remedy=remedy)
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
        value = load_json(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); {remedy}") from error
    if not isinstance(value, dict) or value.get("format") != format:
        raise ArtifactError(f"{path} was written by another version of dmgd; {remedy}")
    if lacking := sorted(set(keys) - value.keys()):
        raise ArtifactError(f"{path} is damaged (it lacks {', '.join(lacking)}); {remedy}")
    return value


def misfit(value: Any, shape: Any, at: str = "it") -> str | None:
    """Where the JSON `value` is not of this `shape`, in a few words; None if it is.

    A shape is a type, [shape] of a list, or {key: shape} of an object, which may have other keys, too; a key whose
    shape allows None may be missing. Numbers are finite.
    """
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{at} is not an object"
        found = (misfit(value.get(key), part, key if at == "it" else f"{at}.{key}") for key, part in shape.items())
    elif isinstance(shape, list):
        if not isinstance(value, list):
            return f"{at} is not a list"
        found = (misfit(one, shape[0], f"{at}[{index}]") for index, one in enumerate(value))
    else:
        fits = shape is bool if isinstance(value, bool) else isinstance(value, shape)
        fits = fits and not (isinstance(value, float) and not math.isfinite(value))
        return None if fits else f"{at} is {json.dumps(value)[:40]}"
    return next((problem for problem in found if problem), None)


def safe_name(name: str) -> str:
    """`name` with all but ASCII letters, digits, `_` and `-` replaced by `_`, at most 60 characters, never empty.

    Not injective: prefix it with an index.
    """
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:_NAME_LENGTH] or "_"
