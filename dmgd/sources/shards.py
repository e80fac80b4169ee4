"""WebDataset shards: tar files in which the files of one image share their name up to the first dot, the key."""

import glob
import io
import json
import lzma
import math
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from dmgd.classes.info import natural_key
from dmgd.errors import ArtifactError, UsageError, one_line
from dmgd.files import open_regular
from dmgd.images import IMAGE_SUFFIXES, MAX_BYTES, is_image
from dmgd.sources.source import (
    SourceImage,
    files_by_split,
    fingerprint_files,
    is_hidden,
    label_text,
    lone_split,
    missing_split,
    which_splits,
)

_JSON_LABELS = ("wnid", "class_name", "class", "label", "cls")  # the first that is there, before a bare .cls number
_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)  # the key, and the suffix of the file
SHARDS = ("*.tar", "*.tar.gz", "*.tgz", "data/*.tar", "data/*.tar.gz", "data/*.tgz")
_BRACES = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_MOST_SHARDS = 1_000_000
_MOST_TEXT = 1 << 24  # bytes of a .cls or .json

_BLOCK = 1 << 20

Members = Mapping[str, Callable[..., bytes]]


@dataclass(frozen=True)
class ShardLayout:
    """The tar files of every split that there is, in order."""

    location: str
    shards: dict[str, list[Path]]

    @classmethod
    def open(cls, pattern: str) -> "ShardLayout":
        """The shards of a folder, a glob or a pattern like `train-{000..099}.tar`.

        Their names say which split they belong to; see `split_of`. Raises UsageError if there are none, if one of a
        numbered series is missing, or if only some names say a split.
        """
        files = _expand(pattern)
        root = Path(os.path.commonpath([file.parent for file in files]))
        return cls(pattern, files_by_split(f"wds:{pattern}", root, files))

    @property
    def has_test(self) -> bool:
        return "test" in which_splits(self.shards)

    def labels(self) -> list[str]:
        seen = {_label(*read)[0] for file in self._files("train") for read in read_shard(file)}
        return sorted(seen, key=natural_key)

    def remarks(self, split: str) -> list[str]:
        return lone_split(f"wds:{self.location}", self.shards)

    def images(self, split: str, skip: Collection[str] = ()) -> Iterator[SourceImage[str]]:
        for file in self._files(split):
            for name, members in read_shard(file):
                label, number = _label(name, members)
                if label not in skip:
                    yield SourceImage(_image(members), label, name, number)

    def fingerprint(self, split: str) -> str:
        return fingerprint_files(Path("/"), [file.resolve() for file in self._files(split)])

    def _files(self, split: str) -> list[Path]:
        if (name := which_splits(self.shards).get(split)) is None:
            raise missing_split(f"wds:{self.location}", split, self.shards)
        return self.shards[name]


def _expand(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if "://" in pattern or pattern.startswith("pipe:"):
        raise UsageError(f"wds:{pattern} is not local; download the shards and give their pattern")
    if path.is_dir():
        found = [file for pattern in SHARDS for file in path.glob(pattern) if not is_hidden(file.name)]
        files = sorted(found, key=lambda file: natural_key(str(file)))
    elif path.exists():  # whatever its name means as a pattern
        files = [path]
    elif ranges := _BRACES.findall(pattern):
        if math.prod(max(int(last) - int(first) + 1, 0) for first, last in ranges) > _MOST_SHARDS:
            raise UsageError(f"wds:{pattern} means more than {_MOST_SHARDS:,} shards; give their folder")
        files = [Path(one).expanduser() for one in _series(pattern)]
        if missing := [file for file in files if not file.is_file()]:
            raise UsageError(f"{len(missing)} of {len(files)} shards are missing, the first is {missing[0]}")
    else:
        files = sorted(Path(one) for one in glob.glob(str(path)))  # noqa: PTH207 (an absolute pattern)
    if not files:
        raise UsageError(f"no WebDataset shards at {pattern}; give a folder, a glob or train-{{000..099}}.tar")
    return files


def _series(pattern: str) -> list[str]:
    if (match := _BRACES.search(pattern)) is None:
        return [pattern]
    first, last = match.groups()
    numbers = [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
    return [one for n in numbers for one in _series(pattern[: match.start()] + n + pattern[match.end() :])]


def read_shard(file: Path) -> Iterator[tuple[str, Members]]:
    """For each image of a shard its name in messages and its files by lower-case suffix, as functions that read them;
    they are valid until the next image. Raises ArtifactError for a shard that is damaged, was cut or holds links."""
    try:
        with open_regular(file) as data, tarfile.open(fileobj=data) as tar:
            files = ((name, member) for member in _members(tar) if (name := _NAME.fullmatch(member.name)))
            for key, group in groupby(files, key=lambda found: found[0][1]):
                members = {name[2].lower(): partial(_read, tar, member) for name, member in group}
                yield f"{file.name}, sample {one_line(key)}", members
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
    if member.size > most:
        raise tarfile.ReadError(f"{one_line(member.name)} has {member.size:,} bytes, more than {most:,}")
    file = tar.extractfile(member)
    return file.read() if file else b""


def _image(members: Members) -> bytes:
    """The bytes of a sample's image: the file that is called one (.jpg before .seg.jpg), or else the first that begins
    as one. Empty, which no decoder can read, if there is none."""
    if named := [suffix for suffix in members if f".{suffix}".endswith(IMAGE_SUFFIXES)]:
        return members[min(named, key=lambda suffix: suffix.count("."))]()
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
