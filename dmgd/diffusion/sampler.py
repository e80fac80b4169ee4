"""The guided sampler. It knows nothing of classes, images or files."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from dmgd.diffusion.condition import Condition
from dmgd.diffusion.guidance import Denoiser, Guidance, Latents
from dmgd.diffusion.noise import Noise
from dmgd.diffusion.schedule import Schedule, Step
from dmgd.errors import DmgdError

Conditions = Callable[[Step], tuple[Condition, Condition]]
"""Step → the condition of the batch and its null condition."""

Cost = Float[Tensor, " classes"] | None
"""What a guide has measured of each class, if anything."""


Guide = Callable[[Step, Latents, Latents], tuple[Latents, Cost]]
"""(Step, predicted clean latents x̂_0, the posterior's standard deviation σ) → x̂_0′ in the place of x̂_0, and the
transport cost: what distribution matching does."""


def unguided(step: Step, x0: Latents, sigma: Latents) -> tuple[Latents, Cost]:
    """The guide that changes nothing."""
    return x0, None


Observer = Callable[[Step, Latents, Latents, Cost], None]
"""(Step, x̂_0 before the guide, z_{k−1}, what the guide measured) → nothing."""


def unobserved(step: Step, x0: Latents, z: Latents, cost: Cost) -> None:
    """The observer that does nothing."""


@torch.no_grad()
def sample(
    denoise: Denoiser,
    schedule: Schedule,
    noise: Noise,
    conditions: Conditions,
    guide: Guide = unguided,
    guidance: Guidance = Guidance(),
    *,
    observe: Observer = unobserved,
) -> tuple[Latents, Cost]:
    """The latents z_0 of a batch, float32, and the cost that the guide measured last: a pure function of the network,
    the noise and the settings.

    `conditions` and `guide` are where semantic and distribution matching enter; `observe` sees every step. Everything
    outside the network is computed in float32.

    Raises DmgdError if the network gives NaN or infinite values, of which no image could be made.
    """
    z, measured = noise.start().float(), None
    previous, was_guided = None, False
    for step in reversed(schedule):
        x0, log_variance = guidance.denoised(denoise, z, step, *conditions(step))
        # Drawn here, so that a GPU, which is still busy with the network, does not wait for it.
        fresh = noise.step(step.index) if step.index > 0 and not step.deterministic else None
        if log_variance is None:
            log_variance = torch.full_like(z, step.log_variance_small)
        if not (x0.isfinite().all() and log_variance.isfinite().all()):
            raise DmgdError(
                f"the network gave NaN or infinite values at step {step.index}; check its weights, or take precision "
                "fp32"
            )
        sigma = (0.5 * log_variance).exp()
        clean, cost = guide(step, x0, sigma)
        if clean is not x0 and (clean.shape != x0.shape or not clean.isfinite().all()):
            raise DmgdError(
                f"the guide gave NaN, infinite values or another shape at step {step.index}; take smaller settings of "
                "the method"
            )
        # A solver of second order goes on by what its prediction, guide included, has changed since the last step.
        # Where the guide begins or ends, the difference is its own and no trend.
        is_guided = clean is not x0
        change = clean - previous if step.extrapolate and previous is not None and is_guided == was_guided else 0
        mean = step.mean_x0 * (clean + step.extrapolate * change) + step.mean_z * z
        z = mean if fresh is None else mean + sigma * fresh
        previous, was_guided, measured = clean, is_guided, cost if cost is not None else measured
        observe(step, x0, z, cost)
    return z, measured
