"""Rows of latents that stand for all of them."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def nearest_distinct(rows: Float[ndarray, "n d"], centres: Float[ndarray, "k d"]) -> list[int]:
    """For each centre in turn the index of the nearest row that is not taken yet; at most n."""
    squared = (centres**2).sum(1)[:, None] - 2 * centres @ rows.T + (rows**2).sum(1)
    chosen: list[int] = []
    for distances in squared[: len(rows)]:
        distances[chosen] = np.inf
        chosen.append(int(distances.argmin()))
    return chosen


def weights(rows: Float[ndarray, "n d"], images: Float[ndarray, "m d"]) -> Float[ndarray, " m"]:
    """What each of the images stands for: the share of the rows that are nearest to it (to the first of equal ones),
    times m, so that the mean is 1. An image that no row is nearest to has 0.

    No other weights bring the same images nearer to the rows in W₂.
    Source: Tan & Slade 2025, "Dataset Distillation as Pushforward Optimal Quantization" (arXiv:2501.07681).
    """
    points = images.astype(np.float64)
    nearest = ((points**2).sum(1) - 2 * rows.astype(np.float64) @ points.T).argmin(1)
    return np.bincount(nearest, minlength=len(images)) * (len(images) / len(rows))


def herding(rows: Float[ndarray, "n d"], count: int) -> list[int]:
    """Indices of `count` rows (at most n), chosen greedily so that their running mean follows the mean of all.

    Source: Welling 2009; the selection of iCaRL (Rebuffi et al. 2017).
    """
    mean, total = rows.mean(0), np.zeros(rows.shape[1])
    chosen: list[int] = []
    for k in range(1, min(count, len(rows)) + 1):
        distances = ((mean - (total + rows) / k) ** 2).sum(1)
        distances[chosen] = np.inf
        chosen.append(int(distances.argmin()))
        total += rows[chosen[-1]]
    return chosen
