"""Distribution matching without a scale: every image moves towards its share of the class.

The exact optimal-transport plan γ between the n images of a class (each of mass 1/n) and its support points, with
squared Euclidean cost, gives every image its own part of the class. The mean of that part, the barycentric projection
T(x_i) = n Σ_j γ_ij k_j, is where W₂² between the set and the class falls fastest: −½ n ∂W₂²/∂x_i = T(x_i) − x_i. A step
of strength s in [0, 1] goes that share of the way, whatever the latents' scale and dimension and the number of images.
"""

import numpy as np
import ot
import torch
from jaxtyping import Float
from torch import Tensor

from dmgd.statistics.spread import Spread, with_spread

Latents = Float[Tensor, "c n d"]
Support = Float[Tensor, "c k d"]
Mass = Float[Tensor, "c k"]


def exact_plan(cost: Float[Tensor, "c n k"], mass: Mass) -> Float[Tensor, "c n k"]:
    """The plan γ of every class that moves rows of mass 1/n to columns of mass `mass` at the least cost.

    Solved by POT's network simplex in float64 on the CPU; rows sum to 1/n, columns to their share of the class's mass.
    """
    rows = np.full(cost.shape[1], 1 / cost.shape[1])
    costs, masses = cost.double().cpu().numpy(), mass.double().cpu().numpy()
    plans = [ot.emd(rows, m / m.sum(), c) for c, m in zip(costs, masses, strict=True)]
    return torch.from_numpy(np.stack(plans)).to(cost)


def barycentric_projection(
    latents: Latents, support: Support, mass: Mass, spread: Spread | None = None
) -> tuple[Latents, Float[Tensor, " c"]]:
    """T(x_i), the mean of the part of its class that each latent stands for, and W₂² between the latents and the class.
    With `spread`, the means of a class are drawn apart until they vary as its images do.

    Source: Ferradans et al. 2014, "Regularized discrete optimal transport" (barycentric projection); the gradient of
    W₂² as in Cuturi & Doucet 2014, Eq. 8.
    """
    squared = torch.cdist(latents, support, compute_mode="donot_use_mm_for_euclid_dist").square()
    plan = exact_plan(squared, mass)
    weights = latents.shape[1] * plan
    if spread:
        weights = with_spread(weights, spread)
    return weights @ support, (plan * squared).sum((1, 2))
