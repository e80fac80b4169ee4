"""WebDataset shards: tar files in which the files of one sample share the name up to the first dot."""

import glob
import json
import re
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dmgd.classes.info import natural_key
from dmgd.errors import ArtifactError, UsageError
from dmgd.images import IMAGE_SUFFIXES
from dmgd.sources.layout import TEST_NAMES, Found, fingerprint_files, missing_split

_JSON_LABELS = ("wnid", "class_name", "class", "label", "cls")  # the first that is there, before a bare .cls number
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class ShardLayout:
    """The tar files of every split, in order."""

    place: str
    shards: dict[str, list[Path]]

    @classmethod
    def open(cls, pattern: str) -> "ShardLayout":
        """The shards of a folder, a glob or a pattern like `train-{000..099}.tar`.

        In a folder, shards whose names begin with val, validation or test are the test split. Raises UsageError if
        there is none or one of a numbered series is missing.
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
        return self._labels

    @cached_property
    def _labels(self) -> list[str]:
        seen = {_label(sample, file) for file in self.shards["train"] for sample in samples(file)}
        return sorted(seen, key=natural_key)

    def found(self, split: str, skip: Collection[str] = ()) -> Iterator[Found]:
        if not self.shards[split]:
            raise missing_split(f"wds:{self.place}", split)
        for file in self.shards[split]:
            for sample in samples(file):
                label = _label(sample, file)
                if label not in skip and (image := sample.image()):
                    yield Found(image[1], label, f"{file.name}/{image[0]}")

    def fingerprint(self, split: str) -> str:
        if not self.shards[split]:
            raise missing_split(f"wds:{self.place}", split)
        return fingerprint_files(Path("/"), [file.resolve() for file in self.shards[split]])


def _expand(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if "://" in pattern or pattern.startswith("pipe:"):
        raise UsageError(f"wds:{pattern} is not local; download the shards and give their pattern")
    if path.is_dir():
        files = sorted(path.glob("*.tar"))
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
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    first, last = match.groups()
    numbers = [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
    return [one for n in numbers for one in _series(pattern[: match.start()] + n + pattern[match.end() :])]


@dataclass
class Sample:
    """The members of one sample by suffix, in small letters; their bytes are read when asked for."""

    tar: tarfile.TarFile
    key: str
    members: dict[str, tarfile.TarInfo]

    def read(self, suffix: str) -> bytes | None:
        member = self.members.get(suffix)
        file = self.tar.extractfile(member) if member else None
        return file.read() if file else None

    def image(self) -> tuple[str, bytes] | None:
        """Name and bytes of the sample's image, or None."""
        for suffix, member in self.members.items():
            if f".{suffix}".endswith(IMAGE_SUFFIXES):
                return member.name, self.read(suffix) or b""
        return None


def samples(file: Path) -> Iterator[Sample]:
    """The samples of one shard, each readable until the next is asked for. Raises ArtifactError if it is damaged."""
    try:
        with tarfile.open(file) as tar:
            sample: Sample | None = None
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                if not member.isfile() or not stem or not suffix:
                    continue
                key = f"{folder}/{stem}"
                if sample is not None and sample.key != key:
                    yield sample
                    sample = None
                sample = sample or Sample(tar, key, {})
                sample.members[suffix.lower()] = member
            if sample is not None:
                yield sample
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ArtifactError(f"the shard {file} is damaged or is no tar file ({error})") from error


def _label(sample: Sample, file: Path) -> str:
    """What the sample says of its class: by name in its .json if there is one, else the text of its .cls."""
    fields = _json_fields(sample, file)
    for key in _JSON_LABELS:
        if isinstance(value := fields.get(key), str):
            return value
    if (text := sample.read("cls")) is not None:
        return text.decode().strip()
    if isinstance(number := fields.get("label"), int):
        return str(number)
    raise ArtifactError(f"the shard {file} has no label for {sample.key}: expected .cls, or .json with a class name")


def _json_fields(sample: Sample, file: Path) -> dict[str, Any]:
    try:
        fields = json.loads(sample.read("json") or "{}")
    except ValueError as error:
        raise ArtifactError(f"the shard {file} has a damaged .json for {sample.key} ({error})") from error
    return fields if isinstance(fields, dict) else {}
