"""One writer at a time in a folder."""

import fcntl
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dmgd.errors import ArtifactError, UsageError

LOCK = ".dmgd.lock"


@contextmanager
def locked_folder(out: Path) -> Iterator[None]:
    """Hold the lock of `out`, which is made if need be, and removed again if it has stayed empty.

    Raises UsageError if `out` is a file, ArtifactError if another process writes there.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; choose a new or empty --out folder")
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out):
            yield
    finally:
        if is_new:
            with suppress(OSError):
                out.rmdir()  # only an empty folder can be removed


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which exists, while the block runs.

    The operating system holds the lock for as long as the process lives, so a killed process leaves none behind: the
    file that names its owner is then stale and is taken over. Raises ArtifactError, naming the owner, if another
    process holds the lock, and where the file system has no locks.
    """
    path = folder / LOCK
    descriptor = _acquire(path)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps({"pid": os.getpid(), "host": platform.node(), "command": sys.argv}).encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


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
        try:
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)


def _owner(descriptor: int) -> str:
    """Who holds the lock, as far as the file says."""
    try:
        owner = json.loads(os.pread(descriptor, 65536, 0))
        return f"process {owner['pid']} on {owner['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
