"""Reading DiT weights, from diffusers folders and original checkpoints, into a `DiT`.

Parameters are only renamed. An unexpected tensor is refused by name.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from dmgd.diffusion.schedule import training_alpha_bar
from dmgd.errors import ArtifactError, UsageError
from dmgd.priors.description import Numerics, description_path, read_config
from dmgd.priors.dit import DiT, DiTConfig
from dmgd.priors.dit_prior import PREDICTIONS, Diffusion
from dmgd.priors.weights import State, read_weights

WEIGHT_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def load_diffusers_dit(folder: Path, numerics: Numerics | None) -> tuple[DiT, Numerics, Path]:
    """The network in a diffusers `DiTTransformer2DModel` folder, its numerics, and the path of its weights.

    `numerics` "original" computes as facebookresearch/DiT, correct for converted checkpoints such as
    `facebook/DiT-XL-2-256`; "diffusers" as diffusers, correct for models trained there. None: detected, as a converted
    checkpoint has the same embedder in every block. Raises ArtifactError for missing or unexpected tensors.
    """
    config = read_config(folder / "config.json")
    if lacking := [key for key in _CONFIG_KEYS if key not in config]:
        raise ArtifactError(f"{folder / 'config.json'} is not that of a diffusers DiT: it lacks {', '.join(lacking)}")
    path = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise ArtifactError(f"no weights in {folder}; expected {' or '.join(WEIGHT_FILES)}")
    state = read_weights(path)
    depth = config["num_layers"]
    copies = all(
        torch.equal(tensor, state[name.replace("blocks.0.", f"blocks.{i}.")])
        for name, tensor in state.items()
        if name.startswith("transformer_blocks.0.norm1.emb.")
        for i in range(1, depth)
    )
    numerics = numerics or ("original" if copies else "diffusers")
    original = numerics == "original"
    network = DiT(
        DiTConfig(
            sample_size=config["sample_size"],
            patch_size=config["patch_size"],
            in_channels=config["in_channels"],
            out_channels=config["out_channels"] or config["in_channels"],
            width=config["num_attention_heads"] * config["attention_head_dim"],
            depth=depth,
            num_heads=config["num_attention_heads"],
            num_classes=config["num_embeds_ada_norm"],
            num_embedders=1 if copies else depth,
            frequency_divisor=128 if original else 127,
            norm_eps=1e-6 if original else config.get("norm_eps", 1e-5),
        )
    )
    _fill(network, _from_diffusers(state, depth, 1 if copies else depth), path)
    return network, numerics, path


def read_diffusion(folder: Path) -> Diffusion:
    """The diffusion in a pipeline's `scheduler/scheduler_config.json`, also if `folder` is its transformer; DDPM's if
    there is none.

    Raises ArtifactError for one that the sampler does not support.
    """
    places = (folder, folder.parent) if folder.name == "transformer" else (folder,)
    path = next((p for place in places if (p := place / "scheduler" / "scheduler_config.json").is_file()), None)
    if path is None:
        return Diffusion()
    config = read_config(path)
    odd = [name for name in _OF_OTHER_DIFFUSIONS if isinstance(config, dict) and config.get(name)]
    if isinstance(config, dict) and str(config.get("_class_name")).startswith(("FlowMatch", "EDM")):
        odd.append(config["_class_name"])
    try:
        found = Diffusion(**{name: config[name] for name in asdict(Diffusion()) if config.get(name) is not None})
        training = training_alpha_bar(found.beta_schedule, found.num_train_timesteps, found.beta_start, found.beta_end)
        if not (len(training) > 1 and (np.diff(training) < 0).all() and training[-1] > 0 and training[0] < 1):
            raise ValueError("its signal does not fall from 1 to above 0")
    except (UsageError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path} describes no diffusion that dmgd can sample: {error}") from error
    if found.prediction_type not in PREDICTIONS:
        odd.append(f"prediction_type {found.prediction_type!r}")
    if odd:
        raise ArtifactError(f"{path} has settings that dmgd does not support: {', '.join(odd)}")
    return found


# What says that a network was trained on something else than DDPM's diffusion.
_OF_OTHER_DIFFUSIONS = (
    *("trained_betas", "rescale_betas_zero_snr", "sigma_data", "sigma_min", "sigma_max", "shift"),
    *("use_flow_sigmas", "use_dynamic_shifting"),
)
_CONFIG_KEYS = (
    *("sample_size", "patch_size", "in_channels", "out_channels"),
    *("num_attention_heads", "attention_head_dim", "num_layers", "num_embeds_ada_norm"),
)


def load_original_dit(path: Path, num_heads: int | None) -> DiT:
    """The network in a checkpoint with the names of facebookresearch/DiT, DiffFit's γ scales folded in.

    Its shape is inferred from the tensors, except for the number of attention heads: None takes that of the published
    size (DiT-S, B, L, XL) with this width. Raises ArtifactError if there is none.
    """
    state = fold_gamma(read_weights(path))
    try:
        width, in_channels, patch, _ = state["x_embedder.proj.weight"].shape
        depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
        num_heads = num_heads or _HEADS.get(width)
        if num_heads is None:
            raise ArtifactError(
                f'{path} is {width} wide, which is no published DiT: say "num_heads" in {description_path(path)}'
            )
        network = DiT(
            DiTConfig(
                sample_size=round(state["pos_embed"].shape[1] ** 0.5) * patch,
                patch_size=patch,
                in_channels=in_channels,
                out_channels=state["final_layer.linear.bias"].numel() // patch**2,
                width=width,
                depth=depth,
                num_heads=num_heads,
                num_classes=len(state["y_embedder.embedding_table.weight"]) - 1,
            )
        )
    except (KeyError, AttributeError, ValueError) as error:
        raise ArtifactError(
            f"{path} lacks {error}: it is not a checkpoint with the names of facebookresearch/DiT; "
            "for a diffusers model give its folder"
        ) from error
    _fill(network, _from_original(state), path)
    return network


# Heads of the published sizes by width: DiT-S, B, L, XL.
_HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}


def fold_gamma(state: State) -> State:
    """The state without DiffFit's γ: each scales the output of a linear layer, so it is folded into its weights.

    `attn.gamma1` scales qkv, `attn.gamma2` the attention's projection; a block's `gamma1` its attention branch and
    `gamma2` its MLP branch. A state without γ is returned as it is.
    """
    folded = {name: tensor for name, tensor in state.items() if ".gamma" not in name}
    for name, gamma in state.items():
        if ".gamma" in name:
            scale = next((scale for scale in _GAMMA_TARGETS if name.endswith(f".{scale}")), None)
            if scale is None:
                raise ArtifactError(f"the scale {name} is not one of DiffFit's and cannot be folded in")
            target = name.removesuffix(scale) + _GAMMA_TARGETS[scale]
            folded[f"{target}.weight"] = folded[f"{target}.weight"] * gamma[:, None]
            folded[f"{target}.bias"] = folded[f"{target}.bias"] * gamma
    return folded


_GAMMA_TARGETS = {"attn.gamma1": "attn.qkv", "attn.gamma2": "attn.proj", "gamma1": "attn.proj", "gamma2": "mlp.fc2"}


def _from_diffusers(state: State, depth: int, num_embedders: int) -> State:
    """The state, renamed from diffusers' names to those of `DiT`."""
    renamed: State = {}

    def move(ours: str, *theirs: str) -> None:
        for kind in ("weight", "bias"):
            renamed[f"{ours}.{kind}"] = torch.cat([state[f"{name}.{kind}"] for name in theirs])

    move("patch", "pos_embed.proj")
    move("final_modulation", "proj_out_1")
    move("final", "proj_out_2")
    for i in range(depth):
        block = f"transformer_blocks.{i}"
        move(f"blocks.{i}.modulation", f"{block}.norm1.linear")
        move(f"blocks.{i}.attention.qkv", *(f"{block}.attn1.to_{which}" for which in "qkv"))
        move(f"blocks.{i}.attention.proj", f"{block}.attn1.to_out.0")
        move(f"blocks.{i}.mlp.0", f"{block}.ff.net.0.proj")
        move(f"blocks.{i}.mlp.2", f"{block}.ff.net.2")
        if i < num_embedders:
            move(f"embedders.{i}.time.0", f"{block}.norm1.emb.timestep_embedder.linear_1")
            move(f"embedders.{i}.time.2", f"{block}.norm1.emb.timestep_embedder.linear_2")
            table = f"{block}.norm1.emb.class_embedder.embedding_table.weight"
            renamed[f"embedders.{i}.label.weight"] = state[table]
    return renamed


_ORIGINAL_NAMES: list[tuple[str, str]] = [
    ("x_embedder.proj", "patch"),
    ("t_embedder.mlp", "embedders.0.time"),
    ("y_embedder.embedding_table", "embedders.0.label"),
    ("final_layer.adaLN_modulation.1", "final_modulation"),
    ("final_layer.linear", "final"),
    (".adaLN_modulation.1", ".modulation"),
    (".attn.", ".attention."),
    (".mlp.fc1", ".mlp.0"),
    (".mlp.fc2", ".mlp.2"),
]


def _from_original(state: State) -> State:
    """The state, renamed from facebookresearch/DiT's names to those of `DiT`, without the fixed position embedding."""
    renamed: State = {}
    for name, tensor in state.items():
        if name != "pos_embed":
            for theirs, ours in _ORIGINAL_NAMES:
                name = name.replace(theirs, ours)
            renamed[name] = tensor
    return renamed


def _fill(network: DiT, state: State, path: Path) -> None:
    """Load `state` into `network`. Raises ArtifactError, naming missing, unexpected and misshapen tensors."""
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    except RuntimeError as error:
        raise ArtifactError(f"{path} does not fit a DiT: {' '.join(str(error).split())[:300]}") from error
