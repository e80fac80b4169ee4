"""Features of images under untrained ConvNets.

Networks need no training to tell distributions apart: sets of images with the same mean features under many networks
of random weights teach a network much the same (Zhao & Bilen 2023, "Dataset Condensation with Distribution Matching").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy import ndarray
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, group_norm, relu

NETWORKS = 20
WIDTH = 64
BLOCKS = 2
IMAGES = 400  # of a class; more change its mean features by less than images are changed to match them
_CHUNK, _CHUNK_PIXELS = 100, 100 * 32**2  # of images, and of pixels, at a time


@dataclass(frozen=True)
class UntrainedNetworks:
    """NETWORKS ConvNets for images of `shape` (channels, height, width), always the same.

    Each is BLOCKS blocks of 3×3 convolution, instance norm, ReLU and 2×2 average pooling; fewer if nothing would be
    left to pool, so that the features of a single pixel are its channels. The norm undoes any scale of the weights and
    any bias: weights are normal, and there are no biases.
    """

    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return NETWORKS

    @property
    def means_shape(self) -> tuple[int, int]:
        """The shape of mean features: networks, and features of each."""
        height, width = (side >> self._blocks for side in self.shape[1:])
        return NETWORKS, (WIDTH if self._blocks else self.shape[0]) * height * width

    @property
    def _blocks(self) -> int:
        return min(BLOCKS, min(self.shape[1:]).bit_length() - 1)

    @cached_property
    def _weights(self) -> list[list[Tensor]]:
        inputs = [self.shape[0], *[WIDTH] * (self._blocks - 1)][: self._blocks]
        generators = [torch.Generator().manual_seed(seed) for seed in range(NETWORKS)]
        return [[torch.randn(WIDTH, width, 3, 3, generator=drawn) for width in inputs] for drawn in generators]

    def features(self, number: int, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n f"]:
        """The last feature maps of network `number`, flattened; on the device of the images."""
        maps = images
        for weight in self._weights[number]:
            maps = conv2d(maps, weight.to(images), padding=1)
            maps = avg_pool2d(relu(group_norm(maps, len(weight))), 2)
        return maps.flatten(1)


def mean_features(images: Float[ndarray, "n d"], shape: Sequence[int]) -> Float32[ndarray, "r f"]:
    """The mean features of images, flattened, under all untrained networks; of IMAGES evenly spread ones if there are
    more."""
    channels, height, width = shape
    networks = UntrainedNetworks((channels, height, width))
    chosen = images[np.linspace(0, len(images) - 1, min(len(images), IMAGES)).round().astype(int)]
    at_once = max(1, min(_CHUNK, _CHUNK_PIXELS // (height * width)))
    chunks = torch.from_numpy(chosen).reshape(-1, *shape).split(at_once)
    of_chunks = [torch.stack([networks.features(r, one).double().sum(0) for r in range(NETWORKS)]) for one in chunks]
    return (torch.stack(of_chunks).sum(0) / len(chosen)).float().numpy()
