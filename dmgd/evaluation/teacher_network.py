"""A teacher as a network of its own input: it brings its image size and normalisation, and the order of its classes."""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Channels = Sequence[float]


class TeacherNetwork(nn.Module):
    """`network`, which expects images normalised by its `mean` and `std` (a number for each channel) of `size` pixels
    (None: any); of its outputs those at `columns` (None: all) are the logits, in that order.

    It is given images in [0, 1], or after `given` images in another normalisation, and resizes them to its own size.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Channels,
        std: Channels,
        *,
        size: int | None = None,
        columns: Sequence[int] | None = None,
    ):
        super().__init__()
        self.network, self.size = network, size
        self.columns = None if columns is None else list(columns)
        self._mean, self._std = torch.tensor(mean), torch.tensor(std)
        self.register_buffer("scale", 1 / self._std)
        self.register_buffer("shift", -self._mean / self._std)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        x = images * self.scale[:, None, None] + self.shift[:, None, None]
        if self.size not in (None, x.shape[-1]):
            x = F.interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True)
        output = self.network(x)
        return output if self.columns is None else output[:, self.columns]

    def given(self, mean: Channels, std: Channels) -> "TeacherNetwork":
        """The same teacher for images that are normalised by this mean and deviation; if they are its own, the images
        reach the network unchanged."""
        other = copy.copy(self)
        other._buffers = {
            "scale": (torch.tensor(std) / self._std).to(self.scale.device),
            "shift": ((torch.tensor(mean) - self._mean) / self._std).to(self.shift.device),
        }
        return other

    def on_unit(self) -> "TeacherNetwork":
        """The same teacher for images in [0, 1]."""
        channels = len(self._mean)
        return self.given((0.0,) * channels, (1.0,) * channels)
