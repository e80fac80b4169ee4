"""The 1,000 classes of ImageNet, the usual ordered subsets of them, and the editions of these, recognised by their
number of images: results on different editions are not comparable."""

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from dmgd.classes.info import ClassInfo

# Training images of fastai's second edition and of ImageNet's own folders (fastai's first edition has all of those).
FASTAI, FOLDERS = "fastai's second edition", "ImageNet's folders"
KNOWN: dict[str, dict[int, str]] = {
    "imagenette": {9469: FASTAI, 12894: FOLDERS},
    "imagewoof": {9025: FASTAI, 12454: FOLDERS},
    "imagenet-1k": {1281167: FOLDERS},
}
PER_CLASS = (732, 1300)  # training images in the smallest and the largest class of ImageNet


@cache
def _table() -> dict:
    return json.loads((files("dmgd.classes") / "imagenet_classes.json").read_text())


@cache
def imagenet_classes() -> tuple[ClassInfo, ...]:
    """The 1,000 classes in the order of ImageNet's (and DiT's) label table, sorted by WordNet id."""
    return tuple(ClassInfo(entry["name"], entry["wnid"]) for entry in _table()["classes"])


def imagenet_subset(name: str) -> tuple[ClassInfo, ...]:
    """The classes of a subset such as "imagenette" or "imagewoof", in their usual order.

    Raises KeyError for an unknown name.
    """
    by_wnid = {info.wnid: info for info in imagenet_classes()}
    return tuple(by_wnid[wnid] for wnid in _table()["subsets"][name])


def imagenet_subsets() -> tuple[str, ...]:
    return tuple(_table()["subsets"])


def edition(name: str, counts: Sequence[int]) -> str | None:
    """The edition of the named source with this many training images, or None if it is unknown."""
    return KNOWN.get(name, {}).get(sum(counts))


def edition_warning(name: str, counts: Sequence[int]) -> str | None:
    """The warning if `counts`, the training images per class, differ from those of ImageNet's folders, else None."""
    total, known = sum(counts), KNOWN.get(name, {})
    if name not in (*imagenet_subsets(), "imagenet-1k") or known.get(total) == FOLDERS:
        return None
    papers = next((f" ({count:,} images)" for count, found in known.items() if found == FOLDERS), "")
    if known.get(total) == FASTAI:
        return (
            f"{name} with {total:,} training images is {FASTAI}; the papers use {FOLDERS}{papers}, "
            "so results are not comparable with theirs"
        )
    if known or min(counts) < PER_CLASS[0] or max(counts) > PER_CLASS[1]:
        return (
            f"{name} has {total:,} training images here, {min(counts):,} to {max(counts):,} per class; "
            f"{FOLDERS}{papers} have {PER_CLASS[0]} to {PER_CLASS[1]:,} per class: this is another variant"
        )
    return None
