"""The 1,000 classes of ImageNet and the field's ordered subsets of them."""

import json
from functools import cache
from importlib.resources import files

from dmgd.records import ClassInfo


@cache
def _table() -> dict:
    return json.loads((files("dmgd") / "data" / "imagenet_classes.json").read_text())


@cache
def imagenet_classes() -> tuple[ClassInfo, ...]:
    """The 1,000 classes in the order of ImageNet's (and DiT's) label table, sorted by WordNet id."""
    return tuple(ClassInfo(entry["name"], entry["wnid"]) for entry in _table()["classes"])


def imagenet_subset(name: str) -> tuple[ClassInfo, ...]:
    """The classes of a subset such as "imagenette" or "imagewoof", in the order in which the field numbers them.

    Raises KeyError for an unknown name.
    """
    by_wnid = {info.wnid: info for info in imagenet_classes()}
    return tuple(by_wnid[wnid] for wnid in _table()["subsets"][name])


def imagenet_subsets() -> tuple[str, ...]:
    """The names of all subsets."""
    return tuple(_table()["subsets"])
