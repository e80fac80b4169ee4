"""DD-Ranking's scores (Li et al. 2025, arXiv:2505.13300), with the formulas of its package `ddranking` 0.2.0.

All accuracies are fractions in [0, 1], as in the paper. The package inserts per cent into the same exponential: scores
that it prints are only comparable after a division of its accuracies by 100.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from dmgd.evaluation.comparison_rows import Row, Rows, pooled

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


def dd_ranking_scores(row: Row, rows: Rows) -> dict[str, dict[str, Any] | None]:
    """HLR and IOR in points of top-1, LRS and ARS in %: mean, population standard deviation and number of seeds. None
    where accuracies are missing.

    Hard labels of a row with soft ones are those of the only protocol with hard labels for the same network.
    """
    if row.key.ipc is None:
        return dict.fromkeys(("hlr", "ior", "lrs", "ars"))
    hard, random = rows.with_hard_labels(row), rows.of(row, "random")
    own, own_plain = row.by_seed, row.plain_by_seed
    full, own_hard = (_for_seeds(rows.full(hard), hard), hard.by_seed) if hard else (None, None)
    drawn, drawn_plain = (random.by_seed, random.plain_by_seed) if random else (None, None)
    return {
        "hlr": _by_common_seed(lambda full, own: full - own, full, own_hard),
        "ior": _by_common_seed(lambda own, drawn: own - drawn, own, drawn),
        "lrs": _by_common_seed(_in_percent(label_robust_score), full, own_hard, own, drawn),
        "ars": _by_common_seed(_in_percent(augmentation_robust_score), own, drawn, own_plain, drawn_plain),
    }


def _for_seeds(full: Row | None, row: Row) -> Mapping[int, float] | None:
    """The accuracies of all images by the seeds of the row, or else their mean for each."""
    if full is None:
        return None
    return full.by_seed if set(row.by_seed) <= set(full.by_seed) else dict.fromkeys(row.by_seed, full.mean)


def _in_percent(score: Callable[..., float]) -> Callable[..., float]:
    return lambda *accuracies: 100 * score(*(accuracy / 100 for accuracy in accuracies))


def _by_common_seed(score: Callable[..., float], *accuracies: Mapping[int, float] | None) -> dict[str, Any] | None:
    """`score` of the accuracies of every seed that all of them have."""
    there = [one for one in accuracies if one]
    if len(there) < len(accuracies):
        return None
    common = sorted(set.intersection(*map(set, there)))
    return pooled([score(*(one[seed] for one in there)) for seed in common])
