"""Classifier-free guidance, wrapped around a denoiser."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dmgd.diffusion.condition import Condition
from dmgd.diffusion.schedule import Step

Latents = Float[Tensor, "b c h w"]

Denoised = tuple[Latents, Latents | None]
"""The predicted clean latents x̂_0 and, where the network has learned it, the log variance of the posterior; float32."""

Denoiser = Callable[[Latents, Step, Condition], Denoised]


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance of strength `scale` (1 + ω in the paper; 1 is none, and skips the null rows) on the
    first `channels` channels (None: all), in the step indices of `interval` (first, last; None: all).

    The other channels, and the variance, are the conditional row's own.
    Source: Ho & Salimans 2021, Eq. 6; `forward_with_cfg` of facebookresearch/DiT for `channels` = 3.
    """

    scale: float = 1.0
    channels: int | None = None
    interval: tuple[int, int] | None = None

    def denoised(self, denoise: Denoiser, z: Latents, step: Step, condition: Condition, null: Condition) -> Denoised:
        """What `denoise` predicts, guided. x̂_0 is linear in whatever the network predicts, so that guiding the one is
        guiding the other."""
        if self.scale == 1 or (self.interval and not self.interval[0] <= step.index <= self.interval[1]):
            return denoise(z, step, condition)
        both, log_variance = denoise(torch.cat([z, z]), step, Condition.cat(condition, null))
        own, other = both.chunk(2)
        count = own.shape[1] if self.channels is None else self.channels
        guided = other[:, :count] + self.scale * (own[:, :count] - other[:, :count])
        return torch.cat([guided, own[:, count:]], dim=1), None if log_variance is None else log_variance[: len(z)]
