"""Writing files so that a reader sees a whole one or none, and naming them so that every file system takes them."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


def safe_name(name: str) -> str:
    """`name` with all but ASCII letters, digits, `_` and `-` replaced by `_`, at most 60 characters, never empty.

    Different names may become equal: put an index before it.
    """
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:_NAME_LENGTH] or "_"
