"""Distribution matching without a scale: every image moves towards its share of the class.

The exact optimal-transport plan γ between the n images of a class (each of mass 1/n) and its support points, with
squared Euclidean cost, gives every image its own part of the class. The mean of that part, the barycentric projection
T(x_i) = n Σ_j γ_ij k_j, is where W₂² between the set and the class falls fastest: −½ n ∂W₂²/∂x_i = T(x_i) − x_i. A step
size ρ in [0, 1] has the same meaning for any scale and dimension of the latents and any number of images.

k support points span at most k − 1 of the d directions. In every other direction all targets are the mean of the class,
whatever the image: a step there only removes detail. In latents of photographs most of the variance of a class lies
outside the span, and halfway to the mean they decode to a blur. A step can therefore be restricted to the span, which
leaves the rest to the prior. The plan is the same either way: distances outside the span are equal for all points.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from dmgd.diffusion.sampler import Guide
from dmgd.diffusion.schedule import Step
from dmgd.matching.covariance import ClassCovariance, powers, with_covariance
from dmgd.matching.pot import ot

Latents = Float[Tensor, "c n d"]
Support = Float[Tensor, "c k d"]
Mass = Float[Tensor, "c k"]


def barycentric_guide(
    support: Support,
    mass: Mass,
    finished: Float[Tensor, "c m d"],
    *,
    rho: float,
    covariance: ClassCovariance | None = None,
    norm: Float[Tensor, " c"] | None = None,
    span: Support | None = None,
) -> Guide:
    """x̂_0′ = x̂_0 + ρ P (T(x̂_0) − x̂_0), and W₂² of every class.

    The batch is a grid of c classes × n images, which are matched together with the m `finished` ones of each class.
    P projects on `span` (see `span_of`; None: it is the identity). With `covariance`, the targets T(x̂_0) vary as the
    images of the class do, without it they are the bare barycentric projections; with `norm` they are scaled to it.
    """

    def guide(step: Step, x0: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        images = x0.reshape(len(support), -1, support.shape[-1])
        target, cost = barycentric_projection(torch.cat([finished, images], dim=1), support, mass, covariance)
        if norm is not None:
            target = norm[:, None, None] * normalize(target, dim=2)
        way = target[:, finished.shape[1] :] - images
        if span is not None:
            way = way @ span.mT @ span
        return x0 + rho * way.reshape(x0.shape), cost

    return guide


def barycentric_projection(
    latents: Latents, support: Support, mass: Mass, covariance: ClassCovariance | None = None
) -> tuple[Latents, Float[Tensor, " c"]]:
    """T(x_i), the mean of the part of its class that each latent stands for, and W₂² between the latents and the class.
    With `covariance`, the targets of a class are matched to it.

    Source: Ferradans et al. 2014, "Regularized discrete optimal transport" (barycentric projection); the gradient of
    W₂² as in Cuturi & Doucet 2014, Eq. 8.
    """
    squared = torch.cdist(latents, support, compute_mode="donot_use_mm_for_euclid_dist").square()
    plan = exact_plan(squared, mass)
    weights = latents.shape[1] * plan
    if covariance:
        weights = with_covariance(weights, covariance)
    return weights @ support, (plan * squared).sum((1, 2))


def exact_plan(cost: Float[Tensor, "c n k"], mass: Mass) -> Float[Tensor, "c n k"]:
    """The plan γ of every class that moves rows of mass 1/n to columns of mass `mass` at the least cost.

    Solved by POT's network simplex in float64 on the CPU; rows sum to 1/n, columns to their share of the class's mass.
    """
    rows = np.full(cost.shape[1], 1 / cost.shape[1])
    costs, masses = cost.double().cpu().numpy(), mass.double().cpu().numpy()
    plans = [ot.emd(rows, m / m.sum(), c) for c, m in zip(costs, masses, strict=True)]
    return torch.from_numpy(np.stack(plans)).to(cost)


def span_of(support: Support, mass: Mass) -> Support:
    """Rows B for which BᵀB is the orthogonal projection onto the span of the deviations of each class's support points
    from their mean. Points without mass count for nothing; computed in float64 on the CPU."""
    points, shares = support.double().cpu(), mass.double().cpu()
    centre = (shares / shares.sum(1, keepdim=True))[:, None] @ points
    deviations = torch.where(shares[:, :, None] > 0, points - centre, 0)
    (inverse_root,) = powers(deviations @ deviations.mT, -0.5)
    return (inverse_root @ deviations).to(support)
