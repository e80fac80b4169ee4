"""Sources and layouts: a source is a labelled dataset, a layout how it is stored."""

import hashlib
import os
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Generic, Protocol, TypeVar

from PIL.Image import Image

from dmgd.classes.info import ClassInfo, composed
from dmgd.errors import ArtifactError, UsageError, listed, one_line
from dmgd.images import FilePart, readable
from dmgd.specs import SourceSpec

# The words that name a split, as in Hugging Face's datasets; validation first, as ImageNet's "test" has no labels.
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
# What macOS, Synology and QNAP, Windows, and Linux leave beside data.
SYSTEM_FOLDERS = ("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found")

MAX_LABEL = 500  # characters; ImageNet's longest name has 121

Label = TypeVar("Label", int, str)
AnyPath = TypeVar("AnyPath", bound=PurePath)


@dataclass(frozen=True)
class SourceImage(Generic[Label]):
    """One image before it is decoded: its file's bytes or path, where in a larger file it is, or pixels.

    `label` is the class index in a source, the data's own label in a layout. `name` identifies the image in messages.
    `number` is the class number, unchecked, where the data has one beside a class name.
    """

    image: "bytes | Path | FilePart | Image"
    label: Label
    name: str
    number: int | str | None = None


class Source(ABC):
    """A labelled image dataset: `spec` reopens it; `name` holds no local path; `licence` is one line on its terms."""

    spec: SourceSpec
    name: str
    variant: str
    licence: str
    classes: tuple[ClassInfo, ...]

    def __repr__(self) -> str:
        return f"Source('{self.name}', {len(self.classes)} classes, {self.variant})"

    @abstractmethod
    def images(self, split: str) -> Iterator[SourceImage[int]]:
        """The images of "train" or "test" in a fixed order. Raises UsageError for a split that the source lacks."""

    @abstractmethod
    def fingerprint(self, split: str) -> str:
        """A digest that changes when the split's files do; cheap, and valid on this machine only."""

    def extent(self, split: str) -> str:
        """How much data the split has, such as "3 files": what every copy of the data, on whatever machine, has in
        common, as far as it is known without reading it. Empty if nothing is."""
        return ""

    def remarks(self, split: str) -> list[str]:
        """What a user should know of the split's files, such as those that are left out; a sentence each."""
        return []

    def decoded(self, split: str) -> Iterator[tuple[Image, int]]:
        """The readable images of the split, decoded, with their class indices, in the order of `images`."""
        return readable((one.image, one.label) for one in self.images(split))


class Layout(Protocol):
    """Images with the data's own labels. `location` (a path, a pattern or a Hub id) identifies the data in messages."""

    @property
    def location(self) -> str: ...

    @property
    def has_test(self) -> bool: ...

    def labels(self) -> list[str]:
        """The distinct labels of the training split, classes without images included."""

    def images(self, split: str, skip: Collection[str] = ()) -> Iterator[SourceImage[str]]:
        """The images of "train" or "test" whose label is not in `skip`, in a fixed order. Raises UsageError for a split
        that the data lacks."""

    def remarks(self, split: str) -> list[str]:
        """What a user should know of the split's files, such as those that are left out; a sentence each."""

    def fingerprint(self, split: str) -> str:
        """A digest that changes when the split's files do."""


def label_text(text: object, where: str) -> str:
    """The label as text, composed, so that labels that look the same are equal.

    Raises ArtifactError for one that is empty, too long, or no text, such as a name that is not UTF-8.
    """
    is_text = isinstance(text, str) and 0 < len(text) <= MAX_LABEL
    if not is_text or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in str(text)):
        raise ArtifactError(
            f"{where} has the label {repr(text)[:60]}: expected a text of 1 to {MAX_LABEL} characters, in UTF-8 and "
            "without control characters; rename it"
        )
    return composed(str(text))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or the system's own: no class and no data."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def split_of(path: str) -> str | None:
    """The split that a file or folder belongs to, by a word in its name or else in a folder's above it: "train",
    "validation", "test", or None if there is no such word, or words of several splits.

    Words are whole, in any case, anywhere in a name: "imagenet1k-validation-00.tar" has one, "constraint.tar" has none.
    """
    for part in reversed(Path(path).parts):
        words = re.findall(r"[^\W\d_]+", part.lower())
        if found := {split for split, names in SPLIT_WORDS.items() if any(word in names for word in words)}:
            return found.pop() if len(found) == 1 else None
    return None


def is_split_word(name: str) -> bool:
    """Whether the name is a word for a split and nothing else, in any case."""
    return any(name.lower() in words for words in SPLIT_WORDS.values())


def files_by_split(location: str, root: PurePath, files: Sequence[AnyPath]) -> dict[str, list[AnyPath]]:
    """The files of each split by their names below `root`; all in one, "train", if no name has a word for a split.

    Raises UsageError if only some have: the others belong to no split.
    """
    splits: dict[str | None, list[AnyPath]] = {}
    for file in files:
        splits.setdefault(split_of(str(file.relative_to(root))), []).append(file)
    unclear = splits.pop(None, [])
    if unclear and splits:
        raise UsageError(
            f"{location} has files of the split {' and '.join(sorted(map(str, splits)))}, and others that say no split "
            f"or several: {one_line(listed([file.name for file in unclear], 3))}; rename them, so that every name has "
            "one of the words train, val and test"
        )
    return {"train": unclear} if unclear else {str(split): found for split, found in splits.items()}


def which_splits(names: Collection[str]) -> dict[str, str]:
    """Which of the splits with these names is read as "train" and which as "test", as far as the names say.

    Data of a single split is that split, whatever it is called.
    """
    if len(names) == 1:
        return {"train": next(iter(names))}
    of = {word: [name for name in names if split_of(name) == word] for word in SPLIT_WORDS}
    exact = {word: [word] if word in names else found for word, found in of.items()}
    chosen = {"train": exact["train"], "test": exact["validation"] or exact["test"]}
    return {split: found[0] for split, found in chosen.items() if len(found) == 1}


def lone_split(location: str, names: Collection[str]) -> list[str]:
    """What to say of data whose only split is named as one for tests, and is read all the same."""
    if len(names) == 1 and split_of(only := next(iter(names))) in ("validation", "test"):
        return [f"{location} has no split but {only}, which is read"]
    return []


def missing_split(location: str, split: str, names: Collection[str]) -> UsageError:
    """The error for data whose splits, called `names`, do not include that one."""
    if split == "test":
        return UsageError(f"{location} has no test split (validation or test); give one with --test-data PATH")
    return UsageError(
        f"{location} has the splits {', '.join(names)}, and it is not clear which is for training; give data of one "
        "split, or call one train"
    )


def fingerprint_files(root: Path, files: Iterable[Path]) -> str:
    """A digest of the files' paths below `root`, sizes and modification times; their content is not read."""
    digest = hashlib.sha256()
    for file in files:
        try:
            status = file.stat()
        except OSError:  # a link that leads nowhere
            status = file.lstat()
        digest.update(os.fsencode(file.relative_to(root)) + f"\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
