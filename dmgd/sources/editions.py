"""Which edition of a dataset a count of images looks like: people who mix them up cannot reproduce each other."""

from collections.abc import Sequence

from dmgd.imagenet import imagenet_subsets

# Training images of fastai's second edition and of ImageNet's own folders (fastai's first edition took all of those).
FASTAI, FOLDERS = "fastai's second edition", "ImageNet's folders"
KNOWN: dict[str, dict[int, str]] = {
    "imagenette": {9469: FASTAI, 12894: FOLDERS},
    "imagewoof": {9025: FASTAI, 12454: FOLDERS},
    "imagenet-1k": {1281167: FOLDERS},
}
PER_CLASS = (732, 1300)  # training images in the smallest and the largest class of ImageNet


def edition(name: str, counts: Sequence[int]) -> str | None:
    """The edition of the named source that has this many training images, or None if none is known to."""
    return KNOWN.get(name, {}).get(sum(counts))


def edition_warning(name: str, counts: Sequence[int]) -> str | None:
    """What to tell the user if `counts`, the training images of each class, are not those of ImageNet's folders."""
    total, known = sum(counts), KNOWN.get(name, {})
    if name not in (*imagenet_subsets(), "imagenet-1k") or known.get(total) == FOLDERS:
        return None
    papers = next((f" ({count:,} images)" for count, found in known.items() if found == FOLDERS), "")
    if known.get(total) == FASTAI:
        return (
            f"{name} with {total:,} training images is {FASTAI}; the papers use {FOLDERS}{papers}, "
            "so numbers are not comparable with theirs"
        )
    if known or min(counts) < PER_CLASS[0] or max(counts) > PER_CLASS[1]:
        return (
            f"{name} has {total:,} training images here, {min(counts):,} to {max(counts):,} a class; "
            f"{FOLDERS}{papers} have {PER_CLASS[0]} to {PER_CLASS[1]:,} a class: this is another variant"
        )
    return None
