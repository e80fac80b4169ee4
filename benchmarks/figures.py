"""Measurements of sets: their log, and tables in Markdown."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Figures:
    """The measurements of one set. `ot` is the exact transport distance to all images of the class, in the prior's
    latents (pixels scaled to [−1, 1] without an autoencoder), mean over classes; `diversity` the mean distance within a
    class relative to that of real images; `nearest` the median distance to the nearest real training image, in units of
    that between real ones."""

    top1: float
    ot: float
    diversity: float | None
    nearest: float


KEYS = ("row", "ipc", "seed")


def read_figures(log: Path, keys: Sequence[str] = KEYS) -> dict[tuple[Any, ...], Figures]:
    """The log of earlier runs, by the values of `keys`; empty if there is none."""
    known = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return {tuple(entry.pop(key) for key in keys): Figures(**entry) for entry in known}


def append_figures(log: Path, key: Sequence[Any], figures: Figures, keys: Sequence[str] = KEYS) -> None:
    """Add a line to the log."""
    with log.open("a") as file:
        print(json.dumps({**dict(zip(keys, key, strict=True)), **vars(figures)}), file=file)


def mean_and_spread(values: list[float], digits: int = 1) -> str:
    """Mean ± population standard deviation, or a dash for no values."""
    kept = np.array([value for value in values if value is not None], dtype=float)
    return f"{kept.mean():.{digits}f} ± {kept.std():.{digits}f}" if len(kept) else "–"


def gain(better: list[float], other: list[float]) -> str:
    """The mean difference, seed by seed, and its standard error."""
    difference = np.array(better) - np.array(other)
    error = difference.std(ddof=1) / len(difference) ** 0.5 if len(difference) > 1 else float("nan")
    return f"{difference.mean():+.1f} ± {error:.1f}"


@dataclass(frozen=True)
class Results:
    """Finished measurements by (row, IPC, seed), and the selection to show, as tables in Markdown."""

    found: dict[tuple[str, int, int], Figures]
    rows: list[str]
    ipcs: list[int]
    seeds: int

    def learned(self) -> str:
        """Top-1 by IPC, and the gain of dmgd over each row."""
        top1 = self._lines("top-1 %", lambda row, ipc: mean_and_spread(self._values(row, ipc, "top1")))
        return top1 + self._lines("gain of dmgd ± standard error, paired", self._gain)

    def placed(self) -> str:
        """The set metrics against the real images."""
        shown = (("transport distance", "ot", 3), ("diversity", "diversity", 2), ("nearest real", "nearest", 2))
        return "".join(
            self._lines(title, lambda row, ipc, n=name, d=digits: mean_and_spread(self._values(row, ipc, n), d))
            for title, name, digits in shown
        )

    def _values(self, row: str, ipc: int, name: str) -> list[Any]:
        return [getattr(self.found[row, ipc, s], name) for s in range(self.seeds) if (row, ipc, s) in self.found]

    def _gain(self, row: str, ipc: int) -> str:
        both = [s for s in range(self.seeds) if (row, ipc, s) in self.found and ("dmgd", ipc, s) in self.found]
        pairs = [[self.found[name, ipc, s].top1 for s in both] for name in ("dmgd", row)]
        return gain(*pairs) if row != "dmgd" and both else "–"

    def _lines(self, title: str, cell: Callable[[str, int], str]) -> str:
        lines = [[row, *(cell(row, ipc) for ipc in self.ipcs)] for row in self.rows]
        head, *body = (f"| {' | '.join(cells)} |" for cells in [[title, *(f"IPC {ipc}" for ipc in self.ipcs)], *lines])
        return "\n".join([head, "|" + "---|" * (1 + len(self.ipcs)), *body, "", ""])
