"""Where the sampler's randomness comes from: seeds, one generator per image, or recorded tensors."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Noise(Protocol):
    """The Gaussian noise of a batch."""

    def start(self) -> Float[Tensor, "b c h w"]:
        """z_T, the noise that sampling starts from."""

    def step(self, k: int) -> Float[Tensor, "b c h w"]:
        """The noise added after step index k; called with k = len(schedule) − 1, …, 1, each once, in this order, if
        steps add noise."""


class SeededNoise:
    """Noise with one CPU generator per image, so that an image's noise depends on its seed alone:
    not on the batch, the device or the number of machines."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...], device: torch.device | str = "cpu"):
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shape, self._device = shape, device

    def start(self) -> Tensor:
        return self.step(-1)

    def step(self, k: int) -> Tensor:
        drawn = [torch.randn(self._shape, generator=generator) for generator in self._generators]
        return torch.stack(drawn).to(self._device)


class RecordedNoise:
    """Noise given as tensors: `start` (b, c, h, w) and `steps` (num_steps, b, c, h, w), that of step index k at k."""

    def __init__(self, start: Tensor, steps: Tensor):
        self._start, self._steps = start, steps

    def start(self) -> Tensor:
        return self._start

    def step(self, k: int) -> Tensor:
        return self._steps[k]
