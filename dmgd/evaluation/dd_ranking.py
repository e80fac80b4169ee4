"""DD-Ranking's scores (Li et al. 2025, arXiv:2505.13300), with the formulas of its package `ddranking` 0.2.0.

All accuracies are fractions in [0, 1], as in the paper. The package inserts per cent into the same exponential: scores
that it prints are only comparable after a division of its accuracies by 100.
"""

import math

WEIGHT = 0.5  # the package's lrs_lambda and ars_lambda


def label_robust_score(full_hard: float, own_hard: float, own: float, random: float) -> float:
    """LRS in [0, 1] of a set: `full_hard` and `own_hard` are accuracies with hard labels of all images and of the set;
    `own` and `random` those of the set and of random images by the set's own recipe.

    HLR = full_hard − own_hard, IOR = own − random; α = ½·IOR − ½·HLR.
    """
    return _normalised(WEIGHT * (own - random) - (1 - WEIGHT) * (full_hard - own_hard))


def augmentation_robust_score(own: float, random: float, own_plain: float, random_plain: float) -> float:
    """ARS in [0, 1] of a set: the gain over random images with augmentation, and that without (`…_plain`), half
    each."""
    return _normalised(WEIGHT * (own - random) + (1 - WEIGHT) * (own_plain - random_plain))


def _normalised(x: float) -> float:
    """[−1, 1] → [0, 1]: (eˣ − e⁻¹) / (e − e⁻¹)."""
    return (math.exp(x) - math.exp(-1)) / (math.e - math.exp(-1))
