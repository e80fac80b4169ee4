"""The rows of the benchmarks' tables: real images, methods, and ablations of the default one."""

from dataclasses import replace

from dmgd.matching.methods import METHODS

DMGD = METHODS["dmgd"]()

COMPARED = {name: METHODS[name]() for name in ("dit", "mgd3", "dmgd-paper", "dmgd-released", "dmgd")}
ABLATIONS = {
    "dmgd, plain labels": replace(DMGD, semantic=False),
    "dmgd, no transport": replace(DMGD, distribution=False),
    "dmgd, bare means": replace(DMGD, match_covariance=False),
    "dmgd, detail kept": replace(DMGD, keep_detail=True),
    "dmgd, greedy": replace(DMGD, order="greedy"),
    "dmgd, steps 30–45": replace(DMGD, window=(30, 45)),
    "dmgd, ρ 0.25": replace(DMGD, rho=0.25),
    "dmgd, ρ 1": replace(DMGD, rho=1.0),
    "dmgd, K = 10": replace(DMGD, k=10),
    "dmgd, guidance 1": replace(DMGD, guidance_scale=1.0),
    "dmgd, guidance 3": replace(DMGD, guidance_scale=3.0),
    "dmgd, guidance in steps 10–35": replace(DMGD, guidance_interval=(10, 35)),
    "dmgd, 20 steps": replace(DMGD, steps=20),
    "dmgd, 20 steps of dpm++": replace(DMGD, steps=20, solver="dpm++"),
    "dit, 20 steps": replace(METHODS["dit"](), steps=20),
    "dit, 20 steps of dpm++": replace(METHODS["dit"](), steps=20, solver="dpm++"),
}
REAL = ("random", "kmeans-real")
ROWS = {**COMPARED, **ABLATIONS}
