"""What one method gains over the others, seed by seed, as tables in Markdown."""

from collections.abc import Iterable
from typing import Any

import numpy as np

By = dict[tuple[str, Any], dict[tuple[int, int], float]]


def gains(comparison: dict[str, Any], ours: Iterable[str]) -> str:
    """The gains in top-1 of each of the rows `ours` over every other, ± the paired standard error, by network and IPC,
    from a comparison's JSON."""
    parts = []
    rows = comparison["rows"]
    for protocol, network in dict.fromkeys((row["protocol"], row["network"]) for row in rows):
        own = [row for row in rows if (row["protocol"], row["network"]) == (protocol, network)]
        by: By = {
            (row["method"], row["ipc"]): {(one["seed"], one["repeat"]): one["top1"] for one in row["by_seed"]}
            for row in own
        }
        ipcs = list(dict.fromkeys(row["ipc"] for row in own))
        names = list(dict.fromkeys(row["method"] for row in own))
        for better in (name for name in ours if name in names):
            head = [f"gain of {better}, {protocol}, {network}", *(f"IPC {ipc}" for ipc in ipcs)]
            lines = [[other, *(gain(by, better, other, ipc) for ipc in ipcs)] for other in names if other != better]
            cells = [head, ["---"] * len(head), *lines]
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n")
    return "\n".join(parts)


def gain(by: By, better: str, other: str, ipc: Any) -> str:
    """The mean difference of the trainings that both rows have, and its standard error over the seeds."""
    a, b = by.get((better, ipc), {}), by.get((other, ipc), {})
    both = sorted(a.keys() & b.keys())
    if not both:
        return "–"
    seeds = sorted({seed for seed, _ in both})
    difference = np.array([np.mean([a[key] - b[key] for key in both if key[0] == seed]) for seed in seeds])
    error = f" ± {difference.std(ddof=1) / len(seeds) ** 0.5:.2f}" if len(seeds) > 1 else ""
    return f"{difference.mean():+.2f}{error} ({len(seeds)})"
