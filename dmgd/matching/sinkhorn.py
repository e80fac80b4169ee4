"""Distribution matching: entropic optimal transport between the images of a class and its support points.

Shapes: c classes, n images each, k support points, d latent dimensions. The plans of all classes are solved in one
batch by POT; five unrolled iterations that scale the rows (images) first, then the columns (support points).
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from dmgd.diffusion.sampler import Guide
from dmgd.diffusion.schedule import Step
from dmgd.matching.pot import solve_batch

Latents = Float[Tensor, "c n d"]
Support = Float[Tensor, "c k d"]
Mass = Float[Tensor, "c k"]
Cost = Float[Tensor, "c n k"]

_OUT_OF_REACH = 1e4  # a cost that no plan pays, and that float32 logarithms bear


def sinkhorn_guide(
    support: Support,
    mass: Mass,
    finished: Float[Tensor, "c m d"],
    *,
    rho: float,
    epsilon: float,
    iterations: int,
    times_sigma: bool,
) -> Guide:
    """The posterior's mean moved by −ρ times the gradient of L_OT with respect to z_t, through x̂_0 only, and L_OT of
    every class.

    The batch is a grid of c classes × n images, which are matched together with the m `finished` ones of each class.
    With `times_sigma` the step is ρ σ, as in the released code.
    """
    finished_cost = sphere_cost(finished, support)

    def guide(step: Step, x0: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        images = x0.reshape(len(support), -1, support.shape[-1])
        loss, gradient = loss_and_gradient(images, support, mass, finished_cost, epsilon=epsilon, iterations=iterations)
        if step.alpha == 0:  # of pure noise x̂_0 says nothing, and no step leads anywhere
            return x0, loss
        # ∂x̂_0/∂z_t = 1/α_t while ε is held fixed; the mean has the share `mean_x0` of x̂_0.
        way = -rho / (step.alpha * step.mean_x0) * gradient.reshape(x0.shape)
        return x0 + (way * sigma if times_sigma else way), loss

    return guide


def sphere_cost(latents: Latents, support: Support) -> Cost:
    """Euclidean distances, in [0, 2], of latents and support points projected on the unit sphere.

    A zero latent stays at the origin. Computed without the Gram trick, which is poor for near points in float32.
    """
    return torch.cdist(
        normalize(latents, dim=-1), normalize(support, dim=-1), compute_mode="donot_use_mm_for_euclid_dist"
    )


def transport_plan(cost: Cost, mass: Mass, *, epsilon: float, iterations: int) -> Cost:
    """The entropic plan γ* after `iterations` Sinkhorn iterations: rows of mass 1/n, columns of mass `mass`.

    The last scaling is of the columns, so the column sums are exact and the row sums approximate. Differentiable
    through all iterations. Support points of mass 0 receive nothing.
    Source: the paper's Eq. of the entropic problem, solved as in the released code (rows first).
    """
    count, images, _ = cost.shape
    row_mass = cost.new_full((count, images), 1 / images)
    # Points without mass are put out of reach, or they would take part in the first scaling of the rows. Their mass
    # cannot be exactly zero: the logarithm's gradient would be NaN.
    cost = cost.masked_fill((mass == 0)[:, None], _OUT_OF_REACH)
    column_mass = mass.clamp_min(torch.finfo(cost.dtype).tiny)
    return solve_batch(
        cost, reg=epsilon, a=row_mass, b=column_mass, max_iter=iterations, tol=0, method="log_sinkhorn", grad="autodiff"
    ).plan


def transport_loss(cost: Cost, mass: Mass, *, epsilon: float, iterations: int) -> Float[Tensor, " c"]:
    """L_OT = ⟨γ*, C⟩ of every class."""
    return (transport_plan(cost, mass, epsilon=epsilon, iterations=iterations) * cost).sum((1, 2))


def loss_and_gradient(
    x0: Latents, support: Support, mass: Mass, frozen_cost: Float[Tensor, "c m k"], *, epsilon: float, iterations: int
) -> tuple[Float[Tensor, " c"], Latents]:
    """L_OT of every class, and its gradient with respect to the latents `x0` being made.

    They are matched together with the m images that are already finished, whose costs are `frozen_cost` (greedy
    progressive matching).
    """
    with torch.enable_grad():
        x0 = x0.detach().requires_grad_()
        cost = torch.cat([frozen_cost, sphere_cost(x0, support)], dim=1)
        loss = transport_loss(cost, mass, epsilon=epsilon, iterations=iterations)
        (gradient,) = torch.autograd.grad(loss.sum(), x0)
    return loss.detach(), gradient
