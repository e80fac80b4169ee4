"""The folder guard, which allows one writer at a time in a folder."""

import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dmgd.errors import ArtifactError, UsageError
from dmgd.files import flocked

GUARD = ".dmgd.guard"


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Hold the guard of `folder`, which is created if missing, and removed again if it is still empty.

    The guard is an flock on a file that names its holder. It ends with the process; the stale file of a killed process
    is taken over. Raises UsageError if `folder` is a file or contains links through which files would be written
    elsewhere, ArtifactError if another process holds the guard, naming it, or if the file system has no flock.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; choose a new or empty --out folder")
    if link := next((path for path in folder.rglob("*") if _leads_elsewhere(path)), None):
        raise UsageError(f"{link} is a link, and nothing is written through links; remove it, or choose another --out")
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
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            if flocked(descriptor, path):
                return descriptor
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
        os.close(descriptor)  # the previous holder removed it between open and flock: try again


def _leads_elsewhere(path: Path) -> bool:
    return path.is_symlink() and (path.is_dir() or path.name == GUARD)


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 65536, 0))
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
