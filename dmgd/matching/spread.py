"""What means lose: the covariance of a class, given back to a set of means of its parts.

The barycentric projections of a class have its mean but vary less than its images: what varies within a part is
averaged away. Of all linear maps that give a set the covariance Σ in the directions that it spans, the optimal
transport map between two Gaussians moves it least. With the n deviations from the mean as the rows of U, it is
U ↦ G^½ R G^−½ U, where G = U Uᵀ and R = √n G^−½ (U Σ Uᵀ)^½ G^−½ says how much each direction is widened. So the targets
become other weights of the same support points, and Σ is needed only along these.

A mean of N/n images that vary independently has lost a factor √(N/n) of their spread. Where the set varies less than
that, it does so by chance, and R is cut there: a set of all N images stays as it is.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy import ndarray
from torch import Tensor

# Directions in which the targets vary less than 1e-4 of the most come from rounding: there is nothing to widen.
NEGLIGIBLE = 1e-8


@dataclass(frozen=True)
class Spread:
    """How the images of each class vary: their covariance `along` the support points, see `spread_along`, and their
    `count` N."""

    along: Float64[Tensor, "c k k"]
    count: Int64[Tensor, " c"]


def spread_along(
    support: Float[ndarray, "k d"], mass: Float[ndarray, " k"], latents: Float[ndarray, "n d"]
) -> Float64[ndarray, "k k"]:
    """S Σ Sᵀ: the covariance Σ of the latents of a class along the deviations S of its support points from their mean;
    0 for points without mass."""
    deviations = np.where(mass[:, None] > 0, support - mass @ support, 0)
    along = (latents - latents.mean(0, dtype=np.float64)) @ deviations.T
    return along.T @ along / len(latents)


def with_spread(
    weights: Float[Tensor, "c n k"], support: Float[Tensor, "c k d"], mass: Float[Tensor, "c k"], spread: Spread
) -> Float[Tensor, "c n k"]:
    """Weights of the support points that give the n targets of each class the spread of its images; their mean stays.
    `weights` are those of the means: rows sum to 1, columns to n times the masses.

    Computed in float64 on the CPU. Source: Gelbrich 1990; Peyré & Cuturi 2019, "Computational Optimal Transport",
    Remark 2.31 (the map between Gaussians).
    """
    rows, points, shares = (part.double().cpu() for part in (weights, support, mass))
    centre = (shares / shares.sum(1, keepdim=True))[:, None]
    deviations, num_targets = points - centre @ points, rows.shape[1]
    root, inverse = (_power(rows @ (deviations @ deviations.mT) @ rows.mT, p) for p in (0.5, -0.5))
    covariance = rows @ spread.along.cpu() @ rows.mT
    gain, direction = torch.linalg.eigh(num_targets**0.5 * inverse @ _power(covariance, 0.5) @ inverse)
    lost_by_averaging = (spread.count.cpu() / num_targets).clamp_min(1).sqrt()
    gain = gain.minimum(lost_by_averaging[:, None])
    widened = root @ (direction * gain[:, None] @ direction.mT) @ inverse @ (rows - centre)
    return (centre + widened).to(weights)


def _power(matrix: Float64[Tensor, "c n n"], exponent: float) -> Float64[Tensor, "c n n"]:
    """A power of a symmetric positive semidefinite matrix within its range."""
    values, vectors = torch.linalg.eigh(matrix)
    within = values > NEGLIGIBLE * values[:, -1:].clamp_min(torch.finfo(values.dtype).tiny)
    powers = torch.where(within, values, 1).pow(exponent) * within
    return vectors * powers[:, None] @ vectors.mT
