"""A run's images as rows of a table: the columns, with the types of Hugging Face datasets."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dmgd.classes.info import ClassInfo
from dmgd.files import sha256_bytes
from dmgd.runs.record import ImageRecord, mosaic_key

if TYPE_CHECKING:  # slow to import
    from datasets import Features
    from numpy import ndarray

# The metadata of each image, with types.
COLUMN_TYPES = {
    **dict.fromkeys(("key", "class_name", "wnid"), "string"),
    **dict.fromkeys(("prior_index", "image_index", "seed", "other_class"), "int64"),
    **dict.fromkeys(("ot_cost", "weight"), "float64"),
    "source_index": "int64",
    **dict.fromkeys(("source_name", "source_crop", "sha256", "pixels_sha256"), "string"),
}
# Of mosaics, see dmgd.mosaics: what each is, and what each of its parts is, whose `pixels_sha256` is of the part.
_OF_A_PART = (
    *("key", "image_index", "seed", "other_class", "ot_cost", "weight"),
    *("source_index", "source_name", "source_crop", "pixels_sha256"),
)
_OF_A_MOSAIC = ("key", "class_name", "wnid", "prior_index", "image_index", "sha256", "pixels_sha256")
PART_TYPES = {name: COLUMN_TYPES[name] for name in _OF_A_PART}
MOSAIC_TYPES = {name: COLUMN_TYPES[name] for name in _OF_A_MOSAIC}
PARTS = "parts"  # the column with the list of them


def metadata(record: ImageRecord, info: ClassInfo, sha256: str) -> dict[str, Any]:
    """The metadata of an image, by the names in COLUMN_TYPES; `sha256` is that of its file."""
    known = {**vars(record), **vars(info), "key": record.key, "class_name": info.name, "sha256": sha256}
    return {name: known[name] for name in COLUMN_TYPES}


def mosaic_metadata(
    records: Sequence[ImageRecord], info: ClassInfo, sha256: str, pixels: "ndarray", parts: "Sequence[ndarray]"
) -> dict[str, Any]:
    """The metadata of a mosaic of these `pixels`, by the names in MOSAIC_TYPES and PARTS: its `parts` are the images of
    the `records`; `sha256` is that of its file."""
    label, index = records[0].class_index, records[0].image_index // len(records)
    known = {**vars(info), "class_name": info.name, "key": mosaic_key(label, index), "image_index": index}
    known |= {"sha256": sha256, "pixels_sha256": sha256_bytes(pixels.tobytes())}
    of_parts = (
        {**vars(record), "key": record.key, "pixels_sha256": sha256_bytes(part.tobytes())}
        for record, part in zip(records, parts, strict=True)
    )
    listed = [{name: part[name] for name in PART_TYPES} for part in of_parts]
    return {**{name: known[name] for name in MOSAIC_TYPES}, PARTS: listed}


def features(classes: Sequence[ClassInfo], tiles: int = 1) -> "Features":
    """The columns of a Hugging Face dataset: image, label and metadata."""
    from datasets import ClassLabel, Features, Image, Value

    types: dict[str, Any] = {name: Value(kind) for name, kind in (COLUMN_TYPES if tiles == 1 else MOSAIC_TYPES).items()}
    if tiles > 1:
        types[PARTS] = [{name: Value(kind) for name, kind in PART_TYPES.items()}]
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
