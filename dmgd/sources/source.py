"""What every source is, and the way from the name a user types to one."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL.Image import Image

from dmgd.errors import UsageError, unknown_choice
from dmgd.imagenet import imagenet_subsets
from dmgd.records import ClassInfo

NAMED = ("digits", *imagenet_subsets(), "imagenet-1k")
PREFIXES = ("folder:PATH", "hf:ID_OR_PATH", "wds:PATTERN")


@dataclass(frozen=True)
class Item:
    """One image of a source before it is decoded: the bytes of its file, the file's path, or pixels.

    `label` is the index of its class, `name` says where it is within the source, for messages.
    """

    image: "bytes | Path | Image"
    label: int
    name: str


class Source(Protocol):
    """A labelled image dataset.

    `name` is what the user asked for, `variant` which of its editions this is, `licence` a line on its terms.
    """

    @property
    def name(self) -> str: ...
    @property
    def variant(self) -> str: ...
    @property
    def licence(self) -> str: ...
    @property
    def classes(self) -> tuple[ClassInfo, ...]: ...

    def items(self, split: str) -> Iterator[Item]:
        """The images of "train" or "test", not yet decoded, always in the same order. Raises UsageError if the source
        has no such split."""

    def samples(self, split: str) -> Iterator[tuple[Image, int]]:
        """The images of the split that can be read, decoded, and their class indices, always in the same order."""

    def fingerprint(self, split: str) -> str:
        """A digest that changes when the split's files do; cheap, and only for use on this machine."""


def open_source(
    name: str,
    *,
    data: str | None = None,
    test_data: str | None = None,
    variant: str | None = None,
    columns: str | None = None,
    class_map: Path | None = None,
) -> Source:
    """The source called `name`: `digits`, one of ImageNet's family, `folder:PATH`, `hf:ID_OR_PATH` or `wds:PATTERN`.

    `data` is a local copy of a named source, a folder, parquet or WebDataset shards (the prefixes above decide where
    that is not clear). `test_data` holds the test split where the data brings none. `variant` is the Hub's
    configuration name, `columns` "IMAGE,LABEL" of a Hugging Face dataset. `class_map` is a JSON or CSV file from the
    data's labels to WordNet ids or class names.

    Raises UsageError for what cannot be found or does not go together, MismatchError for classes that do not match.
    """
    options = {"--data": data, "--test-data": test_data, "--variant": variant, "--columns": columns}
    kind, _, place = name.partition(":")
    if name == "digits":
        from dmgd.sources.digits import digits_source

        if given := [option for option, value in {**options, "--class-map": class_map}.items() if value is not None]:
            raise UsageError(f"the source digits is embedded and takes no {', '.join(given)}")
        return digits_source()

    from dmgd.sources.labelled import any_source, named_source

    if name in NAMED:
        return named_source(name, data, test_data, variant, columns, class_map)
    if kind in ("folder", "hf", "wds") and place:
        if data is not None:
            raise UsageError(f"--data goes with a named source; {name} already says where the data is")
        return any_source(kind, place, test_data, variant, columns, class_map)
    raise unknown_choice("source", name, (*NAMED, *PREFIXES))
