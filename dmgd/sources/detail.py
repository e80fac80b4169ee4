"""The detail of an image: how much fine structure it has. No torch: the decoding processes import this."""

import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray

LEAST_DETAIL = 0.5  # of the detail of the source's images: what has less is blurred


def detail(pixels: UInt8[ndarray, "*n h w c"]) -> Float64[ndarray, "*n"]:
    """The mean squared half Laplacian of each image's grey values in [-1, 1]; 0 for a constant image.

    `h` and `w` are at least 3. The sums are of whole numbers, so that the result is the same on every machine.
    """
    height, width, channels = pixels.shape[-3:]
    v = pixels[..., 0].astype(np.int16)
    for channel in range(1, channels):  # ten times as fast as .sum(-1)
        v += pixels[..., channel]
    laplacian = 4 * v[..., 1:-1, 1:-1] - v[..., :-2, 1:-1] - v[..., 2:, 1:-1] - v[..., 1:-1, :-2] - v[..., 1:-1, 2:]
    squared = np.square(laplacian, dtype=np.int64).sum((-2, -1))
    grey_levels = 2 * channels * 127.5  # half the Laplacian, in units of the sum over the channels
    return squared / ((height - 2) * (width - 2) * grey_levels**2)
