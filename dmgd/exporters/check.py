"""The check of an export on disk against its index."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dmgd.exporters.example import Example
from dmgd.exporters.folder import INDEX
from dmgd.exporters.formats import layout_named
from dmgd.files import GUARD, file_problem, sha256_bytes
from dmgd.images import LOSSLESS

# What git and the Hub client put beside the files of a dataset.
FOREIGN = {".git", ".gitattributes", ".cache", GUARD}


def export_problems(folder: Path, index: dict[str, Any]) -> Iterator[str]:
    """One line per difference from the index, beginning with the file: checksums, missing and extra files and, if the
    files are intact, the images, labels and metadata in them."""
    problems = (file_problem(folder, file["path"], file["sha256"]) for file in index["files"])
    damaged = [problem for problem in problems if problem]
    yield from damaged
    expected = {INDEX, *(file["path"] for file in index["files"])}
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    extra = sorted(path.as_posix() for path in found if path.parts[0] not in FOREIGN)
    yield from (f"{path}: is not part of the export" for path in extra if path not in expected)
    if not damaged:
        yield from _content_problems(folder, index)


def _content_problems(folder: Path, index: dict[str, Any]) -> Iterator[str]:
    names = [info["name"] for info in index["run"]["classes"]]
    counts: Counter[int] = Counter()
    keys = set()
    for example in layout_named(index["layout"]).read(folder, index):
        key = example.metadata["key"]
        counts[example.label] += 1
        if key in keys:
            yield f"{key}: is there twice"
        keys.add(key)
        if not 0 <= example.label < len(names) or example.metadata["class_name"] != names[example.label]:
            yield f"{key}: has label {example.label}, but is of class {example.metadata['class_name']!r}"
        yield from _image_problems(key, example, index["image_format"])
    for label, count in enumerate(index["images_per_class"]):
        if counts[label] != count:
            yield f"class {label}: has {counts[label]} images, {INDEX} says {count}"
    if sum(counts.values()) != index["images"] or sum(file["images"] for file in index["files"]) != index["images"]:
        yield f"{INDEX}: the numbers of images do not add up to {index['images']}"


def _image_problems(key: str, example: Example, image_format: str) -> Iterator[str]:
    if isinstance(example.image, bytes) and sha256_bytes(example.image) != example.metadata["sha256"]:
        yield f"{key}: its file is not the one of its metadata"
    elif image_format in LOSSLESS and sha256_bytes(example.pixels.tobytes()) != example.metadata["pixels_sha256"]:
        yield f"{key}: its pixels are not those of its metadata"
