"""From an image as it was found to the square uint8 tensor that a prior's codec takes."""

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor


def to_square(image: Image.Image, size: int, channels: int) -> UInt8[Tensor, "{size} {size} {channels}"]:
    """The centre of `image`, `size` pixels square, grey (`channels` 1) or RGB (3).

    EXIF orientation is applied. The shorter side is halved by box averaging while it is at least twice `size`, then
    brought to `size` by bicubic interpolation, then the centre is cropped.
    Source: `center_crop_arr` of guided-diffusion and facebookresearch/DiT.
    """
    image = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    if min(image.size) != size:
        scale = size / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    pixels = np.array(image.crop((left, top, left + size, top + size)))
    return torch.from_numpy(pixels.reshape(size, size, channels))
