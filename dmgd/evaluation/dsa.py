"""The augmentation of DSA (Zhao & Bilen 2021, "Dataset condensation with differentiable siamese augmentation"), as its
code applies it to the networks of an evaluation: of six operations one for each batch, drawn anew for each image.

Images are normalised. Numbers and drawing are those of VICO-UoE/DatasetCondensation (ParamDiffAug, mode "S").
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

Images = Float[Tensor, "b c h w"]

BRIGHTNESS, SATURATION, CONTRAST = 1.0, 2.0, 0.5
PAD, CUTOUT = 0.125, 0.5  # of the side
SCALE, ROTATION = 1.2, math.radians(15)


def dsa(images: Images, generator: Generator) -> Images:
    """The images after one of OPERATIONS."""
    chosen = int(torch.randint(len(OPERATIONS), (1,), generator=generator))
    return OPERATIONS[chosen](images, generator).contiguous()


def _coloured(images: Images, generator: Generator) -> Images:
    brightness, saturation, contrast = torch.rand((3, len(images), 1, 1, 1), generator=generator).to(images.device)
    return colour(images, brightness, saturation, contrast)


def colour(
    images: Images,
    brightness: Float[Tensor, "b 1 1 1"],
    saturation: Float[Tensor, "b 1 1 1"],
    contrast: Float[Tensor, "b 1 1 1"],
) -> Images:
    """Brightness, then saturation about the grey image, then contrast about the mean; each drawn from [0, 1]."""
    images = images + (brightness - 0.5) * BRIGHTNESS
    images = torch.lerp(images.mean(1, keepdim=True).expand_as(images), images, saturation * SATURATION)
    return torch.lerp(images.mean((1, 2, 3), keepdim=True).expand_as(images), images, contrast + CONTRAST)


def _shifted(images: Images, generator: Generator) -> Images:
    most = [int(side * PAD + 0.5) for side in images.shape[2:]]
    return shift(images, torch.stack([_integers(len(images), -one, one + 1, generator) for one in most], 1))


def shift(images: Images, by: Int[Tensor, "b 2"]) -> Images:
    """Image b shifted so that its pixel (y, x) is what was at (y, x) + `by[b]`, zero outside: a crop after padding."""
    height, width = images.shape[2:]
    most = int(by.abs().max())
    padded = F.pad(images, (most, most, most, most))
    rows = (torch.arange(height) + most + by[:, :1]).to(images.device)
    columns = (torch.arange(width) + most + by[:, 1:]).to(images.device)
    of_image = torch.arange(len(images), device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[of_image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _cut_out(images: Images, generator: Generator) -> Images:
    sizes = [int(side * CUTOUT + 0.5) for side in images.shape[2:]]
    pairs = zip(images.shape[2:], sizes, strict=True)
    centres = [_integers(len(images), 0, side + 1 - size % 2, generator) for side, size in pairs]
    return cut_out(images, torch.stack(centres, 1))


def cut_out(images: Images, centres: Int[Tensor, "b 2"]) -> Images:
    """Image b with a rectangle of half its sides about `centres[b]` set to zero; what lies outside falls on the border,
    as in the original."""
    inside = []
    for axis, side in enumerate(images.shape[2:]):
        size = int(side * CUTOUT + 0.5)
        positions = (torch.arange(size) + centres[:, axis, None] - size // 2).clamp(0, side - 1)
        inside.append(torch.zeros(len(images), side, dtype=torch.bool).scatter_(1, positions, True))
    rectangle = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images * ~rectangle.to(images.device)


def _flipped(images: Images, generator: Generator) -> Images:
    flips = torch.rand((len(images), 1, 1, 1), generator=generator) < 0.5
    return torch.where(flips.to(images.device), images.flip(3), images)


def _scaled(images: Images, generator: Generator) -> Images:
    x, y = torch.rand((2, len(images)), generator=generator) * (SCALE - 1 / SCALE) + 1 / SCALE
    zero = torch.zeros_like(x)
    return warp(images, torch.stack([x, zero, zero, zero, y, zero], 1).view(-1, 2, 3))


def _rotated(images: Images, generator: Generator) -> Images:
    angle = (2 * torch.rand(len(images), generator=generator) - 1) * ROTATION
    sin, cos, zero = angle.sin(), angle.cos(), torch.zeros_like(angle)
    return warp(images, torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3))


def warp(images: Images, maps: Float[Tensor, "b 2 3"]) -> Images:
    """The images warped by `maps` (output → input coordinates), bilinear, zero outside."""
    grid = F.affine_grid(maps.to(images.device, images.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _integers(count: int, low: int, high: int, generator: Generator) -> Int[Tensor, " b"]:
    return torch.randint(low, high, (count,), generator=generator)


OPERATIONS: tuple[Callable[[Images, Generator], Images], ...] = (
    _coloured,
    _shifted,
    _cut_out,
    _flipped,
    _scaled,
    _rotated,
)
