"""Whether a set orders networks as all images do: what a stand-in for architecture search must get right."""

from itertools import combinations
from typing import Any

from dmgd.evaluation.comparison_rows import Row, Rows
from dmgd.evaluation.significance import ROUNDING

LEAST = 3  # networks: fewer have no order worth a coefficient


def student_orders(rows: Rows) -> list[dict[str, Any]]:
    """For every method, IPC and protocol with several networks: their "order" by top-1, best first, that on all images,
    Kendall's τ-b between the two, the pairs of networks that swap, and a statement.

    τ and the statement are None for fewer than three networks, without all images, or if all networks are equal.
    """
    found: dict[tuple[str, int | None, str], list[Row]] = {}
    for row in rows:
        if row.key.ipc is not None:
            found.setdefault(row.key[:3], []).append(row)
    return [_order(own, rows) for own in found.values() if len(own) > 1]


def _order(own: list[Row], rows: Rows) -> dict[str, Any]:
    accuracies = {row.key.network: row.mean for row in own}
    on_all = {row.key.network: full.mean for row in own if (full := rows.full(row))}
    complete = len(on_all) == len(accuracies)
    tau = kendall_tau(accuracies, on_all) if complete else None
    swapped = _swapped(accuracies, on_all) if complete else []
    method, ipc, protocol, _ = own[0].key
    return {
        "method": method,
        "ipc": ipc,
        "protocol": protocol,
        "networks": len(accuracies),
        "tau": None if tau is None else round(tau, 4),
        "order": _descending(accuracies),
        "order_full": _descending(on_all) if complete else None,
        "swapped": swapped,
        "pairs": len(accuracies) * (len(accuracies) - 1) // 2,
        "statement": None
        if tau is None
        else f"{method}, IPC {ipc}, {protocol}: {_words(len(accuracies), swapped, tau)}",
    }


def kendall_tau(first: dict[str, float], second: dict[str, float]) -> float | None:
    """Kendall's τ-b of two measurements of the same networks; None for fewer than three or if one is constant."""
    from scipy.stats import kendalltau

    if len(first) < LEAST or min(len(set(first.values())), len(set(second.values()))) == 1:
        return None
    return float(kendalltau(list(first.values()), [second[name] for name in first]).statistic)


def _swapped(first: dict[str, float], second: dict[str, float]) -> list[list[str]]:
    """The pairs of networks of which another one is the better in each; those that are equal in one are none."""
    return [[a, b] for a, b in combinations(first, 2) if (first[a] - first[b]) * (second[a] - second[b]) < 0]


def _words(networks: int, swapped: list[list[str]], tau: float) -> str:
    if not swapped:
        ties = "" if tau > 1 - ROUNDING else ", but for networks that one of them finds equal"
        return f"the set orders the {networks} networks as all images do{ties} (τ {tau:.2f})"
    pairs = networks * (networks - 1) // 2
    names = ", ".join(f"{a} and {b}" for a, b in swapped)
    return f"the set swaps {len(swapped)} of the {pairs} pairs of networks (τ {tau:.2f}): {names}"


def _descending(accuracies: dict[str, float]) -> list[str]:
    return sorted(accuracies, key=lambda name: -accuracies[name])
