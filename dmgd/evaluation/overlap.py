"""Whether a set to train on contains the images that the networks are tested on."""

import hashlib
from collections.abc import Iterable

from jaxtyping import UInt8
from torch import Tensor

from dmgd.errors import MismatchError
from dmgd.evaluation.imageset import ImageSet
from dmgd.progress import Progress


def refuse_test_images(sets: Iterable[ImageSet], test: ImageSet, progress: Progress) -> None:
    """Warn of every set that has some of the test images, pixel by pixel; all have one shape.

    Raises MismatchError if they are half of the set, or half of the test images, or more: it was read from the wrong
    split, or from all of them, and its accuracy would mean nothing.
    """
    tested = {_digest(image) for image in test.images}
    for one in sets:
        same = sum(_digest(image) in tested for image in one.images)
        found = f"{same} of the {len(one)} images of {one.name} are among the {len(test)} test images"
        if 2 * same >= min(len(one), len(test)):
            raise MismatchError(f"{found}: train on other images, such as the training split in a folder of its own")
        if same:
            progress.warn(f"{found}; its accuracy is too high")


def _digest(image: UInt8[Tensor, "c h w"]) -> bytes:
    return hashlib.sha256(image.contiguous().numpy().tobytes()).digest()
