"""The types of an export's columns, in Hugging Face's words."""

from collections.abc import Sequence

from dmgd.classes.info import ClassInfo

_COLUMNS = {
    "key": "string",
    "class_name": "string",
    "wnid": "string",
    "prior_index": "int64",
    "image_index": "int64",
    "seed": "int64",
    "other_class": "int64",
    "ot_cost": "float64",
    "sha256": "string",
    "pixels_sha256": "string",
}


def column_types() -> dict[str, str]:
    """The metadata columns in order, each with its type."""
    return dict(_COLUMNS)


def label_names(classes: Sequence[ClassInfo]) -> list[str]:
    """The names for a ClassLabel, which must differ: a name that several classes share is told apart by WordNet id,
    or by class index."""
    names = [info.name for info in classes]
    shared = {name for name in names if names.count(name) > 1}
    return [
        f"{info.name} ({info.wnid or index})" if info.name in shared else info.name
        for index, info in enumerate(classes)
    ]
