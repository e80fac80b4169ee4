"""How a set lies among the real images, measured on rows of features (latents, or a network's)."""

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


def transport_distance(rows: Rows, support: Rows, mass: Float[ndarray, " k"]) -> float:
    """The exact optimal-transport cost (Euclidean) between the rows, equally weighted, and weighted points."""
    import ot

    weights = np.full(len(rows), 1 / len(rows))
    return float(ot.emd2(weights, mass.astype(np.float64) / mass.sum(), distances(rows, support)))


def coverage_and_density(real: Rows, made: Rows, k: int = NEIGHBOURS) -> tuple[float, float]:
    """Coverage: the share of real images with a made one within the distance of their k-th real neighbour. Density:
    in how many of these balls a made image lies on average, divided by k. Source: Naeem et al. 2020, Eq. 3 and 4."""
    k = min(k, len(real) - 1)
    among = distances(real, real)
    np.fill_diagonal(among, np.inf)
    radius = np.partition(among, k - 1, axis=1)[:, k - 1]
    inside = distances(real, made) <= radius[:, None]
    return float(inside.any(1).mean()), float(inside.sum() / (k * len(made)))


def mean_pairwise(rows: Rows) -> float:
    """The mean distance between two different rows; NaN for fewer than two."""
    count = len(rows)
    return float(distances(rows, rows).sum() / (count * (count - 1))) if count > 1 else float("nan")


def nearest(made: Rows, real: Rows) -> tuple[Float[ndarray, " n"], Int[ndarray, " n"]]:
    """Each made image's distance to the nearest real one, and which that is."""
    between = distances(made, real)
    return between.min(1), between.argmin(1)


def nearest_among(real: Rows) -> float:
    """The median distance of a real image to the nearest other one."""
    among = distances(real, real)
    np.fill_diagonal(among, np.inf)
    return float(np.median(among.min(1)))


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
    made: Rows,
    made_labels: Int[ndarray, " n"],
    real: Rows,
    real_labels: Int[ndarray, " m"],
    supports: Sequence[tuple[Rows, Float[ndarray, " k"]]],
) -> dict[str, float]:
    """All metrics of one set. `supports` are the class statistics, points and masses by class.

    "OT" is the mean over the classes; "diversity" the mean distance within a class over that of real images;
    "nearest" the median distance to the nearest real image, in units of that between real ones; "near copies" counts
    images nearer than 0.3 of that unit.
    """
    classes = [c for c in range(len(supports)) if (made_labels == c).any() and (real_labels == c).any()]
    coverage, density = coverage_and_density(real, made)
    unit = max(nearest_among(real), 1e-12)
    near = nearest(made, real)[0] / unit
    spread = [mean_pairwise(made[made_labels == c]) / mean_pairwise(real[real_labels == c]) for c in classes]
    spread = [value for value in spread if np.isfinite(value)]
    return {
        "OT": float(np.mean([transport_distance(made[made_labels == c], *supports[c]) for c in classes])),
        "coverage": coverage,
        "density": density,
        "diversity": float(np.mean(spread)) if spread else 0.0,
        "nearest": float(np.median(near)),
        "near copies": int((near < NEAR_COPY).sum()),
        "Fréchet": frechet_distance(made, real),
    }
