"""What a network of DiT's shape was trained as, which its tensors alone do not tell: DiT, SiT or REPA.

DiT (Peebles & Xie 2023) predicts the noise of a diffusion of 1,000 timesteps. SiT (Ma et al. 2024) and REPA (Yu et al.
2025) predict the velocity of a flow, and are told the time in [0, 1]: that of SiT runs from noise to data, with as many
further channels that were never trained, that of REPA from data to noise.
Sources: `transport/` of willisma/SiT; `loss.py` and `samplers.py` of sihyun-yu/REPA.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dmgd.diffusion.process import Diffusion, Flow, Process
from dmgd.errors import ArtifactError, UsageError
from dmgd.priors.checkpoints import PROJECTORS, load_diffusers_dit, load_original_dit
from dmgd.priors.defaults import PriorDefaults
from dmgd.priors.description import Description, description_path
from dmgd.priors.dit import DiT
from dmgd.priors.scheduler import read_process, scheduler_path
from dmgd.priors.weights import Checkpoint, read_checkpoint
from dmgd.specs import PriorSpec

DEFAULTS: dict[str, PriorDefaults] = {
    "dit": PriorDefaults(),
    "sit": PriorDefaults(guided_channels=3),
    "repa": PriorDefaults(guidance_scale=1.5),
}
"""The guidance of the sampling scripts that came with them."""


class TrainedNetwork(NamedTuple):
    """A network, the files of its weights, whose numerics it has, what it was trained on, and the defaults of that."""

    network: DiT
    weights: list[Path]
    numerics: str
    process: Process
    defaults: PriorDefaults


def load_trained_network(path: Path, spec: PriorSpec, described: Description) -> TrainedNetwork:
    """The network in a diffusers folder, or in a checkpoint with the names of facebookresearch/DiT.

    It is of the type that spec or description say, or that its files do. Raises UsageError if none of them does where
    that makes a difference, or if they disagree, ArtifactError for weights that cannot be read, and for a type that was
    trained on something that is not supported.
    """
    said = {"--prior-type": spec.prior_type, "its description": described.prior_type}
    if path.is_file():
        checkpoint = read_checkpoint(path)
        network = load_original_dit(path, checkpoint.state, described.num_heads)
        if not (kind := _settled(path, {**said, **_recognised(path, checkpoint, network)})):
            raise _undecided(path)
        process = _flow(path, kind, checkpoint.args) if kind in _PATHS else Diffusion()
        return TrainedNetwork(network, [path], "original", process, DEFAULTS[kind])
    scheduled, folder = read_process(path), path / "transformer" if (path / "transformer").is_dir() else path
    network, numerics, weights = load_diffusers_dit(folder, described.numerics)
    of_diffusion = scheduler_path(path) and not isinstance(scheduled, Flow)
    kind = _settled(path, {**said, "its scheduler": "dit" if of_diffusion else None})
    if kind is None and numerics == "original" and isinstance(scheduled, Flow):
        raise _undecided(path)  # it was converted, and SiT and REPA do not count their time as diffusers does
    if kind in _PATHS:
        shift = scheduled.shift if isinstance(scheduled, Flow) else 1.0
        scheduled = replace(_flow(path, kind, {}), shift=shift)
    return TrainedNetwork(network, weights, numerics, scheduled, DEFAULTS[kind or "dit"])


def _recognised(path: Path, checkpoint: Checkpoint, network: DiT) -> dict[str, str | None]:
    """What the arguments of the training script, else tensors of its own, else a published name say of the type."""
    model, path_type = checkpoint.args.get("model"), checkpoint.args.get("path_type")
    known = {name: kind for kind in ("sit", "repa") for name in (*_PATHS[kind], *_OTHER_PATHS[kind])}
    if isinstance(model, str) and model.startswith("DiT") and path_type is None:
        return {f"its training arguments (model {model})": "dit"}
    if isinstance(model, str) and model.startswith("SiT") and isinstance(path_type, str) and path_type in known:
        return {f"its training arguments (path_type {path_type})": known[path_type]}
    if any(name.startswith(PROJECTORS) for name in checkpoint.state):
        return {f"its tensors {PROJECTORS}*": "repa"}
    has_more = network.config.out_channels > network.config.in_channels  # as all published ones
    if has_more and (published := _PUBLISHED.fullmatch(path.stem)):
        return {"its name": "sit" if published[1] == "SiT" else "dit"}
    return {}


_PUBLISHED = re.compile(r"(DiT|SiT)-(S|B|L|XL)-2-(256|512)(x\3)?")
# What the training scripts call their paths, and the one prediction that is supported.
_PATHS: dict[str, dict[str, Literal["linear", "cosine"]]] = {
    "sit": {"Linear": "linear", "GVP": "cosine"},
    "repa": {"linear": "linear", "cosine": "cosine"},
}
_OTHER_PATHS = {"sit": ("VP",), "repa": ()}
_PREDICTION = {"sit": "velocity", "repa": "v"}


def _flow(path: Path, kind: str, args: dict[str, Any]) -> Flow:
    """What the type was trained on, by default on the linear path. Raises ArtifactError, naming the argument, for
    training that is not supported."""
    path_type, predicts = args.get("path_type", next(iter(_PATHS[kind]))), args.get("prediction", _PREDICTION[kind])
    for name, value, supported in (
        ("path_type", path_type, [*_PATHS[kind]]),
        ("prediction", predicts, [_PREDICTION[kind]]),
    ):
        if value not in supported:
            raise ArtifactError(
                f"{path} was trained with {name} {value!r}, which is not supported; of {kind} priors only "
                f"{' and '.join(supported)} are"
            )
    return Flow(_PATHS[kind][path_type], time_scale=1.0, from_noise=kind == "sit")


def _settled(path: Path, said: dict[str, str | None]) -> str | None:
    """The type that all agree on who say one. Raises UsageError if they do not."""
    found = {kind: who for who, kind in said.items() if kind}
    if len(found) > 1:
        each = ", but ".join(f"{kind} by {who}" for kind, who in found.items())
        raise UsageError(f"the prior {path} is {each}; correct the one that is wrong")
    return next(iter(found), None)


def _undecided(path: Path) -> UsageError:
    return UsageError(
        f"{path} may be a DiT, SiT or REPA: their tensors are alike, but not what they were trained on; say "
        f'--prior-type dit, sit or repa, or "prior_type" in {description_path(path)}'
    )
