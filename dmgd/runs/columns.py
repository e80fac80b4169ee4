"""A run's images as rows of a table: the columns, with the types of Hugging Face datasets."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dmgd.classes.info import ClassInfo
from dmgd.runs.record import ImageRecord

if TYPE_CHECKING:  # slow to import
    from datasets import Features

# The metadata of each image, with types.
COLUMN_TYPES = {
    **dict.fromkeys(("key", "class_name", "wnid"), "string"),
    **dict.fromkeys(("prior_index", "image_index", "seed", "other_class"), "int64"),
    "ot_cost": "float64",
    "source_index": "int64",
    **dict.fromkeys(("source_name", "sha256", "pixels_sha256"), "string"),
}


def metadata(record: ImageRecord, info: ClassInfo, sha256: str) -> dict[str, Any]:
    """The metadata of an image, by the names in COLUMN_TYPES; `sha256` is that of its file."""
    known = {**vars(record), **vars(info), "key": record.key, "class_name": info.name, "sha256": sha256}
    return {name: known[name] for name in COLUMN_TYPES}


def features(classes: Sequence[ClassInfo]) -> "Features":
    """The columns of a Hugging Face dataset: image, label and metadata."""
    from datasets import ClassLabel, Features, Image, Value

    types = {name: Value(kind) for name, kind in COLUMN_TYPES.items()}
    return Features({"image": Image(), "label": ClassLabel(names=label_names(classes)), **types})


def label_names(classes: Sequence[ClassInfo]) -> list[str]:
    """The names for a ClassLabel, which must be unique: a name of several classes is extended by WordNet id or class
    index."""
    names = [info.name for info in classes]
    shared = {name for name in names if names.count(name) > 1}
    return [
        f"{info.name} ({info.wnid or index})" if info.name in shared else info.name
        for index, info in enumerate(classes)
    ]
