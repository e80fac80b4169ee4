"""Image folders: one subfolder per class, with or without `train/` and `val/` above them."""

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dmgd.classes.info import natural_key
from dmgd.errors import UsageError
from dmgd.images import IMAGE_SUFFIXES
from dmgd.sources.source import TEST_NAMES, SourceImage, fingerprint_files, missing_split


@dataclass(frozen=True)
class FolderLayout:
    """`train` and `test` hold one subfolder per class; `names` maps folder names to labels where the two differ."""

    root: Path
    train: Path
    test: Path | None
    names: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, location: str) -> "FolderLayout":
        """The layout at `location`. Raises UsageError if there is no folder there or it has no class folders."""
        root = Path(location).expanduser()
        if not root.is_dir():
            raise UsageError(f"the image folder {root} does not exist")
        train = root / "train" if (root / "train").is_dir() else root
        tests = [root / name for name in TEST_NAMES if train != root and class_folders(root / name)]
        layout = cls(root, train, tests[0] if tests else None, exported_names(root))
        if not layout.labels():
            raise UsageError(f"{train} has no class folders; expected CLASS/IMAGE, or train/CLASS/IMAGE")
        return layout

    @property
    def location(self) -> str:
        return str(self.root)

    @property
    def has_test(self) -> bool:
        return self.test is not None

    def labels(self) -> list[str]:
        return [self._label(folder) for folder in class_folders(self.train)]

    def images(self, split: str, skip: Collection[str] = ()) -> Iterator[SourceImage[str]]:
        for label, file in self._files(split, skip):
            yield SourceImage(file, label, str(file.relative_to(self.root)))

    def fingerprint(self, split: str) -> str:
        return fingerprint_files(self.root, (file for _, file in self._files(split)))

    def _files(self, split: str, skip: Collection[str] = ()) -> Iterator[tuple[str, Path]]:
        if (top := self.train if split == "train" else self.test) is None:
            raise missing_split(self.location, split)
        for folder in class_folders(top):
            if (label := self._label(folder)) not in skip:
                for file in image_files(folder):
                    yield label, file

    def _label(self, folder: Path) -> str:
        return self.names.get(folder.name, folder.name)


def exported_names(root: Path) -> dict[str, str]:
    """Folder name → WordNet id or name if `root` is an export, whose class folders are numbered; else empty."""
    try:
        classes = json.loads((root / "index.json").read_text())["run"]["classes"]
        names = {f"{number:04d}": info["wnid"] or info["name"] for number, info in enumerate(classes)}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    numbers = {folder.name: folder.name.partition("-")[0] for folder in class_folders(root)}
    return {name: names[number] for name, number in numbers.items() if number in names}


def class_folders(top: Path) -> list[Path]:
    """The non-hidden folders in `top` in natural order; none if `top` does not exist."""
    if not top.is_dir():
        return []
    return sorted(
        (entry for entry in top.iterdir() if entry.is_dir() and not entry.name.startswith(".")),
        key=lambda folder: natural_key(folder.name),
    )


def image_files(folder: Path) -> Iterator[Path]:
    """The files below `folder` with the suffix of an image, in a fixed order."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES):
                yield Path(parent, name)
