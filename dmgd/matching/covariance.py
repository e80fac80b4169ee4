"""Covariance matching: the covariance of a class, given back to a set of means of its parts.

The barycentric projections of a class have its mean but vary less than its images: what varies within a part is
averaged away. Of all linear maps that give a set the covariance Σ in the directions that it spans, the optimal
transport map between two Gaussians moves it least. With the n deviations from the mean as the rows of U, it is
U ↦ G^½ R G^−½ U, where G = U Uᵀ and R = √n G^−½ (U Σ Uᵀ)^½ G^−½ is the gain of each direction. So the targets
become other weights of the same support points, and Σ is needed only along these.

A mean of N/n images that vary independently has lost a factor √(N/n) of their spread. Where the set varies less than
that, it does so by chance, and R is cut there: a set of all N images stays as it is.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

# Directions in which the targets vary less than 1e-4 of the most come from rounding and are left as they are.
NEGLIGIBLE = 1e-8


@dataclass(frozen=True)
class ClassCovariance:
    """How the images of each class vary, as its support points see it, in float64 on the CPU: the shares of the mean,
    the points' `inner` products S Sᵀ and the class's covariance `along` them (see `covariance_along`), and the number
    of images N."""

    centre: Float64[Tensor, "c 1 k"]
    inner: Float64[Tensor, "c k k"]
    along: Float64[Tensor, "c k k"]
    count: Int64[Tensor, " c"]

    @classmethod
    def of(
        cls,
        support: Float[Tensor, "c k d"],
        mass: Float[Tensor, "c k"],
        along: Float64[Tensor, "c k k"],
        count: Int64[Tensor, " c"],
    ) -> "ClassCovariance":
        """What support points and their masses add to the covariance along them."""
        points, shares = support.double().cpu(), mass.double().cpu()
        centre = (shares / shares.sum(1, keepdim=True))[:, None]
        deviations = points - centre @ points
        return cls(centre, deviations @ deviations.mT, along, count)


def with_covariance(weights: Float[Tensor, "c n k"], wanted: ClassCovariance) -> Float[Tensor, "c n k"]:
    """Weights of the support points that give the n targets of each class the covariance `wanted`; their mean stays.
    `weights` are those of the means: rows sum to 1, columns to n times the masses.

    Source: Gelbrich 1990; Peyré & Cuturi 2019, "Computational Optimal Transport", Remark 2.31 (the map between
    Gaussians).
    """
    rows, num_targets = weights.double().cpu(), weights.shape[1]
    root, inverse = powers(rows @ wanted.inner @ rows.mT, 0.5, -0.5)
    (covariance_root,) = powers(rows @ wanted.along @ rows.mT, 0.5)
    gain, direction = torch.linalg.eigh(num_targets**0.5 * inverse @ covariance_root @ inverse)
    lost_by_averaging = (wanted.count / num_targets).clamp_min(1).sqrt()
    gain = gain.minimum(lost_by_averaging[:, None])
    matched = root @ (direction * gain[:, None] @ direction.mT) @ inverse @ (rows - wanted.centre)
    return (wanted.centre + matched).to(weights)


def powers(matrix: Float64[Tensor, "c n n"], *exponents: float) -> list[Float64[Tensor, "c n n"]]:
    """Powers of a symmetric positive semidefinite matrix within its range."""
    values, vectors = torch.linalg.eigh(matrix)
    within = values > NEGLIGIBLE * values[:, -1:].clamp_min(torch.finfo(values.dtype).tiny)
    values = torch.where(within, values, 1)
    return [vectors * (values.pow(exponent) * within)[:, None] @ vectors.mT for exponent in exponents]
