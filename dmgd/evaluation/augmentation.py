"""A protocol's augmentation: its operations, one after another, with everything drawn from one generator."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Generator, Tensor

from dmgd.evaluation import augment as ops
from dmgd.evaluation.protocols import Protocol

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Normalise = Callable[[Float[Tensor, "b c h w"]], Float[Tensor, "b c h w"]]


def augment(
    images: UInt8[Tensor, "b c h w"], protocol: Protocol, normalise: Normalise, generator: Generator
) -> tuple[Float[Tensor, "b c h w"], float, Int64[Tensor, " b"]]:
    """The augmented, normalised batch; the share of each image that is its own; whose pixels the rest are (CutMix)."""
    x = images.float().div_(255)
    count, height, width = len(x), x.shape[2], x.shape[3]
    own, partners = 1.0, torch.arange(count)
    for name in protocol.augmentation:
        if name == "affine":
            x = ops.affine(x, ops.draw_affine(count, generator, degrees=10, zoom=0.1, shift=0.1))
        elif name == "patches":
            x = ops.shuffle_patches(x, ops.draw_patches(count, generator))
        elif name == "resized-crop":
            x = ops.resized_crop(x, ops.draw_boxes(count, height, width, generator), protocol.size or height)
        elif name == "flip":
            x = ops.flip(x, ops.draw_flips(count, generator))
        elif name == "jitter":
            x = ops.jitter(x, *ops.draw_jitter(count, generator))
        elif name == "lighting":
            x = ops.lighting(x, ops.draw_lighting(count, generator))
        elif name == "normalise":
            x = normalise(x)
        elif name == "cutmix":
            partners, box = ops.draw_cutmix(count, x.shape[2], x.shape[3], generator)
            x, own = ops.cutmix(x, partners, box)
    return x, own, partners.to(x.device)


def normaliser(images: UInt8[Tensor, "n c h w"], protocol: Protocol) -> Normalise:
    """How images in [0, 1] are normalised: by ImageNet's mean and deviation (over the colours, for grey images), or in
    `quick` by the set's own."""
    if protocol.full_batches:
        pixels = images.float().div(255)
        mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3)).clamp(min=1e-3)
    else:
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        if images.shape[1] == 1:
            mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)

    def normalise(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return (x - mean.to(x.device)[:, None, None]) / std.to(x.device)[:, None, None]

    return normalise
