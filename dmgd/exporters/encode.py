"""Image files of the formats that an export may have."""

import io

import numpy as np
from numpy import ndarray
from PIL import Image

from dmgd.errors import unknown_choice

# How Pillow writes each format. PNG is the run's own file and is not written again.
SETTINGS = {
    "png": {"format": "PNG"},
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "webp": {"format": "WEBP", "lossless": True, "exact": True},
}
LOSSLESS = ("png", "webp")


def check_image_format(name: str) -> None:
    """Raise UsageError for an unknown image format."""
    if name not in SETTINGS:
        raise unknown_choice("image format", name, tuple(SETTINGS))


def encode(pixels: ndarray, image_format: str) -> bytes:
    """The image file of uint8 `pixels` (h, w, c), c = 1 or 3; the same bytes every time."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    image.save(buffer, **SETTINGS[image_format])  # type: ignore[arg-type]
    return buffer.getvalue()


def decode(data: bytes) -> ndarray:
    """The uint8 pixels (h, w, c) of an image file."""
    pixels = np.array(Image.open(io.BytesIO(data)))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
