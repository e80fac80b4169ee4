"""Real images chosen as a baseline: at random, nearest to k-means centres, or by herding."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy import ndarray
from torch import Tensor


def random_selection(labels: Int64[Tensor, " n"], counts: Sequence[int], seed: int) -> list[int]:
    """Ordinals of `counts[c]` images of every class c (all, where it has fewer), drawn without replacement."""
    chosen: list[int] = []
    for c, count in enumerate(counts):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + c)
        own = (labels == c).nonzero()[:, 0]
        chosen += own[torch.randperm(len(own), generator=generator)[:count]].tolist()
    return chosen


def nearest_distinct(rows: Float[ndarray, "n d"], centres: Float[ndarray, "k d"]) -> list[int]:
    """For each centre in turn the nearest row that no earlier centre has taken; at most n."""
    squared = (centres**2).sum(1)[:, None] - 2 * centres @ rows.T + (rows**2).sum(1)
    chosen: list[int] = []
    for distances in squared[: len(rows)]:
        distances[chosen] = np.inf
        chosen.append(int(distances.argmin()))
    return chosen


def herding(rows: Float[ndarray, "n d"], count: int) -> list[int]:
    """Indices of `count` rows (at most n) whose running mean follows the mean of all, chosen greedily.

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
