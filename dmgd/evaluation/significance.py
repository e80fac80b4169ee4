"""Means over several trainings, and whether the difference of two sets is significant."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy import ndarray

LEVEL = 0.05
ROUNDING = 1e-9  # points of top-1: differences that differ by less are equal


def mean_and_std(values: Sequence[float] | ndarray) -> dict[str, float]:
    """The mean and the population standard deviation (as the papers report it)."""
    return {"mean": round(float(np.mean(values)), 3), "std": round(float(np.std(values)), 3)}


def plus_minus(value: dict[str, float]) -> str:
    """Mean ± standard deviation, as shown in tables."""
    return f"{value['mean']:.1f} ± {value['std']:.1f}"


def paired_difference(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """Mean of `first` − `second` over equal seeds, with the 95 % interval and p-value of Student's paired t-test.

    With one seed, or if all differences are equal (up to rounding), the interval and p are None.
    """
    from scipy.stats import t

    differences = np.subtract(first, second)
    count, mean = len(differences), float(np.mean(differences))
    result: dict[str, Any] = {"difference": round(mean, 3), "seeds": count, "interval": None, "p": None}
    error = float(np.std(differences, ddof=1)) / math.sqrt(count) if count > 1 else 0.0
    if error > ROUNDING:
        half = float(t.ppf(1 - LEVEL / 2, count - 1)) * error
        result["interval"] = rounded([mean - half, mean + half])
        result["p"] = float(f"{2 * t.sf(abs(mean) / error, count - 1):.4g}")
    return result


def corrected(comparisons: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of `paired_difference`, each with "p_holm": its p corrected for the number of those that were tested;
    None where p is."""
    tested = [one["p"] for one in comparisons if one["p"] is not None]
    adjusted = iter(holm(tested))
    return [{**one, "p_holm": None if one["p"] is None else next(adjusted)} for one in comparisons]


def holm(ps: Sequence[float]) -> list[float]:
    """The p-values corrected for their number by Holm's step-down procedure, in the given order: the smallest times n,
    the next times n − 1, …, none smaller than one before it and none above 1 (Holm 1979)."""
    result, largest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        result[index] = float(f"{largest:.4g}")
    return result


def is_significant(comparison: dict[str, Any] | None) -> bool:
    """Whether a comparison was tested and its corrected p is below 0.05."""
    return comparison is not None and comparison["p_holm"] is not None and comparison["p_holm"] < LEVEL


def shown_p(p: float | None) -> str:
    """A p-value to three digits; a dash for None."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def statement(name: str, other: str, paired: dict[str, Any], tests: int = 1) -> str:
    """The comparison as text, such as "dmgd is 1.4 points above random: significant (95 % interval +0.6 to +2.2, …)".

    With several `tests` the verdict is that of "p_holm".
    """
    points, seeds = paired["difference"], paired["seeds"]
    relation = f"{abs(points):.1f} points {'above' if points >= 0 else 'below'} {other}"
    if paired["p"] is None:
        return f"{name} is {relation} ({seeds} seed{'s' if seeds > 1 else ''}: no test of significance)"
    low, high = paired["interval"]
    decisive = paired["p_holm"] if tests > 1 else paired["p"]
    verdict = "significant" if decisive < LEVEL else "not significant"
    p = _equation(paired["p"])
    if tests > 1:
        p = f"{p}, {_equation(decisive)} by Holm over {tests} comparisons"
    return f"{name} is {relation}: {verdict} (95 % interval {low:+.1f} to {high:+.1f}, {p}, {seeds} paired seeds)"


def _equation(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def rounded(values: Any) -> list[float]:
    """The values to three decimals."""
    return [round(float(value), 3) for value in values]
