"""Augmented views of the images of a set as numbers, so that training can make the same views again.

A view of an image has a row of numbers for each operation of a protocol's augmentation: the box of its crop, whether it
is flipped, and so on; for CutMix the image whose view it is mixed with, and a box of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64, UInt8
from numpy import ndarray
from torch import Generator, Tensor

from dmgd.errors import UsageError
from dmgd.evaluation.augmentation import OPERATIONS, Normalise, step_seed, to_unit

CUTMIX, NORMALISE = "cutmix", "normalise"


@dataclass(frozen=True)
class Views:
    """`count` views of every image of `size` pixels by the operations `augmentation`, in order; `numbers` has for each
    the tensors (n, count, …) of `draw_views`."""

    count: int
    size: int
    augmentation: tuple[str, ...]
    numbers: Mapping[str, tuple[Tensor, ...]]

    def of(
        self, images: UInt8[Tensor, "n c h w"], chosen: Int64[Tensor, " b"], view: int, normalise: Normalise
    ) -> Float[Tensor, "b c s s"]:
        """The view with this number of the images at `chosen`, normalised; `images` are all of the set's."""
        rows = chosen.cpu()
        if CUTMIX in self.augmentation:  # the partners' views, too
            rows = torch.cat([rows, self.numbers[CUTMIX][0][rows, view].long()])
        x = to_unit(images[rows.to(images.device)])
        for name in self.augmentation:
            if name == NORMALISE:
                x = normalise(x)
            elif name == CUTMIX:
                own, other = x.chunk(2)
                rows = rows[: len(chosen)]
                x = torch.where(_inside(self.numbers[CUTMIX][1][rows, view].long(), self.size).to(x.device), other, own)
            else:
                x = OPERATIONS[name].apply(x, self.size, *(_plain(one[rows, view]) for one in self.numbers[name]))
        return x

    def mixed(self, chosen: Int64[Tensor, " b"], view: int) -> tuple[Int64[Tensor, " b"], Float[Tensor, " b"]]:
        """The images that this view of those at `chosen` is mixed with, and the fraction of pixels that are its own; on
        the device of `chosen`."""
        if CUTMIX not in self.augmentation:
            return chosen, torch.ones(len(chosen), device=chosen.device)
        partners, boxes = (one[chosen.cpu(), view].long() for one in self.numbers[CUTMIX])
        top, left, bottom, right = boxes.unbind(1)
        own = 1 - (bottom - top) * (right - left) / self.size**2
        return partners.to(chosen.device), own.to(chosen.device)

    def arrays(self) -> dict[str, ndarray]:
        """The numbers as they are stored, by "NAME.i"."""
        return {f"{name}.{i}": one.numpy() for name, own in self.numbers.items() for i, one in enumerate(own)}


def draw_views(images: int, count: int, augmentation: Sequence[str], size: int, seed: int) -> Views:
    """`count` seeded views of so many images. Raises UsageError for augmentation that is not one of single images."""
    drawn = [name for name in augmentation if name != NORMALISE]
    if odd := [name for name in drawn if name != CUTMIX and name not in OPERATIONS]:
        raise UsageError(f"views cannot be stored of the augmentation {odd[0]}; take another --protocol, or no --views")
    found: dict[str, list[list[Tensor]]] = {name: [] for name in drawn}
    for view in range(count):
        generator = Generator().manual_seed(step_seed(seed, view))
        for name in drawn:
            draw = _draw_cutmix if name == CUTMIX else OPERATIONS[name].draw
            found[name].append([_small(one, size, images) for one in draw(images, size, size, generator)])
    numbers = {name: tuple(torch.stack(own, 1) for own in zip(*each, strict=True)) for name, each in found.items()}
    return Views(count, size, tuple(augmentation), numbers)


def stored_views(arrays: Mapping[str, ndarray], count: int, augmentation: Sequence[str], size: int) -> Views:
    """The views of the arrays of `Views.arrays`. Raises KeyError if one is missing."""
    numbers = {}
    for name in augmentation:
        if name != NORMALISE:
            own = sorted(key for key in arrays if key.rpartition(".")[0] == name)
            numbers[name] = tuple(torch.from_numpy(np.array(arrays[key])) for key in own or [f"{name}.0"])
    return Views(count, size, tuple(augmentation), numbers)


def _draw_cutmix(count: int, height: int, width: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """The partner of each image, and a box (top, left, bottom, right) for each, as `draw_cutmix` draws one."""
    partners = torch.randperm(count, generator=generator)
    own, y, x = torch.rand((3, count), generator=generator)
    cut = (1 - own).sqrt()
    half_h, half_w = (height * cut).long() // 2, (width * cut).long() // 2
    cy, cx = (height * y).long(), (width * x).long()
    top, left = (cy - half_h).clamp(min=0), (cx - half_w).clamp(min=0)
    bottom, right = (cy + half_h).clamp(max=height), (cx + half_w).clamp(max=width)
    return partners, torch.stack([top, left, bottom, right], 1)


def _inside(boxes: Int[Tensor, "b 4"], size: int) -> Bool[Tensor, "b 1 s s"]:
    """The pixels in each box."""
    at = torch.arange(size)
    top, left, bottom, right = boxes[:, :, None].unbind(1)
    rows, columns = (at >= top) & (at < bottom), (at >= left) & (at < right)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _small(numbers: Tensor, size: int, images: int) -> Tensor:
    """Whole numbers, pixels or (one for each image) images, in as few bytes as all of them need."""
    if numbers.dtype != torch.int64:
        return numbers
    largest = size if numbers.ndim > 1 else images
    return numbers.to(torch.uint8 if largest < 2**8 else torch.int16 if largest < 2**15 else torch.int32)


def _plain(numbers: Tensor) -> Tensor:
    return numbers.long() if numbers.dtype in (torch.uint8, torch.int16, torch.int32) else numbers
