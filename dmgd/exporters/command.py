"""The command that distils a run again, from its configuration."""

import shlex
from dataclasses import asdict
from typing import Any

from dmgd.config import METHODS, DistillConfig, Method, default_prior

SWITCHES = {"semantic": "no-semantic", "distribution": "no-distribution"}
FROM_PYTHON = ("guided_channels", "keep_spread")


def distill_command(config: DistillConfig) -> str:
    """The shortest `dmgd distill` command for `config`: what is default is left out, except source and ipc.

    Options are called as the configuration's fields, which the command line keeps to; what it does not offer stands
    behind the command as a comment.
    """
    defaults = asdict(DistillConfig(source=config.source, prior=default_prior(config.source)))
    given = {
        name: value
        for name, value in asdict(config).items()
        if name in ("source", "ipc") or (name != "method" and value != defaults[name])
    }
    usual = asdict(METHODS.get(config.method_name, Method()).respaced(config.method.steps)) | {"steps": Method().steps}
    given |= {name: value for name, value in asdict(config.method).items() if value != usual[name]}
    if config.method.distribution == "none":
        given.pop("order", None)  # it follows
    beside = ", ".join(f"{name}={given.pop(name)}" for name in FROM_PYTHON if name in given)
    command = shlex.join(["dmgd", "distill", *(part for name, value in given.items() for part in _option(name, value))])
    return f"{command}  # with Method({beside}), from Python" if beside else command


def _option(name: str, value: Any) -> list[str]:
    if name in SWITCHES:
        return [f"--{SWITCHES[name]}"]
    if isinstance(value, bool):
        return [f"--{'' if value else 'no-'}{name.replace('_', '-')}"]
    values = value if isinstance(value, tuple) else (value,)
    return [f"--{'method' if name == 'method_name' else name.replace('_', '-')}", *map(str, values)]
