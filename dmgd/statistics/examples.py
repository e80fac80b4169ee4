"""The images that a prior is trained on, and those that are held out, from the latents of a source."""

import numpy as np
import torch
from numpy import ndarray

from dmgd.priors.training import Examples
from dmgd.statistics.cache import Latents

HELD_OUT = 20  # one of so many images of a class is not trained on


def training_examples(latents: Latents, shape: tuple[int, int, int], *, is_pixels: bool) -> tuple[Examples, Examples]:
    """The images to train on and those held out, with their mirror images: as uint8 pixels, or as latents of this
    `shape` in half precision, which take a fraction of the memory of the latents in the cache."""
    parts: dict[bool, list[ndarray]] = {False: [], True: []}
    labels: dict[bool, list[int]] = {False: [], True: []}
    for index in range(len(latents)):
        own = latents[index]
        rows = np.rint((own.rows + 1) * 127.5).astype(np.uint8) if is_pixels else own.rows.astype(np.float16)
        # By the order of the pixels' digests, in which an image and its mirror image are not neighbours.
        images = list(dict.fromkeys(own.ordinals.tolist()))
        is_held = np.isin(own.ordinals, images[HELD_OUT - 1 :: HELD_OUT])
        for kind in (False, True):
            parts[kind].append(rows[is_held == kind])
            labels[kind] += [index] * len(parts[kind][-1])
    return _examples(parts[False], labels[False], shape), _examples(parts[True], labels[True], shape)


def _examples(parts: list[ndarray], labels: list[int], shape: tuple[int, int, int]) -> Examples:
    return Examples(torch.from_numpy(np.concatenate(parts)).unflatten(1, shape), torch.tensor(labels, dtype=torch.long))
