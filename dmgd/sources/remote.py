"""Files at URLs, of any protocol that fsspec knows: found without reading them, and read as streams, never copied."""

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from platformdirs import user_cache_path

from dmgd.classes.info import natural_key
from dmgd.errors import ArtifactError, DmgdError, UsageError, said_by
from dmgd.files import read_sealed, write_sealed
from dmgd.sources.source import files_by_split
from dmgd.specs import has_credentials, shown_url

# What file systems say of a file's content: those of S3, of Google's and Azure's storage, of HTTP, of the Hub, …
_STAMPS = ("etag", "md5", "checksum", "digest", "blob_id", "xet_hash", "generation", "modified", "mtime", "created")
_BLOCK = 8 << 20
_ATTEMPTS = 4
THREADS = 16
_FORMAT = 1


@dataclass(frozen=True)
class RemoteFile:
    """A file at `url`, of `size` bytes. `stamp` changes when its content does, as far as its file system says; it is
    empty if that says nothing but the size."""

    url: str
    size: int
    stamp: str

    def __str__(self) -> str:
        return shown_url(self.url)

    @property
    def path(self) -> PurePosixPath:
        """The path in the URL, without a query."""
        return PurePosixPath(shown_url(self.url).partition("://")[2])

    @property
    def name(self) -> str:
        return self.path.name

    def open(self) -> BinaryIO:
        """The file, open for reading. Errors of the network are ArtifactErrors."""
        return io.BufferedReader(_Blocks(self), 1 << 16)


class _Blocks(io.RawIOBase):
    """A file that is read in blocks. The last two are kept, as the reader of a tar file goes back by one sample."""

    def __init__(self, file: RemoteFile):
        self._file, self._at, self._kept = file, 0, dict[int, bytes]()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        if self._at >= self._file.size:
            return 0
        number, first = divmod(self._at, _BLOCK)
        if number not in self._kept:
            before = {n: block for n, block in self._kept.items() if n == number - 1}
            self._kept = {**before, number: _fetched(self._file, number * _BLOCK)}
        data = self._kept[number][first : first + len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _fetched(file: RemoteFile, start: int) -> bytes:
    """One block of the file, tried several times."""
    fs, path = filesystem(file.url)
    end = min(start + _BLOCK, file.size)
    # Clients that are not asynchronous would read ahead of each block, which is thrown away.
    options = {} if fs.async_impl else {"cache_type": "none"}
    with failures(file.url):
        for attempt in range(_ATTEMPTS):
            try:
                data: bytes = fs.cat_file(path, start, end, **options)
                break
            except (FileNotFoundError, PermissionError):
                raise
            except Exception:  # as in `failures`
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(2**attempt)
    if len(data) != end - start:
        raise ArtifactError(
            f"{file} sent {len(data):,} bytes where {end - start:,} were asked for: it was changed meanwhile, or its "
            "server sends whole files only; repeat the command, or download the data"
        )
    return data


def filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it. Raises UsageError for an unknown protocol, naming a package
    that is missing, and for a URL with a password, which a run would record."""
    import fsspec

    if has_credentials(url):
        raise UsageError(
            f"{shown_url(url)} was given with a user name or password, which runs would record; leave them out: they "
            "are found in the environment, in the client's own files, or in ~/.config/fsspec"
        )
    protocol = url.partition("://")[0]
    try:
        fs, path = fsspec.url_to_fs(url)
    except ImportError as error:
        package = getattr(error.__cause__, "name", None) or error.name
        raise UsageError(
            f"{shown_url(url)} needs the package {package}, which is not installed: pip install {package}"
        ) from error
    except ValueError as error:
        raise UsageError(f"{shown_url(url)} cannot be opened ({said_by(error)}); fsspec lacks {protocol}://") from error
    return fs, path


@contextmanager
def failures(url: str) -> Iterator[None]:
    """Turn the errors of fsspec's clients into ArtifactErrors of one line."""
    try:
        yield
    except DmgdError:
        raise
    except FileNotFoundError as error:
        raise ArtifactError(f"{shown_url(url)} does not exist, or is hidden from these credentials") from error
    except PermissionError as error:
        raise ArtifactError(f"{shown_url(url)} may not be read or written ({said_by(error)}); log in first") from error
    except Exception as error:  # each client raises types of its own
        raise ArtifactError(
            f"{shown_url(url)} cannot be reached ({type(error).__name__}: {said_by(error)}); check the address, the "
            "network and the credentials"
        ) from error


def files_at(urls: Sequence[str]) -> list[RemoteFile | None]:
    """The files at these URLs of one file system, without reading them; None for one that is not there."""

    def file_at(url: str) -> RemoteFile | None:
        with failures(url):
            try:
                info = fs.info(fs._strip_protocol(url))
            except FileNotFoundError as error:
                if error.__cause__ and not isinstance(error.__cause__, FileNotFoundError):
                    raise error.__cause__ from None  # HTTP's client says this of servers that it cannot reach, too
                return None
        if info["type"] != "file":
            return None
        if not isinstance(info.get("size"), int):
            raise ArtifactError(f"{shown_url(url)}: its server does not say how large it is; download the data")
        said = {key: str(value) for key, value in info.items() if _is_stamp(key) and value}
        return RemoteFile(url, info["size"], ", ".join(f"{key} {said[key]}" for key in sorted(said)))

    fs, _ = filesystem(urls[0])
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(file_at, urls))


def _is_stamp(key: str) -> bool:
    return any(stamp in key.lower().replace("-", "") for stamp in _STAMPS)


def matching(pattern: str) -> list[RemoteFile]:
    """The files that a glob over URLs matches; that itself if it has no wildcards; none if it matches nothing."""
    fs, path = filesystem(pattern)
    fs.invalidate_cache()  # of listings
    if not set("*?[") & set(shown_url(pattern)):
        return [file for file in files_at([pattern]) if file]
    with failures(pattern):
        found = [fs.unstrip_protocol(name) for name in fs.glob(path)]
    files = [file for file in files_at(found) if file] if found else []
    return sorted(files, key=lambda file: natural_key(file.url))


def by_split(location: str, files: Sequence[RemoteFile]) -> dict[str, list[RemoteFile]]:
    """The files of each split by their names below the folder in which all are; as `files_by_split`."""
    by_path = {file.path: file for file in files}
    root = PurePosixPath(os.path.commonpath([path.parent for path in by_path]))
    splits = files_by_split(location, root, list(by_path))
    return {split: [by_path[path] for path in own] for split, own in splits.items()}


def is_folder(url: str) -> bool:
    fs, path = filesystem(url)
    with failures(url):
        return bool(fs.isdir(path))


def fingerprint(files: Iterable[RemoteFile]) -> str:
    """A digest of what is known of the files without reading them."""
    lines = (f"{shown_url(file.url)}\0{file.size}\0{file.stamp}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def unstamped(files: Sequence[RemoteFile]) -> list[str]:
    """What to say of files whose changes could go unnoticed."""
    if not (plain := [str(file) for file in files if not file.stamp]):
        return []
    return [f"nothing but the size is known of {plain[0]}{' and others' * (len(plain) > 1)}: a change may go unnoticed"]


def remembered(key: str, read: Callable[[], list[str]]) -> list[str]:
    """The labels that `read` finds, from the user's cache if they were found before for data of this fingerprint: to
    find them takes as long as reading all the data."""
    path = user_cache_path("dmgd") / "labels" / f"{key}.json"
    try:
        kept = read_sealed(path, _FORMAT, ("labels",), missing=ArtifactError("not yet"), remedy="")
    except ArtifactError:
        kept = {"format": _FORMAT, "labels": read()}
        with suppress(OSError):  # done without
            write_sealed(path, kept)
    labels: list[str] = kept["labels"]
    return labels
