"""A protocol's augmentation, batched and on the batch's device.

Each operation is a function of images and random parameters; each `draw_…` draws those from a CPU generator, so that
they are the same on every device. Images are float, in [0, 1] before normalisation.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Int64, UInt8
from torch import Generator, Tensor

from dmgd.evaluation.dsa import dsa
from dmgd.evaluation.protocols import Protocol

Images = Float[Tensor, "b c h w"]
Normalise = Callable[[Images], Images]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MEAN_AND_STD = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}

# Eigenvalues and eigenvectors (columns) of the RGB values of ImageNet (Krizhevsky et al. 2012).
LIGHTING_VALUES = (0.2175, 0.0188, 0.0045)
LIGHTING_VECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
GREY_WEIGHTS = (0.299, 0.587, 0.114)
_ATTEMPTS = 10


@dataclass(frozen=True)
class Operation:
    """An operation on single images. `draw` (number of images, height, width, generator) gives its numbers, tensors
    with a row for each image; `apply` (images, size, *numbers) gives the images, of `size` pixels if they are resized.
    """

    draw: Callable[[int, int, int, Generator], tuple[Tensor, ...]]
    apply: Callable[..., Tensor]


def augment(
    images: UInt8[Tensor, "b c h w"], protocol: Protocol, normalise: Normalise, generator: Generator
) -> tuple[Images, float, Int64[Tensor, " b"]]:
    """The augmented, normalised batch; CutMix's λ, the fraction of own pixels in each image; and its partners."""
    x = to_unit(images)
    count, _, height, width = x.shape
    own, partners = 1.0, torch.arange(count)
    for name in protocol.augmentation:
        if name == "normalise":
            x = normalise(x)
        elif name == "dsa":
            x = dsa(x, generator)
        elif name == "cutmix":
            partners, box = draw_cutmix(count, x.shape[2], x.shape[3], generator)
            x, own = cutmix(x, partners, box)
        else:
            operation = OPERATIONS[name]
            x = operation.apply(x, protocol.size or height, *operation.draw(count, height, width, generator))
    return x, own, partners.to(x.device)


def step_seed(seed: int, step: int) -> int:
    """A seed for one step of one training; negative steps are for the order of each epoch."""
    return (seed * 1_000_003 + step) % 2**63


def to_unit(images: UInt8[Tensor, "b c h w"]) -> Images:
    return images.float().div_(255)


def normaliser(images: UInt8[Tensor, "n c h w"], protocol: Protocol) -> Normalise:
    """The normalisation of images in [0, 1] by the protocol's mean and standard deviation; those of a dataset are
    averaged over the channels for grey images."""
    mean, std = map(torch.tensor, channel_statistics(images, protocol))

    def normalise(x: Images) -> Images:
        return (x - mean.to(x.device)[:, None, None]) / std.to(x.device)[:, None, None]

    return normalise


def channel_statistics(images: UInt8[Tensor, "n c h w"], protocol: Protocol) -> tuple[list[float], list[float]]:
    """The mean and the standard deviation of each channel by which the protocol normalises images in [0, 1]."""
    if protocol.normalisation != "own":
        return dataset_statistics(protocol.normalisation, images.shape[1])
    pixels = to_unit(images)
    return pixels.mean((0, 2, 3)).tolist(), pixels.std((0, 2, 3)).clamp(min=1e-3).tolist()


def dataset_statistics(name: str, channels: int) -> tuple[list[float], list[float]]:
    """The mean and the standard deviation of each channel of the dataset `name`, of MEAN_AND_STD."""
    mean, std = map(torch.tensor, MEAN_AND_STD[name])
    if channels == 1:
        mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
    return mean.tolist(), std.tolist()


def draw_boxes(count: int, height: int, width: int, generator: Generator) -> Int[Tensor, "b 4"]:
    """Random crops (top, left, height, width): ½ to 1 of the area, aspect ratio 3/4 to 4/3, whole image if none fits.

    Source: torchvision's RandomResizedCrop.get_params, all attempts of all images drawn at once.
    """
    area = height * width * _uniform((count, _ATTEMPTS), 0.5, 1.0, generator)
    ratio = torch.exp(_uniform((count, _ATTEMPTS), math.log(3 / 4), math.log(4 / 3), generator))
    w, h = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.int().argmax(1, keepdim=True)
    w, h = w.gather(1, first)[:, 0], h.gather(1, first)[:, 0]
    none = ~fits.any(1)
    w[none], h[none] = width, height
    top = (torch.rand(count, generator=generator) * (height - h + 1)).long()
    left = (torch.rand(count, generator=generator) * (width - w + 1)).long()
    return torch.stack([top, left, h, w], 1)


def resized_crop(images: Images, boxes: Int[Tensor, "b 4"], size: int) -> Float[Tensor, "b c {size} {size}"]:
    """Each image's box, resized to `size` by bilinear interpolation (as `F.interpolate` of the crop does)."""
    rows = _box_coordinates(boxes[:, 0], boxes[:, 2], size, images.shape[2])
    columns = _box_coordinates(boxes[:, 1], boxes[:, 3], size, images.shape[3])
    rows, columns = rows.to(images.device), columns.to(images.device)
    grid = torch.stack([columns[:, None, :].expand(-1, size, -1), rows[:, :, None].expand(-1, -1, size)], dim=-1)
    return F.grid_sample(images, grid.to(images.dtype), mode="bilinear", padding_mode="border", align_corners=False)


def _box_coordinates(start: Tensor, length: Tensor, size: int, extent: int) -> Float[Tensor, "b {size}"]:
    """The positions of the output pixels along one axis, in grid_sample's [−1, 1], clamped to the box."""
    start, length = start[:, None].double(), length[:, None].double()
    position = (torch.arange(size) + 0.5) * length / size
    inside = torch.minimum(position.clamp(min=0.5), length - 0.5) + start
    return (2 * inside / extent - 1).float()


def draw_flips(count: int, generator: Generator) -> Bool[Tensor, " b"]:
    """Which images to flip: each with probability ½."""
    return torch.rand(count, generator=generator) < 0.5


def flip(images: Images, flipped: Bool[Tensor, " b"]) -> Images:
    """The images, the `flipped` ones mirrored left to right."""
    return torch.where(flipped.to(images.device)[:, None, None, None], images.flip(3), images)


def draw_jitter(count: int, generator: Generator, strength: float = 0.4) -> tuple[Tensor, Tensor]:
    """Factors (b, 3) of brightness, contrast and saturation in 1 ± `strength`, and the order (b, 3) to apply them."""
    factors = _uniform((count, 3), 1 - strength, 1 + strength, generator)
    return factors, torch.rand((count, 3), generator=generator).argsort(1)


def jitter(images: Images, factors: Float[Tensor, "b 3"], order: Int[Tensor, "b 3"]) -> Images:
    """The images with brightness (0), contrast (1) and saturation (2) changed in each image's own order.

    Each change is a blend factor·image + (1 − factor)·other: black, the mean grey, the grey image. Not clamped. All are
    affine in a pixel's colour, as is their composition, which is applied in one pass.
    """
    factors, order = factors.to(images.device, images.dtype), order.to(images.device)
    channels = images.shape[1]
    identity, weights = torch.eye(channels, device=images.device), luma_weights(channels, images.device)
    mean = images.mean((2, 3))  # (b, c), of the changed image
    matrix, offset = identity.expand(len(images), -1, -1), torch.zeros_like(mean)
    for position in range(3):
        which = order[:, position, None]
        factor = factors.gather(1, which)
        to_grey = torch.where(which == 2, 1 - factor, 0.0)[:, :, None] * weights  # each channel gets the luma
        change = factor[:, :, None] * identity + to_grey
        constant = torch.where(which == 1, (1 - factor) * (mean @ weights)[:, None], 0.0)
        matrix = change @ matrix
        mean, offset = ((change @ v[:, :, None])[:, :, 0] + constant for v in (mean, offset))
    return torch.baddbmm(offset[:, :, None], matrix, images.flatten(2)).view_as(images)


def luma_weights(channels: int, device: torch.device) -> Float[Tensor, " c"]:
    """What a channel counts in the luma: for RGB the GREY_WEIGHTS, for grey images 1."""
    return torch.tensor(GREY_WEIGHTS if channels == 3 else (1.0,), device=device)


def draw_lighting(count: int, generator: Generator, strength: float = 0.1) -> Float[Tensor, "b 3"]:
    """The weights α of the three principal colour directions: normal, standard deviation `strength`."""
    return torch.randn((count, 3), generator=generator) * strength


def lighting(images: Images, alpha: Float[Tensor, "b 3"]) -> Images:
    """RGB images + Σ_j α_j λ_j v_j (AlexNet's PCA noise); grey images get the mean of its three channels."""
    shift = (alpha * torch.tensor(LIGHTING_VALUES)) @ torch.tensor(LIGHTING_VECTORS).T
    shift = shift if images.shape[1] == 3 else shift.mean(1, keepdim=True)
    return images + shift.to(images.device, images.dtype)[:, :, None, None]


def draw_affine(count: int, generator: Generator) -> Float[Tensor, "b 2 3"]:
    """Random similarity maps: rotation up to ± 10°, scale 1 ± 0.1, translation ± 0.1 of half a side."""
    angle = _uniform((count,), -math.radians(10), math.radians(10), generator)
    scale = _uniform((count, 2), 0.9, 1.1, generator)
    offset = _uniform((count, 2), -0.1, 0.1, generator)
    cos, sin = angle.cos(), angle.sin()
    rows = torch.stack([cos * scale[:, 0], -sin * scale[:, 0], sin * scale[:, 1], cos * scale[:, 1]], 1)
    return torch.cat([rows.view(count, 2, 2), offset[:, :, None]], 2)


def affine(images: Images, maps: Float[Tensor, "b 2 3"]) -> Images:
    """The images warped by `maps` (output → input coordinates), bilinear, with border padding."""
    grid = F.affine_grid(maps.to(images.device, images.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def draw_patches(count: int, generator: Generator, factor: int = 2) -> Int[Tensor, "b p"]:
    """For each image a permutation of its `factor`² patches."""
    return torch.rand((count, factor**2), generator=generator).argsort(1)


def shuffle_patches(images: Images, order: Int[Tensor, "b p"]) -> Images:
    """The images cut into patches, row by row, with patch order[b, i] moved to position i (RDED)."""
    (b, c, h, w), factor = images.shape, math.isqrt(order.shape[1])
    tiles = images.view(b, c, factor, h // factor, factor, w // factor).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    tiles = tiles[torch.arange(b, device=images.device)[:, None], order.to(images.device)]
    return tiles.view(b, factor, factor, c, h // factor, w // factor).permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)


def draw_cutmix(
    count: int, height: int, width: int, generator: Generator
) -> tuple[Int[Tensor, " b"], tuple[int, int, int, int]]:
    """The partner of each image and one box (top, left, bottom, right) for the batch, of area 1 − λ, λ uniform.

    β = 1 makes the Beta distribution uniform. The box is clipped at the border. Source: Yun et al. 2019.
    """
    partners = torch.randperm(count, generator=generator)
    own, y, x = torch.rand(3, generator=generator).tolist()
    cut = math.sqrt(1 - own)
    cut_h, cut_w, cy, cx = int(height * cut), int(width * cut), int(height * y), int(width * x)
    top, left = max(cy - cut_h // 2, 0), max(cx - cut_w // 2, 0)
    return partners, (top, left, min(cy + cut_h // 2, height), min(cx + cut_w // 2, width))


def cutmix(images: Images, partners: Int[Tensor, " b"], box: tuple[int, int, int, int]) -> tuple[Images, float]:
    """The images with the box replaced by that of their partners, and the fraction of pixels outside the box."""
    top, left, bottom, right = box
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[partners.to(images.device), :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


OPERATIONS = {
    "affine": Operation(lambda n, h, w, g: (draw_affine(n, g),), lambda x, size, maps: affine(x, maps)),
    "patches": Operation(lambda n, h, w, g: (draw_patches(n, g),), lambda x, size, order: shuffle_patches(x, order)),
    "resized-crop": Operation(
        lambda n, h, w, g: (draw_boxes(n, h, w, g),), lambda x, size, boxes: resized_crop(x, boxes, size)
    ),
    "flip": Operation(lambda n, h, w, g: (draw_flips(n, g),), lambda x, size, flipped: flip(x, flipped)),
    "jitter": Operation(
        lambda n, h, w, g: draw_jitter(n, g), lambda x, size, factors, order: jitter(x, factors, order)
    ),
    "lighting": Operation(lambda n, h, w, g: (draw_lighting(n, g),), lambda x, size, alpha: lighting(x, alpha)),
}
