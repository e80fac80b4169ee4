"""The command that reproduces a run, from its specs and configuration."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from dmgd.generation.config import DistillConfig
from dmgd.matching.method import Sampled
from dmgd.matching.methods import DEFAULT_METHOD, METHODS
from dmgd.specs import ELSEWHERE, PriorSpec, SourceSpec, default_prior

USUAL_PRECISION = {"cpu": "fp32", "cuda": "bf16"}
SWITCHES = ("compile", "semantic", "distribution")


def distill_command(
    config: DistillConfig,
    source: SourceSpec,
    prior: PriorSpec,
    statistics: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> str:
    """The shortest `dmgd distill` command: without defaults, except for source and ipc.

    Options have the names of the fields of specs and settings. Fields without an option follow in a comment, as do
    `statistics` (their header) that `distill` itself would not fit. The precision is left out if it is what the
    `device` of the run would get without it.
    """
    method, usual = config.method, METHODS[config.method.name]()
    steps = getattr(method, "steps", None)
    usual = usual.respaced(steps) if isinstance(usual, Sampled) and steps else usual
    given: dict[str, Any] = {"source": source.name, "ipc": config.ipc}
    given |= {name: asdict(source)[name] for name in ("data", "variant", "columns", "class_map")}
    given |= {"prior": prior.name if prior.name != default_prior(source.name) else None}
    given |= {"prior_type": prior.prior_type}
    given |= {"prior_revision": prior.revision, "vae": prior.vae, "encoder": prior.encoder}
    given |= {name: getattr(prior, name) for name in PriorSpec.of_text}
    given |= {"precision": prior.precision if prior.precision not in ("auto", USUAL_PRECISION.get(device)) else None}
    given |= {"method": method.name if method.name != DEFAULT_METHOD else None}
    given |= {"seed": config.seed or None, "batch_size": config.batch_size, "compile": config.compile or None}
    changed = {
        one.name: getattr(method, one.name)
        for one in fields(method)
        if getattr(method, one.name) != getattr(usual, one.name)
    }
    changed |= {"steps": steps} if steps else {}
    offered = {one.name for one in fields(method) if one.metadata.get("help")}
    given |= {name: value for name, value in changed.items() if name in offered}
    parts = [part for name, value in given.items() if value is not None for part in _option(name, value)]
    command = shlex.join(["dmgd", "distill", *parts])
    beside = ", ".join(f"{name}={value}" for name, value in changed.items() if name not in offered)
    comments = [f"with {beside}, from Python"] if beside else []
    if statistics and (statistics.get("mirror") or statistics.get("seed")):
        mirror = "--mirror " if statistics["mirror"] else ""
        comments.append(f"with --stats of dmgd fit-stats {mirror}--seed {statistics['seed']} --k {statistics['k']}")
    if f"{ELSEWHERE}/" in command:
        comments.append(f"{ELSEWHERE}: the folder where you keep it")
    return f"{command}  # {'; '.join(comments)}" if comments else command


def _option(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if name in SWITCHES:
        return [f"--{'' if value else 'no-'}{flag}"]
    if isinstance(value, bool):
        value = "yes" if value else "no"
    return [f"--{flag}", *map(str, value if isinstance(value, tuple) else (value,))]
