"""Whether the mirror images of a source's images look like images of the source."""

import numpy as np
from numpy import ndarray

from dmgd.images import BadImage, read_image, square_pixels
from dmgd.sources.source import Source

MOST, PER_CLASS, SIDE = 5_000, 50, 16
TOLD = 0.6  # above this share, mirror images are another kind of images


def mirror_share(source: Source) -> float:
    """The share of training images that can be told from their mirror images: about ½ for photographs, near 1 for
    digits, letters and signs, of which a mirror image is no example.

    An image minus its mirror image changes its sign when it is mirrored. So one half of a class says what its images
    look like, by the mean of these differences, and each image of the other half is right if it points that way.
    """
    most = max(2, min(PER_CLASS, MOST // len(source.classes)))
    found: dict[int, list[ndarray]] = {}
    for one in source.images("train"):
        own = found.setdefault(one.label, [])
        if len(own) < most:
            try:
                pixels = square_pixels(read_image(one.image), SIDE, 1).astype(float)
            except BadImage:
                continue
            own.append((pixels - pixels[:, ::-1]).ravel())
    right = [_right(np.stack(own)) for own in found.values() if len(own) > 1]
    return float(np.concatenate(right).mean()) if right else 1.0


def _right(differences: ndarray) -> ndarray:
    """For each image (n, d) of a class whether the other half of the class tells it from its mirror image."""
    differences = differences / (np.linalg.norm(differences, axis=1, keepdims=True) + 1e-9)
    first, second = differences[::2], differences[1::2]
    towards = np.concatenate([first @ second.mean(0), second @ first.mean(0)])
    return (np.sign(towards) + 1) / 2  # an image that is its own mirror image counts half
