"""Image sets as uint8 tensors of one shape, for training and testing networks."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median_low

import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from dmgd.classes.info import ClassInfo
from dmgd.classes.matching import match_labels
from dmgd.errors import ArtifactError, MismatchError, UsageError, listed
from dmgd.evaluation.inputs import RawSet, read_raw_set
from dmgd.evaluation.protocols import BASELINES
from dmgd.evaluation.stored_labels import SoftLabels, soft_labels
from dmgd.images import BadImage, measured, read_image, square_pixels, to_image, to_square
from dmgd.mosaics import shrunk
from dmgd.progress import SILENT, Progress
from dmgd.sources.source import Source
from dmgd.specs import PriorSpec, SourceSpec, default_prior


@dataclass(frozen=True)
class ImageSet:
    """`images` with their `labels`, indices into `classes`; `name` is shown in tables. With `tiles` above 1 they are
    parts of mosaics. `stored` are the pixels that each has where it is stored, before it was resized; `soft` are a
    teacher's labels of the images; by `weights`, of mean 1, the images count in the loss (None: equally)."""

    name: str
    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    classes: tuple[ClassInfo, ...]
    tiles: int = 1
    stored: Int64[Tensor, " n"] | None = None
    soft: SoftLabels | None = None
    weights: Float[Tensor, " n"] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> list[int]:
        """Images of each class."""
        return torch.bincount(self.labels, minlength=len(self.classes)).tolist()

    @cached_property
    def digest(self) -> str:
        """The hexadecimal SHA-256 of images, all labels, weights and classes, in order; the name is none of it."""
        known = hashlib.sha256(repr([list(self.images.shape), [info.identity for info in self.classes]]).encode())
        for part in (self.images, self.labels):
            known.update(part.contiguous().numpy().data)
        if self.soft:
            known.update(self.soft.digest.encode())
        if self.weights is not None:
            known.update(b"weights" + self.weights.numpy().tobytes())
        return known.hexdigest()

    def select(self, indices: Int64[Tensor, " m"] | Sequence[int], name: str) -> "ImageSet":
        """The images at `indices`, in that order, as a set with a new name and without soft labels."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        stored, weights = (None if one is None else one[chosen] for one in (self.stored, self.weights))
        images, labels = self.images[chosen], self.labels[chosen]
        return replace(self, name=name, images=images, labels=labels, stored=stored, soft=None, weights=weights)

    @property
    def stored_images(self) -> int:
        """How many images are stored: the mosaics that the parts fill."""
        return sum(-(-count // self.tiles**2) for count in self.counts)

    @property
    def stored_as(self) -> dict[str, int]:
        """For JSON: how many images and pixels are stored, and how many parts each has along a side."""
        pixels = {} if self.stored is None else {"pixels": int(self.stored.sum())}
        return {"tiles": self.tiles, "stored_images": self.stored_images, **pixels}

    def with_stored(self, pixels: Sequence[int], tiles: int) -> "ImageSet":
        """The set that is stored in these pixels, an image after the other."""
        return replace(self, stored=torch.tensor(pixels, dtype=torch.int64), tiles=tiles)


def stack_images(
    name: str, pixels: list[UInt8[Tensor, "h w c"]], labels: Sequence[int], classes: tuple[ClassInfo, ...]
) -> ImageSet:
    """The set of images of equal size. Raises ArtifactError if there are none."""
    if not pixels:
        raise ArtifactError(f"{name} has no images")
    images = torch.stack(pixels).permute(0, 3, 1, 2).contiguous()
    return ImageSet(name, images, torch.tensor(labels, dtype=torch.int64), classes)


@dataclass(frozen=True)
class Shape:
    """The shape that images are converted to: shorter side resized to `resize` pixels, centre crop of `size` × `size`,
    `channels` 1 (grey) or 3 (RGB). With `tiles` above 1 they are before that squares of `side` pixels, shrunk to be
    parts of mosaics."""

    resize: int
    size: int
    channels: int
    side: int = 0
    tiles: int = 1

    def in_mosaics(self, side: int, tiles: int) -> "Shape":
        """This shape for images in mosaics of `side` pixels; for images that are in none, if tiles is 1."""
        return replace(self, side=side if tiles > 1 else 0, tiles=tiles)

    def stored_pixels(self, image: Image.Image) -> int:
        """The pixels that the image has before it gets this shape, as itself or as a part of a mosaic."""
        return image.width * image.height if self.tiles == 1 else (self.side // self.tiles) ** 2

    def stored(self, image: Image.Image) -> Image.Image:
        """The image itself, or as it is in a mosaic."""
        if self.tiles == 1:
            return image
        return to_image(shrunk(square_pixels(image, self.side, self.channels), self.tiles))

    def apply(self, image: Image.Image) -> UInt8[Tensor, "h w c"]:
        margin = (self.resize - self.size) // 2
        square = to_square(self.stored(image), self.resize, self.channels)
        return square[margin : margin + self.size, margin : margin + self.size]


def usual_shape(source: Source, split: str) -> tuple[int, int]:
    """The median shorter side of a split's images, in pixels, and their channels: 1 only if all are grey.

    Only the files' headers are read. Raises ArtifactError if the split is empty or missing.
    """
    found = [shape for one in source.images(split) if (shape := measured(one.image))]
    if not found:
        raise ArtifactError(
            f"the source {source.name!r} has no {split} images; choose a source that has a {split} split"
        )
    return median_low(side for side, _ in found), max(channels for _, channels in found)


def source_set(source: Source, split: str, name: str, shape: Shape, *, progress: Progress = SILENT) -> ImageSet:
    """The readable images of one split, in the source's order."""
    return numbered_set(source, split, name, shape, None, progress)[0]


def numbered_set(
    source: Source, split: str, name: str, shape: Shape, ordinals: Collection[int] | None, progress: Progress
) -> tuple[ImageSet, list[int]]:
    """The readable images of one split, or of those with the given `ordinals`, and the ordinal of each. Others are
    reported."""
    pixels, labels, there, sizes, bad = [], [], [], [], list[str]()
    with progress.task(f"decode {name}", len(ordinals) if ordinals is not None else None, "images") as task:
        for ordinal, image, label in readable_images(source, split, ordinals, bad.append):
            pixels.append(shape.apply(image))
            labels.append(label)
            there.append(ordinal)
            sizes.append(shape.stored_pixels(image))
            task.advance()
    if bad:
        progress.warn(f"{len(bad)} {split} images of {source.name} cannot be read and are left out: {listed(bad)}")
    return stack_images(name, pixels, labels, source.classes).with_stored(sizes, shape.tiles), there


def readable_images(
    source: Source,
    split: str,
    ordinals: Collection[int] | None = None,
    on_bad: Callable[[str], None] = lambda line: None,
) -> Iterator[tuple[int, Image.Image, int]]:
    """(ordinal in the split, decoded image, label) of the readable images; if `ordinals` are given, of those alone, and
    no other is decoded. `on_bad` is called with the name of each unreadable one and the reason."""
    for ordinal, one in enumerate(source.images(split)):
        if ordinals is None or ordinal in ordinals:
            try:
                image = read_image(one.image)
            except BadImage as error:
                on_bad(f"{one.name} ({error})")
                continue
            yield ordinal, image, one.label


def prepared_set(raw: RawSet, classes: tuple[ClassInfo, ...], shape: Shape, matching: str = "auto") -> ImageSet:
    """The set in one shape, with labels that are indices into the test source's `classes`.

    Raises MismatchError where the classes do not match, ArtifactError unless there are at least two and an image of
    each.
    """
    indices = match_labels(raw.name, raw.classes, classes, matching, numbered=raw.numbered)
    pixels = [shape.apply(image) for image in raw.images]
    data = stack_images(raw.name, pixels, [indices[label] for label in raw.labels], classes)
    data = data.with_stored([image.width * image.height for image in raw.images], raw.tiles)
    if raw.soft:
        data = replace(data, soft=soft_labels(raw.soft, classes))
    if raw.weighted:
        weights = torch.tensor(raw.weights)
        data = replace(data, weights=weights / weights.mean())
    if ways := ["soft labels"] * bool(raw.soft) + ["weighted"] * raw.weighted:
        data = replace(data, name=f"{raw.name} ({', '.join(ways)})")
    if len(classes) < 2:
        raise ArtifactError(f"{data.name} has {len(classes)} class; a classifier needs at least two")
    if empty := [info.name for info, count in zip(classes, data.counts, strict=True) if count == 0]:
        raise ArtifactError(
            f"{data.name} has no image of {len(empty)} of the {len(classes)} classes: {listed(empty)}; "
            "add images, or evaluate on a source that has only its classes"
        )
    return data


def source_of(sets: Sequence[RawSet], **options: str | None) -> SourceSpec:
    """The source to test on: the one that the sets were distilled from, with the `options` that are not None.

    Raises UsageError if none is recorded or given, MismatchError if the sets have different ones.
    """
    found = {one.specs[0].published().name: one.specs[0] for one in sets if one.specs}
    if not options.get("name"):
        if not found:
            raise UsageError(f"{sets[0].name} does not record which dataset it was made from; give --source")
        if len(found) > 1:
            several = ", ".join(sorted(found))
            raise MismatchError(f"the sets were distilled from different sources ({several}); give --source")
    return next(iter(found.values()), SourceSpec("")).with_options(**options)


def prior_of(sets: Sequence[RawSet], source: str, **options: str | None) -> PriorSpec:
    """The prior that the first set was sampled from, else the default for this source, with the `options` that are not
    None."""
    own = sets[0].specs[1] if sets[0].specs else PriorSpec(default_prior(source))
    return own.with_options(**options)


def read_sets(paths: Sequence[Path]) -> list[RawSet]:
    """The sets at `paths`; the first is named by its folder, the others by their path as given.

    A folder named like a baseline or another set is named by its absolute path. Raises UsageError for duplicates.
    """
    resolved = [path.resolve() for path in paths]
    if twice := next((path for path, whole in zip(paths, resolved, strict=True) if resolved.count(whole) > 1), None):
        raise UsageError(f"{twice} is given twice; leave it out of --against")
    first, *others = resolved[0].name, *map(str, paths[1:])
    names = [str(resolved[0]) if first in (*BASELINES, *others) else first, *others]
    return [replace(read_raw_set(path), name=name) for path, name in zip(paths, names, strict=True)]


def by_recipe(sets: Sequence[RawSet]) -> list[list[RawSet]]:
    """The sets, those together, ordered by their seeds, that were made by one method, and labelled by one teacher, with
    the same settings and other seeds."""
    groups: list[list[RawSet]] = []
    for one in sets:
        for group in groups:
            first, known = group[0], [other.recipe for other in group]
            labels, own = (soft.recipe if soft else None for soft in (first.soft, one.soft))
            alike = one.tiles == first.tiles and labels == own
            if one.recipe and known[0] and one.recipe[0] == known[0][0] and alike and one.recipe not in known:
                group.append(one)
                break
        else:
            groups.append([one])
    return [sorted(group, key=lambda one: one.recipe[1] if one.recipe else 0) for group in groups]
