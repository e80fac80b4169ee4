"""The guided DDPM sampler. It knows nothing of classes, images or files."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dmgd.diffusion.noise import Noise
from dmgd.diffusion.schedule import Schedule
from dmgd.errors import DmgdError

Label = Float[Tensor, "b g e"]

Denoiser = Callable[[Float[Tensor, "b c h w"], int, Label], Float[Tensor, "b out h w"]]
"""(z, original timestep t, label embedding) → predicted noise, followed along the channels by the variance if the
network has learned it (in [−1, 1], see `standard_deviation`)."""

Condition = Callable[[int], tuple[Label, Label]]
"""Step index k → the conditional and the null label embeddings of the batch."""

Shift = Callable[[int, Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]], Float[Tensor, "b c h w"] | None]
"""(Step index k, predicted clean latent ẑ_0, posterior standard deviation σ_k) → what to add to the mean, or None."""

Observer = Callable[[int, Tensor, Tensor], None]
"""(Step index k, ẑ_0 before any shift, z_{k−1}) → nothing."""


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance of strength `scale` (1 + ω in the paper; 1 is none, and skips the null rows) on the
    first `channels` channels (None: all), in the step indices of `interval` (first, last; None: all)."""

    scale: float = 1.0
    channels: int | None = None
    interval: tuple[int, int] | None = None

    def scale_at(self, k: int) -> float:
        """The strength at step index k: none outside of the interval."""
        is_within = self.interval is None or self.interval[0] <= k <= self.interval[1]
        return self.scale if is_within else 1.0


@torch.no_grad()
def sample(
    denoise: Denoiser,
    schedule: Schedule,
    noise: Noise,
    condition: Condition,
    shift: Shift = lambda k, x0, sigma: None,
    guidance: Guidance = Guidance(),
    *,
    observe: Observer = lambda k, x0, z: None,
) -> Float[Tensor, "b c h w"]:
    """The latents z_0 of a batch, float32: a pure function of the network, the noise and the settings.

    `condition` and `shift` are where semantic and distribution matching enter; `observe` sees every step. Everything
    outside the network is computed in float32.

    Raises DmgdError if the network gives NaN or infinite values, of which no image could be made.
    """
    z, previous = noise.start().float(), None
    for k in reversed(range(schedule.num_steps)):
        # Predict the noise and, where the network has learned it, the variance.
        scale, channels = guidance.scale_at(k), guidance.channels
        predicted = guided(denoise, z, schedule.timestep[k], *condition(k), scale, channels)
        # Drawn here, so that a GPU, which is still busy with the network, does not wait for it.
        fresh = noise.step(k) if k > 0 else None
        if not predicted.isfinite().all():
            raise DmgdError(
                f"the network gave NaN or infinite values at step {k}; check its weights, or take precision fp32"
            )
        epsilon, variance = predicted[:, : z.shape[1]], predicted[:, z.shape[1] :]
        # ẑ_0 = (z_t − √(1−ᾱ_t) ε) / √ᾱ_t
        alpha_bar = schedule.alpha_bar[k]
        x0 = (z - (1 - alpha_bar) ** 0.5 * epsilon) / alpha_bar**0.5
        # The posterior, its mean moved by the guidance.
        mean = schedule.mean_x0[k] * x0 + schedule.mean_z[k] * z
        sigma = standard_deviation(schedule, k, variance if variance.numel() else None, like=z)
        if (moved := shift(k, x0, sigma)) is not None:
            mean = mean + moved
        # A solver of second order goes on by what its prediction, guidance included, has changed since the last step.
        if any(schedule.extrapolate):
            clean = x0 if moved is None else x0 + moved / schedule.mean_x0[k]
            if previous is not None:
                mean = mean + schedule.mean_x0[k] * schedule.extrapolate[k] * (clean - previous)
            previous = clean
        z = mean if fresh is None else mean + sigma * fresh
        observe(k, x0, z)
    return z


def guided(
    denoise: Denoiser,
    z: Float[Tensor, "b c h w"],
    t: int,
    label: Label,
    null_label: Label,
    scale: float,
    channels: int | None,
) -> Float[Tensor, "b out h w"]:
    """The network's output with classifier-free guidance on the first `channels` of z's channels, float32.

    The other channels, and the variance where there is one, are the conditional row's own.
    Source: Ho & Salimans 2021, Eq. 6; `forward_with_cfg` of facebookresearch/DiT for `channels` = 3.
    """
    if scale == 1:
        return denoise(z, t, label).float()
    conditional, null = denoise(torch.cat([z, z]), t, torch.cat([label, null_label])).float().chunk(2)
    count = z.shape[1] if channels is None else channels
    epsilon = null[:, :count] + scale * (conditional[:, :count] - null[:, :count])
    return torch.cat([epsilon, conditional[:, count:]], dim=1)


def standard_deviation(
    schedule: Schedule, k: int, variance: Float[Tensor, "b c h w"] | None, like: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c h w"]:
    """σ_k, elementwise. `variance` is the network's v in [−1, 1] between the two ends of the range
    (Nichol & Dhariwal 2021, Eq. 15); without it the posterior variance is used."""
    small, large = schedule.log_variance_small[k], schedule.log_variance_large[k]
    if variance is None:
        return torch.full_like(like, small).mul(0.5).exp()
    fraction = (variance + 1) / 2
    return (0.5 * (fraction * large + (1 - fraction) * small)).exp()
