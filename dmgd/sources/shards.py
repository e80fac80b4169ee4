"""WebDataset shards: tar files in which the files of one image share their name up to the first dot, the key."""

import io
import json
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from dmgd.classes.info import natural_key
from dmgd.errors import ArtifactError, one_line
from dmgd.files import open_regular
from dmgd.images import IMAGE_SUFFIXES, MAX_BYTES, FilePart, is_image
from dmgd.sources import remote
from dmgd.sources.remote import RemoteFile
from dmgd.sources.shard_files import expand, expand_url
from dmgd.sources.source import (
    SourceImage,
    files_by_split,
    fingerprint_files,
    label_text,
    lone_split,
    missing_split,
    which_splits,
)
from dmgd.specs import is_url, shown_url

_JSON_LABELS = ("wnid", "class_name", "class", "label", "cls")  # the first that is there, before a bare .cls number
_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)  # the key, and the suffix of the file
_MOST_TEXT = 1 << 24  # bytes of a .cls or .json

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file of a shard: called, its bytes. `part` is where it lies, unless it is compressed or remote."""

    read: Callable[[int], bytes]
    part: FilePart | None

    def __call__(self, most: int = MAX_BYTES) -> bytes:
        return self.read(most)


Members = Mapping[str, Member]


@dataclass(frozen=True)
class ShardLayout:
    """The tar files of every split that there is, in order; all are local, or none."""

    location: str
    shards: dict[str, list[Path]] | dict[str, list[RemoteFile]]

    @classmethod
    def open(cls, pattern: str) -> "ShardLayout":
        """The shards of a folder, a glob or a pattern like `train-{000..099}.tar`, or of a URL that is one of these.

        Their names say which split they belong to; see `split_of`. Raises UsageError if there are none, if one of a
        numbered series is missing, or if only some names say a split.
        """
        if is_url(pattern):
            shown = shown_url(pattern)
            return cls(shown, remote.by_split(f"wds:{shown}", expand_url(pattern)))
        files = expand(pattern)
        root = Path(os.path.commonpath([file.parent for file in files]))
        return cls(pattern, files_by_split(f"wds:{pattern}", root, files))

    @property
    def has_test(self) -> bool:
        return "test" in which_splits(self.shards)

    def labels(self) -> list[str]:
        if not (at_urls := _at_urls(self._files("train"))):
            return _labels_of(self._files("train"))
        return remote.remembered(self.fingerprint("train"), lambda: _labels_of(at_urls, remote.THREADS))

    def remarks(self, split: str) -> list[str]:
        return [*lone_split(f"wds:{self.location}", self.shards), *remote.unstamped(_at_urls(self._files(split)))]

    def images(self, split: str, skip: Collection[str] = ()) -> Iterator[SourceImage[str]]:
        for file in self._files(split):
            for name, members in read_shard(file):
                label, number = _label(name, members)
                if label not in skip:
                    yield SourceImage(_image(members), label, name, number)

    def fingerprint(self, split: str) -> str:
        files = self._files(split)
        local = [file.resolve() for file in files if isinstance(file, Path)]
        return fingerprint_files(Path("/"), local) if local else remote.fingerprint(_at_urls(files))

    def extent(self, split: str) -> str:
        files = self._files(split)
        size = sum(file.stat().st_size if isinstance(file, Path) else file.size for file in files)
        return f"{len(files):,} shards of {size:,} bytes"

    def _files(self, split: str) -> Sequence[Path | RemoteFile]:
        if (name := which_splits(self.shards).get(split)) is None:
            raise missing_split(f"wds:{self.location}", split, self.shards)
        return self.shards[name]


def _at_urls(files: Sequence[Path | RemoteFile]) -> list[RemoteFile]:
    return [file for file in files if isinstance(file, RemoteFile)]


def _labels_of(files: Sequence[Path | RemoteFile], threads: int = 1) -> list[str]:
    """The labels in the shards, several of which are read at a time."""
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(lambda file: {_label(*read)[0] for read in read_shard(file)}, files)
        return sorted(set().union(*found), key=natural_key)


def read_shard(file: Path | RemoteFile) -> Iterator[tuple[str, Members]]:
    """For each image of a shard its name in messages and its files by lower-case suffix, which are read until the next
    image. Raises ArtifactError for a shard that is damaged, was cut or holds links, or
    cannot be reached."""
    try:
        opened = open_regular(file) if isinstance(file, Path) else file.open()
        with opened as data, tarfile.open(fileobj=data) as tar:
            files = ((name, member) for member in _members(tar) if (name := _NAME.fullmatch(member.name)))
            for key, group in groupby(files, key=lambda found: found[0][1]):
                is_held = tar.fileobj is not data  # compressed: to go back, it would be unpacked from its beginning
                path = file if isinstance(file, Path) and not is_held else None
                yield f"{file.name}, sample {one_line(key)}", _files_of(tar, group, is_held, path)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise ArtifactError(
            f"the shard {file} is damaged or is no tar file ({str(error).partition(chr(10))[0]}); copy it again"
        ) from error


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The files of the archive. Raises TarError if it does not end as an archive does: tarfile itself takes the first
    damaged header for the end."""
    seen = set()
    for member in tar:
        if member.name in seen and not member.isdir():
            raise tarfile.ReadError(f"{one_line(member.name)} is there twice")
        seen.add(member.name)
        if member.size < 0:
            raise tarfile.ReadError("a file of negative size")  # reading would go back and never end
        if member.isfile():
            yield member
        elif not member.isdir():
            raise tarfile.ReadError(f"{one_line(member.name)} is a link or a device, not a file")
    # The end is a block of zeros, and nothing else after it.
    stream, blocks = tar.fileobj, 0
    assert stream is not None
    stream.seek(tar.offset)
    while block := stream.read(_BLOCK):
        if block.strip(b"\0"):
            raise tarfile.ReadError(f"it has a damaged header, or more data after its end, from byte {tar.offset:,} on")
        blocks += len(block) // tarfile.BLOCKSIZE
    if not blocks:
        raise tarfile.ReadError("it was cut: its end is missing")


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo, most: int = MAX_BYTES) -> bytes:
    _check_size(member, most)
    file = tar.extractfile(member)
    return file.read() if file else b""


def _check_size(member: tarfile.TarInfo, most: int) -> None:
    if member.size > most:
        raise tarfile.ReadError(f"{one_line(member.name)} has {member.size:,} bytes, more than {most:,}")


def _files_of(
    tar: tarfile.TarFile, found: Iterable[tuple[re.Match[str], tarfile.TarInfo]], held: bool, path: Path | None
) -> Members:
    """The files of one image; `held` in memory, all together at most MAX_BYTES. `path` is the archive's, if they lie in
    it as they are."""
    files: dict[str, Member] = {}
    left = MAX_BYTES
    for name, member in found:
        read = partial(_read, tar, member)
        if held:
            left -= len(data := read(left))
            read = partial(_of_at_most, data, member)
        part = FilePart(path, member.offset_data, member.size) if path and not member.issparse() else None
        files[name[2].lower()] = Member(read, part)
    return files


def _of_at_most(data: bytes, member: tarfile.TarInfo, most: int = MAX_BYTES) -> bytes:
    _check_size(member, most)
    return data


def _image(members: Members) -> bytes | FilePart:
    """A sample's image, not read yet if that can wait: the file that is called one (.jpg before .seg.jpg), or else the
    first that begins as one. Empty, which no decoder can read, if there is none."""
    if named := [suffix for suffix in members if f".{suffix}".endswith(IMAGE_SUFFIXES)]:
        member = members[min(named, key=lambda suffix: suffix.count("."))]
        return member.part or member()
    others = (read() for suffix, read in members.items() if suffix not in ("cls", "json"))
    return next((data for data in others if is_image(io.BytesIO(data))), b"")


def _label(name: str, members: Members) -> tuple[str, str | int | None]:
    """The label of an image, the class name in its .json or else the text of its .cls, and its class number, if it has
    one."""
    text = {suffix: members[suffix](most=_MOST_TEXT) for suffix in ("json", "cls") if suffix in members}
    try:
        fields = json.loads(text["json"]) if "json" in text else {}
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"the .json of {name} is damaged ({error})") from error
    fields = fields if isinstance(fields, dict) else {}
    number: str | int | None = fields["label"] if type(fields.get("label")) is int else None
    if "cls" in text:
        number = text["cls"].decode(errors="surrogateescape").strip()
    label = next((fields[key] for key in _JSON_LABELS if isinstance(fields.get(key), str)), number)
    if label is None:
        raise ArtifactError(f"{name} has no label: expected .cls, or .json with a class name")
    return label_text(str(label), name), number
