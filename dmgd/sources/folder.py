"""Image folders: one subfolder per class, with or without `train/` and `val/` above them."""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dmgd.classes.info import natural_key
from dmgd.errors import UsageError, listed, one_line
from dmgd.files import load_json
from dmgd.images import is_image_file
from dmgd.sources.source import (
    SourceImage,
    fingerprint_files,
    is_hidden,
    is_split_word,
    label_text,
    missing_split,
    split_of,
    which_splits,
)
from dmgd.specs import is_url, shown_url


@dataclass(frozen=True)
class FolderLayout:
    """`splits` are the folders that hold one subfolder per class; `names` maps their names to labels where the two
    differ."""

    root: Path
    splits: tuple[Path, ...]
    names: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, location: str) -> "FolderLayout":
        """The layout at `location`. Raises UsageError if there is no folder there or it has no class folders."""
        if is_url(location):
            raise UsageError(
                f"{shown_url(location)}: image folders are read where they are local; of URLs, wds: and hf:"
            )
        root = Path(location).expanduser()
        if not root.is_dir():
            raise UsageError(f"the image folder {root} does not exist")
        layout = cls(root, split_folders(root) or (root,), exported_names(root))
        if not any(class_folders(split) for split in layout.splits):
            raise UsageError(f"{root} has no class folders; expected CLASS/IMAGE, or train/CLASS/IMAGE")
        return layout

    @property
    def location(self) -> str:
        return str(self.root)

    @property
    def has_test(self) -> bool:
        return "test" in which_splits([split.name for split in self.splits])

    def labels(self) -> list[str]:
        return list(dict.fromkeys(self._label(folder) for folder in class_folders(self._top("train"))))

    def images(self, split: str, skip: Collection[str] = ()) -> Iterator[SourceImage[str]]:
        for label, file in self._files(split, skip):
            if is_image_file(file):
                yield SourceImage(file, label, self._shown(file))

    def fingerprint(self, split: str) -> str:
        return fingerprint_files(self.root, (file for _, file in self._files(split)))

    def extent(self, split: str) -> str:
        return f"{sum(1 for _ in self._files(split)):,} files"

    def remarks(self, split: str) -> list[str]:
        """What is left out, links that are not followed, and what is read through links out of the folder."""
        top, real = self._top(split), _real(self._top(split))
        files = [file for _, file in self._files(split)]
        outside = {parent for parent in {file.parent for file in files} if not _real(parent).is_relative_to(real)}
        found = {
            "no images and left out": [file for file in files if not is_image_file(file)],
            "links to folders that are read already, and not followed": [
                Path(parent, name)
                for parent, folders, _ in os.walk(top)
                for name in sorted(folders)
                if _leads_back(Path(parent, name), top)
            ],
            "read through links that lead elsewhere": [
                file
                for file in files
                if file.parent in outside or (file.is_symlink() and not _real(file).is_relative_to(real))
            ],
        }
        return [
            f"{len(paths):,} of the files in {top} are {what}: {listed([self._shown(path) for path in paths], 3)}"
            for what, paths in found.items()
            if paths
        ]

    def _top(self, split: str) -> Path:
        tops = {top.name: top for top in self.splits}
        if (name := which_splits(tops).get(split)) is None:
            raise missing_split(self.location, split, tops)
        return tops[name]

    def _files(self, split: str, skip: Collection[str] = ()) -> Iterator[tuple[str, Path]]:
        top = self._top(split)
        for folder in class_folders(top):
            if (label := self._label(folder)) not in skip:
                for file in files_below(folder, top):
                    yield label, file

    def _label(self, folder: Path) -> str:
        return label_text(self.names.get(folder.name, folder.name), f"the folder {self._shown(folder)}")

    def _shown(self, path: Path) -> str:
        return one_line(str(path.relative_to(self.root)))


def exported_names(root: Path) -> dict[str, str]:
    """Folder name → WordNet id or name if `root` is an export, whose class folders are numbered; else empty."""
    try:
        classes = load_json(root / "index.json")["run"]["classes"]
        names = {f"{number:04d}": str(info["wnid"] or info["name"]) for number, info in enumerate(classes)}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    numbers = {folder.name: folder.name.partition("-")[0] for folder in subfolders(root)}
    return {name: names[number] for name, number in numbers.items() if number in names}


def split_folders(root: Path) -> tuple[Path, ...]:
    """The folders in `root` that hold class folders of one split each; none if it holds class folders itself.

    Raises UsageError if that is not clear, or if folders named for splits hold no class folders.
    """
    folders = subfolders(root)
    named = [folder for folder in folders if split_of(folder.name)]
    plain = [folder for folder in named if is_split_word(folder.name)]
    deep = [folder for folder in named if class_folders(folder)]
    # A word in a longer name can be that of a class, such as "bullet train", and so can one plain word among others.
    if set(plain) & set(deep) or len({split_of(folder.name) for folder in deep}) > 1:
        beside = [folder.name for folder in folders if folder not in deep]
        if beside and not any(split_of(folder.name) == "train" for folder in deep):
            raise UsageError(
                f"{root} has class folders in {deep[0].name}, and beside it {listed(beside, 3)}; put the class folders "
                "for training into a folder train"
            )
        return tuple(deep)
    if plain and (len(plain) > 1 or plain == folders):
        raise UsageError(
            f"{' and '.join(folder.name for folder in plain)} in {root} have no class folders; expected "
            "train/CLASS/IMAGE"
        )
    return ()


def subfolders(top: Path) -> list[Path]:
    """The folders in `top` that are not hidden, in natural order."""
    found = (entry for entry in top.iterdir() if entry.is_dir() and not is_hidden(entry.name))
    return sorted(found, key=lambda folder: natural_key(folder.name))


def class_folders(top: Path) -> list[Path]:
    """The folders in `top`, in natural order, but for hidden ones and links back into `top`."""
    return [folder for folder in subfolders(top) if not _leads_back(folder, top)]


def files_below(folder: Path, top: Path) -> Iterator[Path]:
    """The files below `folder` that are not hidden, in a fixed order.

    Every folder is visited once, and links to folders that lead back into `top`, the folder of the split, are not
    followed: what is there is read in its own place.
    """
    visited = set()
    for parent, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(
            name for name in folders if not is_hidden(name) and not _leads_back(Path(parent, name), top)
        )
        yield from (Path(parent, name) for name in sorted(names) if not is_hidden(name))


def _raise(error: OSError) -> None:
    raise error


def _leads_back(path: Path, top: Path) -> bool:
    """Whether the folder is a link into `top`, or to a folder that contains it."""
    if not path.is_symlink():
        return False
    target, top = _real(path), _real(top)
    return target.is_relative_to(top) or top.is_relative_to(target)


def _real(path: Path) -> Path:
    """The path without links; unlike that of `resolve`, a link to itself is no error in any version of Python."""
    return Path(os.path.realpath(path))
