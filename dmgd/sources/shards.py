"""WebDataset shards: tar files in which the files of one sample share the name up to the first dot."""

import glob
import json
import re
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from dmgd.classes.info import natural_key
from dmgd.errors import ArtifactError, UsageError
from dmgd.images import IMAGE_SUFFIXES
from dmgd.sources.source import TEST_NAMES, Found, fingerprint_files, missing_split

_JSON_LABELS = ("wnid", "class_name", "class", "label", "cls")  # the first that is there, before a bare .cls number
_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)  # a sample's name, and the suffix of one of its files
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
        seen = {_label(sample)[0] for file in self.shards["train"] for sample in samples(file)}
        return sorted(seen, key=natural_key)

    def found(self, split: str, skip: Collection[str] = ()) -> Iterator[Found]:
        if not self.shards[split]:
            raise missing_split(f"wds:{self.place}", split)
        for file in self.shards[split]:
            for sample in samples(file):
                label, number = _label(sample)
                if label not in skip and (image := sample.image()) is not None:
                    yield Found(image, label, sample.name, number)

    def fingerprint(self, split: str) -> str:
        if not self.shards[split]:
            raise missing_split(f"wds:{self.place}", split)
        return fingerprint_files(Path("/"), [file.resolve() for file in self.shards[split]])


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
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    first, last = match.groups()
    numbers = [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
    return [one for n in numbers for one in _series(pattern[: match.start()] + n + pattern[match.end() :])]


@dataclass
class Sample:
    """The members of one sample by suffix, in small letters; their bytes are read when asked for. `name` says where it
    is, for messages."""

    tar: tarfile.TarFile
    name: str
    members: dict[str, tarfile.TarInfo]

    def read(self, suffix: str) -> bytes | None:
        member = self.members.get(suffix)
        file = self.tar.extractfile(member) if member else None
        return file.read() if file else None

    def image(self) -> bytes | None:
        """The bytes of the sample's image, or None."""
        return next((self.read(suffix) for suffix in self.members if f".{suffix}".endswith(IMAGE_SUFFIXES)), None)


def samples(file: Path) -> Iterator[Sample]:
    """The samples of one shard, each readable until the next is asked for. Raises ArtifactError if it is damaged."""
    try:
        with tarfile.open(file) as tar:
            files = ((name, member) for member in tar if member.isfile() and (name := _NAME.fullmatch(member.name)))
            for key, members in groupby(files, key=lambda found: found[0][1]):
                yield Sample(tar, f"{file.name}, sample {key}", {name[2].lower(): member for name, member in members})
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ArtifactError(f"the shard {file} is damaged or is no tar file ({error})") from error


def _label(sample: Sample) -> tuple[str, str | int | None]:
    """What the sample says of its class: by name in its .json if there is one, else the text of its .cls; and the
    number of its class in either, if it is there."""
    try:
        fields = json.loads(sample.read("json") or "{}")
    except ValueError as error:
        raise ArtifactError(f"the .json of {sample.name} is damaged ({error})") from error
    fields = fields if isinstance(fields, dict) else {}
    number: str | int | None = None
    if (text := sample.read("cls")) is not None:
        number = text.decode(errors="replace").strip()
    elif isinstance(fields.get("label"), int):
        number = fields["label"]
    label = next((fields[key] for key in _JSON_LABELS if isinstance(fields.get(key), str)), number)
    if label is None:
        raise ArtifactError(f"{sample.name} has no label: expected .cls, or .json with a class name")
    return str(label), number
