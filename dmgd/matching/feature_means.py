"""Feature matching: the images of a class together get the mean features of the class under untrained networks.

Transport chooses what images show; what a network sees in them together is left open, and so is texture where targets
are means. The last x̂_0 of a class is therefore moved a little, along the gradient of Σ_f (mean over the images − mean
over the class)², under one network after another. The RMS of a step over the images of a class is fixed, so that its
size means the same for any number of images and features; and it falls to 0, so that the steps end.

Source: Zhao & Bilen 2023, "Dataset Condensation with Distribution Matching", Eq. 6, without augmentation, with networks
that are always the same and whose mean features of the class are therefore computed once.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dmgd.diffusion.sampler import Guide
from dmgd.diffusion.schedule import Step
from dmgd.statistics.untrained import UntrainedNetworks

STEPS = 50
GPU_PIXELS = 2**20  # of images or latents that are moved at a time: a thousand of 32×32, with a gigabyte for gradients
FIRST_STEP = 0.02  # RMS over the images of a class: pixels are in [−1, 1], latents of a standard deviation near 1


def feature_guide(wanted: Float[Tensor, "c r f"], finished: Float[Tensor, "c m d"], *, are_pixels: bool) -> Guide:
    """In the last sampling step x̂_0 after STEPS steps towards the mean features `wanted`; pixels stay in [−1, 1].

    The batch is a grid of c classes × n images, whose features count together with those of the m `finished` images of
    their class. Every class is matched by itself.
    """
    limit = 1.0 if are_pixels else math.inf

    def guide(step: Step, x0: Tensor, sigma: Tensor) -> tuple[Tensor, None]:
        if step.index > 0:
            return x0, None
        networks = UntrainedNetworks((x0.shape[1], x0.shape[2], x0.shape[3]))
        classes = x0.reshape(len(wanted), -1, *x0.shape[1:])
        # The images of one class are far too few to fill a GPU. On a CPU they stay alone, so that none of their bits
        # depends on the other classes of the batch.
        together = max(1, GPU_PIXELS // classes[0, :, 0].numel()) if x0.is_cuda else 1
        parts = zip(*(whole.split(together) for whole in (classes, wanted, finished)), strict=True)
        found = [matched(networks, images, means, done, limit) for images, means, done in parts]
        return torch.cat(found).reshape(x0.shape), None

    return guide


def matched(
    networks: UntrainedNetworks,
    images: Float[Tensor, "c n ch h w"],
    wanted: Float[Tensor, "c r f"],
    finished: Float[Tensor, "c m d"],
    limit: float,
) -> Float[Tensor, "c n ch h w"]:
    """The images of each class after STEPS steps, within ± `limit`."""

    def sums(r: int, of: Float[Tensor, "c k ch h w"]) -> Float[Tensor, "c f"]:
        return networks.features(r, of.flatten(0, 1)).unflatten(0, of.shape[:2]).sum(1)

    done = finished.unflatten(2, networks.shape)
    of_done = [sums(r, done) for r in range(len(networks))]
    total = images.shape[1] + finished.shape[1]
    for number in range(STEPS):
        r = number % len(networks)
        with torch.enable_grad():
            moving = images.detach().requires_grad_()
            means = (sums(r, moving) + of_done[r]) / total
            (gradient,) = torch.autograd.grad((means - wanted[:, r]).square().sum(), moving)
        size = FIRST_STEP * (1 - number / STEPS)
        rms = gradient.square().mean((1, 2, 3, 4), keepdim=True).sqrt()
        images = (images - size / rms.clamp_min(torch.finfo(rms.dtype).tiny) * gradient).clamp(-limit, limit)
    return images
