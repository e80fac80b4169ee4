"""MGD³'s mode guidance: every image is guided to its own mode."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dmgd.diffusion.sampler import Guide


def mode_guide(
    support: Float[Tensor, "c k d"], mass: Float[Tensor, "c k"], images: Sequence[int], *, strength: float
) -> Guide:
    """The posterior's mean moved by λ σ (m − x̂_0) towards the image's own mode m, the support point (a k-means centre)
    of its index within the class; λ is `strength`. It measures nothing.

    Source: Chan-Santiago et al. 2025, "MGD³: Mode-Guided Dataset Distillation".
    """
    # A class of fewer different images than IPC has fewer centres: they are used again in turn.
    available = (mass > 0).sum(1)
    chosen = [s[torch.tensor(images) % n] for s, n in zip(support, available.tolist(), strict=True)]
    modes = torch.stack(chosen).flatten(0, 1)
    return lambda step, x0, sigma: (x0 + strength / step.mean_x0 * sigma * (modes.reshape(x0.shape) - x0), None)
