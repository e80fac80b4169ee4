"""Feature matching: the images of a class together get the mean features of the class under untrained networks.

Transport chooses what images show, but its targets are means, which lack the texture that networks learn from. The last
x̂_0 of a class is therefore moved a little, along the gradient of Σ_f (mean over the images − mean over the class)²,
under one network after another. The RMS of a step over the images of a class is fixed, so that its size means the same
for any number of images and features; and it falls to 0, so that the steps end.

Source: Zhao & Bilen 2023, "Dataset Condensation with Distribution Matching", Eq. 6, without augmentation, with networks
that are always the same and whose mean features of the class are therefore computed once.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from dmgd.diffusion.sampler import Guide
from dmgd.diffusion.schedule import Step
from dmgd.statistics.untrained import UntrainedNetworks

STEPS = 50
FIRST_STEP = 0.03  # RMS over the images of a class, whose pixels are in [−1, 1]


def feature_guide(wanted: Float[Tensor, "c r f"], finished: Float[Tensor, "c m d"]) -> Guide:
    """In the last sampling step x̂_0, clipped to [−1, 1], after STEPS steps towards the mean features `wanted`.

    The batch is a grid of c classes × n images in pixels, whose features count together with those of the m `finished`
    images of their class. Every class is matched by itself.
    """

    def guide(step: Step, x0: Tensor, sigma: Tensor) -> tuple[Tensor, None]:
        if step.index > 0:
            return x0, None
        networks = UntrainedNetworks((x0.shape[1], x0.shape[2], x0.shape[3]))
        classes = x0.reshape(len(wanted), -1, *x0.shape[1:])
        own = zip(classes, wanted, finished, strict=True)
        return torch.cat([_matched(networks, images, means, done) for images, means, done in own]), None

    return guide


def _matched(
    networks: UntrainedNetworks,
    images: Float[Tensor, "n c h w"],
    wanted: Float[Tensor, "r f"],
    finished: Float[Tensor, "m d"],
) -> Float[Tensor, "n c h w"]:
    done = [networks.features(r, finished.reshape(-1, *networks.shape)).sum(0) for r in range(len(networks))]
    total = len(images) + len(finished)
    for number in range(STEPS):
        r = number % len(networks)
        with torch.enable_grad():
            moving = images.detach().requires_grad_()
            means = (networks.features(r, moving).sum(0) + done[r]) / total
            (gradient,) = torch.autograd.grad((means - wanted[r]).square().sum(), moving)
        size = FIRST_STEP * (1 - number / STEPS)
        rms = gradient.square().mean().sqrt().clamp_min(torch.finfo(gradient.dtype).tiny)
        images = (images - size / rms * gradient).clamp(-1, 1)
    return images
