"""WebDataset shards: tar files in which the files of one image share their name up to the first dot, the key."""

import glob
import json
import re
import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from dmgd.classes.info import natural_key
from dmgd.errors import ArtifactError, UsageError
from dmgd.images import IMAGE_SUFFIXES
from dmgd.sources.source import TEST_NAMES, SourceImage, fingerprint_files, missing_split

_JSON_LABELS = ("wnid", "class_name", "class", "label", "cls")  # the first that is there, before a bare .cls number
_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)  # the key, and the suffix of the file
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")

Members = Mapping[str, Callable[[], bytes]]


@dataclass(frozen=True)
class ShardLayout:
    """The tar files of every split, in order."""

    location: str
    shards: dict[str, list[Path]]

    @classmethod
    def open(cls, pattern: str) -> "ShardLayout":
        """The shards of a folder, a glob or a pattern like `train-{000..099}.tar`.

        In a folder, shards whose names begin with val, validation or test are the test split. Raises UsageError if
        there are none, or if one of a numbered series is missing.
        """
        files = _expand(pattern)
        tests = [[file for file in files if file.name.startswith(name)] for name in TEST_NAMES]
        test = next((found for found in tests if found), [])
        train = [file for file in files if not any(file in found for found in tests)]
        if not train:  # the pattern names the shards of one split, whatever they are called
            train, test = files, []
        return cls(pattern, {"train": train, "test": test})

    @property
    def has_test(self) -> bool:
        return bool(self.shards["test"])

    def labels(self) -> list[str]:
        seen = {_label(*read)[0] for file in self.shards["train"] for read in read_shard(file)}
        return sorted(seen, key=natural_key)

    def images(self, split: str, skip: Collection[str] = ()) -> Iterator[SourceImage[str]]:
        for file in self._files(split):
            for name, members in read_shard(file):
                label, number = _label(name, members)
                image = next((read for suffix, read in members.items() if f".{suffix}".endswith(IMAGE_SUFFIXES)), None)
                if label not in skip and image is not None:
                    yield SourceImage(image(), label, name, number)

    def fingerprint(self, split: str) -> str:
        return fingerprint_files(Path("/"), [file.resolve() for file in self._files(split)])

    def _files(self, split: str) -> list[Path]:
        if not self.shards[split]:
            raise missing_split(f"wds:{self.location}", split)
        return self.shards[split]


def _expand(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if "://" in pattern or pattern.startswith("pipe:"):
        raise UsageError(f"wds:{pattern} is not local; download the shards and give their pattern")
    if path.is_dir():
        files = sorted(path.glob("*.tar")) or sorted(path.glob("data/*.tar"))
    elif _BRACES.search(pattern):
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
    they are valid until the next image. Raises ArtifactError for a damaged shard."""
    try:
        with tarfile.open(file) as tar:
            files = ((name, member) for member in tar if member.isfile() and (name := _NAME.fullmatch(member.name)))
            for key, group in groupby(files, key=lambda found: found[0][1]):
                members = {name[2].lower(): partial(_read, tar, member) for name, member in group}
                yield f"{file.name}, sample {key}", members
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ArtifactError(f"the shard {file} is damaged or is no tar file ({error})") from error


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file else b""


def _label(name: str, members: Members) -> tuple[str, str | int | None]:
    """The label of an image, the class name in its .json or else the text of its .cls, and its class number, if it has
    one."""
    try:
        fields = json.loads(members["json"]()) if "json" in members else {}
    except ValueError as error:
        raise ArtifactError(f"the .json of {name} is damaged ({error})") from error
    fields = fields if isinstance(fields, dict) else {}
    number: str | int | None = fields["label"] if isinstance(fields.get("label"), int) else None
    if "cls" in members:
        number = members["cls"]().decode(errors="replace").strip()
    label = next((fields[key] for key in _JSON_LABELS if isinstance(fields.get(key), str)), number)
    if label is None:
        raise ArtifactError(f"{name} has no label: expected .cls, or .json with a class name")
    return str(label), number
