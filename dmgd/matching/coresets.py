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
