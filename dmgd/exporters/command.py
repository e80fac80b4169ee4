"""The command that distils a run again, from its specs and its configuration."""

import shlex
from dataclasses import asdict
from typing import Any

from dmgd.config import METHODS, DistillConfig, Method
from dmgd.specs import ELSEWHERE, PriorSpec, SourceSpec, default_prior

SWITCHES = {"semantic": "no-semantic", "distribution": "no-distribution"}
OPTIONS = {"method_name": "method"}
FROM_PYTHON = ("guided_channels", "keep_spread")


def distill_command(config: DistillConfig, source: SourceSpec, prior: PriorSpec) -> str:
    """The shortest `dmgd distill` command: what is default is left out, except source and ipc.

    Options are called as the fields of specs and configuration, which the command line keeps to; what it does not offer
    stands behind the command as a comment.
    """
    given: dict[str, Any] = {"source": source.name, "ipc": config.ipc}
    given |= {name: asdict(source)[name] for name in ("data", "variant", "columns", "class_map")}
    given |= {"prior": prior.name if prior.name != default_prior(source.name) else None}
    given |= {"prior_revision": prior.revision, "vae": prior.vae, "encoder": prior.encoder}
    given |= {"precision": prior.precision if prior.precision != PriorSpec("").precision else None}
    given = {name: value for name, value in given.items() if value is not None}
    defaults = asdict(DistillConfig(ipc=config.ipc, method=config.method))
    given |= {name: value for name, value in asdict(config).items() if value != defaults[name]}
    usual = asdict(METHODS.get(config.method_name, Method()).respaced(config.method.steps)) | {"steps": Method().steps}
    given |= {name: value for name, value in asdict(config.method).items() if value != usual[name]}
    if config.method.distribution == "none":
        given.pop("order", None)  # it follows
    beside = ", ".join(f"{name}={given.pop(name)}" for name in FROM_PYTHON if name in given)
    command = shlex.join(["dmgd", "distill", *(part for name, value in given.items() for part in _option(name, value))])
    comments = [f"with Method({beside}), from Python"] if beside else []
    if f"{ELSEWHERE}/" in command:
        comments.append(f"{ELSEWHERE}: the folder where you keep it")
    return f"{command}  # {'; '.join(comments)}" if comments else command


def _option(name: str, value: Any) -> list[str]:
    if name in SWITCHES:
        return [f"--{SWITCHES[name]}"]
    if isinstance(value, bool):
        return [f"--{'' if value else 'no-'}{name.replace('_', '-')}"]
    values = value if isinstance(value, tuple) else (value,)
    return [f"--{OPTIONS.get(name, name).replace('_', '-')}", *map(str, values)]
