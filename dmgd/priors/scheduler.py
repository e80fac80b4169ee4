"""Reading the process that a prior was trained on from a pipeline's `scheduler/scheduler_config.json`."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from dmgd.diffusion.process import Diffusion, Flow, Process
from dmgd.errors import ArtifactError, UsageError
from dmgd.priors.description import read_config

# The schedulers that sample a diffusion of DDPM's kind. Solver settings such as `timestep_spacing` are theirs, not the
# prior's, and are not read.
_OF_DIFFUSIONS = re.compile(
    r"(DDPM|DDIM|PNDM|DPMSolver(Singlestep|Multistep|SDE)|DEISMultistep|UniPCMultistep|LMSDiscrete|HeunDiscrete|"
    r"Euler(Ancestral)?Discrete|KDPM2(Ancestral)?Discrete|SASolver)(Parallel)?Scheduler"
)
_OF_FLOWS = re.compile(r"FlowMatch(Euler|Heun)DiscreteScheduler")
# What says that a network was trained on something else.
_NOT_OF_DIFFUSIONS = ("sigma_data", "sigma_min", "sigma_max", "shift", "use_dynamic_shifting")
_NOT_OF_FLOWS = ("use_dynamic_shifting", "invert_sigmas", "shift_terminal", "sigma_data")


def read_process(folder: Path) -> Process:
    """The process of the pipeline in a folder, also if that is its transformer's; DDPM's if it has no scheduler.

    Raises ArtifactError, naming the settings, for one that the sampler does not support.
    """
    path = scheduler_path(folder)
    if path is None:
        return Diffusion()
    # Some hold an infinity. diffusers makes the scheduler that the pipeline's index names.
    config, index = read_config(path, finite=False), path.parents[1] / "model_index.json"
    named = read_config(index).get("scheduler") if index.is_file() else None
    if isinstance(named, list) and len(named) == 2 and named[1]:
        config["_class_name"] = named[1]
    try:
        return process_of(config)
    except (UsageError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} describes no diffusion that dmgd can sample: {error}") from error


def scheduler_path(folder: Path) -> Path | None:
    """The config of the scheduler of the pipeline in a folder, also if that is its network's; None if it has none."""
    places = (folder, folder.parent) if folder.name in ("transformer", "unet") else (folder,)
    return next((p for place in places if (p := place / "scheduler" / "scheduler_config.json").is_file()), None)


def process_of(config: dict[str, Any]) -> Process:
    """The process of a scheduler's config. Raises UsageError for one that the sampler does not support."""
    name = str(config.get("_class_name", "DDPMScheduler"))
    flow_of_diffusions = config.get("prediction_type") == "flow_prediction" and config.get("use_flow_sigmas")
    is_flow = _OF_FLOWS.fullmatch(name) or (_OF_DIFFUSIONS.fullmatch(name) and flow_of_diffusions)
    odd = [key for key in (_NOT_OF_FLOWS if is_flow else _NOT_OF_DIFFUSIONS) if config.get(key)]
    if not is_flow:
        odd += ["use_flow_sigmas"] if config.get("use_flow_sigmas") else []
        odd += [] if _OF_DIFFUSIONS.fullmatch(name) else [name]
        # "learned" is the variance itself, not, as in DiT, its place in the range between two.
        odd += ["variance_type 'learned'"] if config.get("variance_type") == "learned" else []
    if odd:
        raise UsageError(f"{', '.join(odd)} {'is' if len(odd) == 1 else 'are'} not supported")
    if is_flow:
        shift = config.get("flow_shift" if flow_of_diffusions else "shift")
        return Flow(
            shift=float(1 if shift is None else shift), time_scale=float(config.get("num_train_timesteps", 1000))
        )
    known = {one.name for one in fields(Diffusion)}
    return Diffusion(**{key: value for key, value in config.items() if key in known and value is not None})
