"""The rows of the benchmarks' tables: real images, methods and ablations, each at a guidance scale."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from dmgd.matching.method import Method, Sampled
from dmgd.matching.methods import DMGD, MGD3, DMGDPaper, DMGDReleased

REAL = ("random", "kmeans-real")
COMPARED: dict[str, Sampled] = {
    "dit": Sampled(),
    "mgd3": MGD3(),
    "dmgd-paper": DMGDPaper(),
    "dmgd-released": DMGDReleased(),
    "paper, semantic only": DMGDPaper(distribution=False),
    "paper, distribution only": DMGDPaper(semantic=False),
    "dmgd": DMGD(),
}
ABLATIONS: dict[str, Sampled] = {
    "dmgd, plain labels": DMGD(semantic=False),
    "dmgd, no transport": DMGD(distribution=False),
    "dmgd, no features": DMGD(match_features=False),
    "dmgd, bare means": DMGD(match_covariance=False),
    "dmgd, detail kept": DMGD(keep_detail=True),
    "dmgd, to the means": DMGD(keep_detail=False),
    "dmgd, greedy": DMGD(order="greedy"),
    "dmgd, steps 30–45": DMGD(window=(30, 45)),
    "dmgd, ρ 0.25": DMGD(rho=0.25),
    "dmgd, ρ 1": DMGD(rho=1.0),
    "dmgd, K = 10": DMGD(k=10),
    "dmgd, guidance in steps 10–35": DMGD(guidance_interval=(10, 35)),
    "dmgd, 20 steps": DMGD(steps=20),
    "dmgd, 20 steps of dpm++": DMGD(steps=20, solver="dpm++"),
    "dit, 20 steps": Sampled(steps=20),
    "dit, 20 steps of dpm++": Sampled(steps=20, solver="dpm++"),
}
ROWS = {**COMPARED, **ABLATIONS}


def usual_rows(scales: Sequence[float], *, plain: bool) -> list[str]:
    """The rows of a table: real images, and all methods at every scale. With `plain` labels there is no semantic
    matching, and what is with or without it is no row of its own."""
    names = [name for name in COMPARED if not (plain and name.startswith("paper,"))]
    return [*REAL, *(f"{name}@{scale:g}" for scale in scales for name in names)]


def method_of(row: str, own_scale: float, *, plain: bool) -> Method | str:
    """What makes the row NAME or NAME@SCALE: a selection of real images, or a method at its own guidance scale or at
    this one; `own_scale` is the prior's. Exits for an unknown name."""
    name, _, scale = row.partition("@")
    if name in REAL:
        return name
    if name not in ROWS:
        known = ", ".join([*REAL, *ROWS])
        raise SystemExit(f"unknown row {row!r}: expected one of {known}; with @ a guidance scale")
    method, changed = ROWS[name], dict[str, Any]()
    if scale:
        changed["guidance_scale"] = None if float(scale) == own_scale else float(scale)
    if plain and any(one.name == "semantic" for one in fields(method)):
        changed["semantic"] = False
    return replace(method, **changed)
