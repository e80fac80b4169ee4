"""The command that distils a run again, from its configuration."""

import shlex
from dataclasses import asdict
from typing import Any

from dmgd.config import METHODS, DistillConfig, default_prior


def distill_command(config: DistillConfig) -> str:
    """The shortest `dmgd distill` command for `config`: what is default is left out.

    Options are called as the configuration's fields, which the command line keeps to.
    """
    defaults = asdict(DistillConfig(source=config.source, prior=default_prior(config.source)))
    fields = asdict(config)
    given: dict[str, Any] = {"source": config.source, "ipc": config.ipc}
    if config.method_name != defaults["method_name"]:
        given["method"] = config.method_name
    given |= {
        name: value
        for name, value in fields.items()
        if name not in ("source", "ipc", "method", "method_name") and value != defaults[name]
    }
    usual = asdict(METHODS[config.method_name]) if config.method_name in METHODS else {}
    own = {name: value for name, value in fields["method"].items() if usual.get(name, value) != value}
    without = [what for what in ("semantic", "distribution") if own.pop(what, None) == "none"]
    own.pop("order", None)  # follows from the method and what it is without
    options = [
        part for name, value in (given | own).items() for part in (f"--{name.replace('_', '-')}", *_words(value))
    ]
    return shlex.join(["dmgd", "distill", *options, *(f"--no-{what}" for what in without)])


def _words(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, tuple) else [str(value)]
