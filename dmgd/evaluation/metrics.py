"""Set metrics against the real images, computed on rows of features (latents, or a network's)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

NEIGHBOURS = 5
NEAR_COPY = 0.3

Rows = Float[ndarray, "n d"]


def distances(a: Rows, b: Rows) -> Float[ndarray, "n m"]:
    """Euclidean distances between all rows of `a` and of `b`, computed in float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squared, 0))


def to_others(rows: Rows) -> Float[ndarray, "n n"]:
    """The distances between all rows, infinite to themselves."""
    among = distances(rows, rows)
    np.fill_diagonal(among, np.inf)
    return among


def transport_distance(rows: Rows, support: Rows, mass: Float[ndarray, " k"]) -> float:
    """The exact optimal-transport cost (Euclidean) between the rows, equally weighted, and weighted points."""
    from dmgd.matching.pot import ot

    weights = np.full(len(rows), 1 / len(rows))
    return float(ot.emd2(weights, mass.astype(np.float64) / mass.sum(), distances(rows, support)))


def coverage_and_density(real: Rows, synthetic: Rows, k: int = NEIGHBOURS) -> tuple[float, float]:
    """Coverage: the fraction of real images with a synthetic one within the distance to their k-th real neighbour.
    Density: the mean number of these balls around a synthetic image, over k. Source: Naeem et al. 2020, Eq. 3 and 4."""
    k = min(k, len(real) - 1)
    radius = np.partition(to_others(real), k - 1, axis=1)[:, k - 1]
    inside = distances(real, synthetic) <= radius[:, None]
    return float(inside.any(1).mean()), float(inside.sum() / (k * len(synthetic)))


def mean_pairwise(rows: Rows) -> float:
    """The mean distance between two different rows; NaN for fewer than two."""
    count = len(rows)
    return float(distances(rows, rows).sum() / (count * (count - 1))) if count > 1 else float("nan")


def nearest(synthetic: Rows, real: Rows) -> Float[ndarray, " n"]:
    """Each synthetic image's distance to the nearest real one."""
    return distances(synthetic, real).min(1)


def nearest_among(real: Rows) -> float:
    """The median distance between a real image and its nearest other real image."""
    return float(np.median(to_others(real).min(1)))


def frechet_distance(a: Rows, b: Rows) -> float:
    """The squared Fréchet distance of the Gaussians with the rows' means and covariances (Heusel et al. 2017).

    tr √(Σ_a Σ_b) is the nuclear norm of A Bᵀ for centred rows A, B over √(n − 1): exact, and cheap for few rows.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    gap = ((a.mean(0) - b.mean(0)) ** 2).sum()
    centred_a = (a - a.mean(0)) / np.sqrt(max(len(a) - 1, 1))
    centred_b = (b - b.mean(0)) / np.sqrt(max(len(b) - 1, 1))
    mixed = np.linalg.svd(centred_a @ centred_b.T, compute_uv=False).sum()
    return max(0.0, float(gap + (centred_a**2).sum() + (centred_b**2).sum() - 2 * mixed))


def set_metrics(
    synthetic: Rows,
    synthetic_labels: Int[ndarray, " n"],
    real: Rows,
    real_labels: Int[ndarray, " m"],
    supports: Sequence[tuple[Rows, Float[ndarray, " k"]]],
) -> dict[str, float]:
    """All metrics of one set. `supports` are the support points and masses of each class.

    "OT" is the mean over classes; "diversity" the mean distance within a class relative to that of real images;
    "nearest" the median distance to the nearest real image, in units of that between real images; "near copies" the
    number of images nearer than 0.3 of that unit.
    """
    coverage, density = coverage_and_density(real, synthetic)
    near = nearest(synthetic, real) / max(nearest_among(real), 1e-12)
    costs, diversity = [], []
    for c, support in enumerate(supports):
        own, others = synthetic[synthetic_labels == c], real[real_labels == c]
        if len(own) and len(others):
            costs.append(transport_distance(own, *support))
            diversity.append(mean_pairwise(own) / mean_pairwise(others))
    diversity = [value for value in diversity if np.isfinite(value)]
    return {
        "OT": float(np.mean(costs)),
        "coverage": coverage,
        "density": density,
        "diversity": float(np.mean(diversity)) if diversity else 0.0,
        "nearest": float(np.median(near)),
        "near copies": int((near < NEAR_COPY).sum()),
        "Fréchet": frechet_distance(synthetic, real),
    }
