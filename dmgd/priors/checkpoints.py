"""Reading DiT weights, from diffusers folders and original checkpoints, into a `DiT`.

Parameters are only renamed. A tensor that is missing, unexpected, misshapen or not finite is refused by name.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dmgd.errors import ArtifactError, UsageError, listed
from dmgd.priors.description import Numerics, description_path, read_config
from dmgd.priors.dit import DiT, DiTConfig
from dmgd.priors.fit import Misfit, Names, fill, misfits
from dmgd.priors.weights import State, read_weights, weight_files


def load_diffusers_dit(folder: Path, numerics: Numerics | None) -> tuple[DiT, Numerics, list[Path]]:
    """The network in a diffusers `DiTTransformer2DModel` folder, its numerics, and the paths of its weights.

    `numerics` "original" computes as facebookresearch/DiT, correct for converted checkpoints such as
    `facebook/DiT-XL-2-256`; "diffusers" as diffusers, correct for models trained there. None: detected, as a converted
    checkpoint has the same embedder in every block. Raises ArtifactError for tensors that are not those of the config.
    """
    config = read_config(folder / "config.json")
    if lacking := [key for key in _CONFIG_KEYS if key not in config]:
        name = str(config.get("_class_name", ""))
        aside = f"; the code of a {name} is not run" if name and name not in _CLASSES else ""
        raise ArtifactError(
            f"{folder / 'config.json'} is not that of a diffusers DiT: it lacks {', '.join(lacking)}{aside}. If its "
            f"weights have the names of facebookresearch/DiT, give their file as --prior, with --prior-type and --vae"
        )
    paths = weight_files(folder)
    with _as_a_dit(folder / "config.json"):
        if odd := [f"{key} {config[key]!r}" for key, only in _ONLY.items() if config.get(key, only) != only]:
            raise UsageError(f"it has {', '.join(odd)}")
        shape = DiTConfig(
            sample_size=config["sample_size"],
            patch_size=config["patch_size"],
            in_channels=config["in_channels"],
            out_channels=config["out_channels"] or config["in_channels"],
            width=config["num_attention_heads"] * config["attention_head_dim"],
            depth=config["num_layers"],
            num_heads=config["num_attention_heads"],
            num_classes=config["num_embeds_ada_norm"],
            norm_eps=config.get("norm_eps", 1e-5),
        )
    state = read_weights(*paths)
    first, *others = [_named(state, f"transformer_blocks.{i}.norm1.emb.") for i in range(shape.depth)]
    copies = all(
        one.keys() == first.keys() and all(torch.equal(one[name], first[name]) for name in first) for one in others
    )
    if copies:
        state = {name: one for name, one in state.items() if not _COPIED.match(name)}
    numerics = numerics or ("original" if copies else "diffusers")
    shape = replace(shape, num_embedders=1 if copies else shape.depth)
    if numerics == "original":
        shape = replace(shape, frequency_divisor=128, norm_eps=1e-6)
    else:
        shape = replace(shape, frequency_divisor=127)
    with _as_a_dit(paths[0] if len(paths) == 1 else folder, state):
        network, names = _empty(shape), _diffusers_names(shape)
        if setting := _differing_setting(config, state, misfits(network, state, names)):
            raise ArtifactError(
                f"{folder / 'config.json'} says {setting} in {listed([path.name for path in paths], 1)}; correct it, "
                "or take the config.json that was saved with the weights"
            )
        return _filled(network, state, names), numerics, paths


_COPIED = re.compile(r"transformer_blocks\.(?!0\.)\d+\.norm1\.emb\.")
_BLOCK = re.compile(r"transformer_blocks\.(\d+)\.")
# The settings of the config that give a dimension of a tensor.
_SETTINGS: dict[tuple[str, int], tuple[str, ...]] = {
    ("pos_embed.proj.weight", 0): ("num_attention_heads", "attention_head_dim"),
    ("pos_embed.proj.weight", 1): ("in_channels",),
    ("pos_embed.proj.weight", 2): ("patch_size",),
    ("transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight", 0): ("num_embeds_ada_norm",),
    ("proj_out_2.weight", 0): ("out_channels",),
    ("pos_embed.pos_embed", 1): ("sample_size",),
}


def _named(state: State, prefix: str) -> State:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): one for name, one in state.items() if name.startswith(prefix)}


def _differing_setting(config: dict[str, Any], state: State, wrong: list[Misfit]) -> str:
    """In words, the first setting of a diffusers DiT's config for which tensors do not fit, and one of them; "" if it
    is not for a setting."""
    for (name, axis), keys in _SETTINGS.items():
        for one in wrong:
            found, wanted = one.found or (), one.wanted or ()
            if one.name == name and len(found) == len(wanted) and found[axis] != wanted[axis]:
                return f"{' and '.join(f'{key} {config[key]}' for key in keys)}, but {one}"
    depth = 1 + max((int(block[1]) for block in map(_BLOCK.match, state) if block), default=-1)
    beyond = min(depth, config["num_layers"])
    others = (one for one in wrong if depth and (block := _BLOCK.match(one.name)) and int(block[1]) >= beyond)
    return next((f"num_layers {config['num_layers']}, but {one}" for one in others), "")


_ONLY = {"activation_fn": "gelu-approximate", "norm_type": "ada_norm_zero"}  # what the network computes, and no other
_CLASSES = ("DiTTransformer2DModel", "Transformer2DModel")  # that of a DiT, now and before
_CONFIG_KEYS = (
    *("sample_size", "patch_size", "in_channels", "out_channels"),
    *("num_attention_heads", "attention_head_dim", "num_layers", "num_embeds_ada_norm"),
)


def load_original_dit(path: Path, state: State, num_heads: int | None) -> DiT:
    """The network with the `state` of a checkpoint with the names of facebookresearch/DiT, from the file at `path`.

    DiffFit's γ scales are folded in. What REPA needs only in training is left out.

    Its shape is inferred from the tensors, except for the number of attention heads: None takes that of the published
    size (DiT-S, B, L, XL) with this width. Raises ArtifactError if there is none.
    """
    state = {name: one for name, one in state.items() if not name.startswith(PROJECTORS)}
    with _as_a_dit(path, state):
        state = fold_gamma(state)
        width, in_channels, patch, _ = _shape(state, "x_embedder.proj.weight", 4)
        depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
        num_heads = num_heads or _HEADS.get(width)
        if num_heads is None:
            raise ArtifactError(
                f'{path} is {width} wide, which is no published DiT: say "num_heads" in {description_path(path)}'
            )
        shape = DiTConfig(
            sample_size=round(_shape(state, "pos_embed", 3)[1] ** 0.5) * patch,
            patch_size=patch,
            in_channels=in_channels,
            out_channels=state["final_layer.linear.bias"].numel() // patch**2,
            width=width,
            depth=depth,
            num_heads=num_heads,
            num_classes=_shape(state, "y_embedder.embedding_table.weight", 2)[0] - 1,
            qk_norm=any(".attn.q_norm." in name for name in state),
        )
        network = _empty(shape)
        return _filled(network, state, {name: (_original_name(name),) for name in (*network.state_dict(), "position")})


def _shape(state: State, name: str, dimensions: int) -> tuple[int, ...]:
    found = tuple(state[name].shape)
    if len(found) != dimensions:
        raise ValueError(f"{name} is {found}, which has not {dimensions} dimensions")
    return found


PROJECTORS = "projectors."  # begins the names of REPA's networks that meet the features of an encoder in training
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
            weight, bias = (folded[f"{target}.{kind}"] for kind in ("weight", "bias"))
            if weight.ndim != 2 or not gamma.shape == bias.shape == weight.shape[:1]:
                raise ValueError(
                    f"{name} is {tuple(gamma.shape)}, but {target} has weights {tuple(weight.shape)} and biases "
                    f"{tuple(bias.shape)}"
                )
            folded[f"{target}.weight"], folded[f"{target}.bias"] = weight * gamma[:, None], bias * gamma
    return folded


_GAMMA_TARGETS = {"attn.gamma1": "attn.qkv", "attn.gamma2": "attn.proj", "gamma1": "attn.proj", "gamma2": "mlp.fc2"}


def _diffusers_names(shape: DiTConfig) -> Names:
    """For every tensor of a `DiT` its name, or those of its parts, in diffusers."""
    named: dict[str, tuple[str, ...]] = {
        "patch": ("pos_embed.proj",),
        "final_modulation": ("proj_out_1",),
        "final": ("proj_out_2",),
    }
    for i in range(shape.depth):
        ours, block = f"blocks.{i}", f"transformer_blocks.{i}"
        named[f"{ours}.modulation"] = (f"{block}.norm1.linear",)
        named[f"{ours}.attention.qkv"] = tuple(f"{block}.attn1.to_{which}" for which in "qkv")
        named[f"{ours}.attention.proj"] = (f"{block}.attn1.to_out.0",)
        named[f"{ours}.mlp.0"] = (f"{block}.ff.net.0.proj",)
        named[f"{ours}.mlp.2"] = (f"{block}.ff.net.2",)
    for i in range(shape.num_embedders):
        ours, block = f"embedders.{i}", f"transformer_blocks.{i}.norm1.emb"
        named[f"{ours}.time.0"] = (f"{block}.timestep_embedder.linear_1",)
        named[f"{ours}.time.2"] = (f"{block}.timestep_embedder.linear_2",)
    names = {f"{ours}.{kind}": tuple(f"{part}.{kind}" for part in parts)
             for ours, parts in named.items() for kind in ("weight", "bias")}  # fmt: skip
    for i in range(shape.num_embedders):
        names[f"embedders.{i}.label.weight"] = (
            f"transformer_blocks.{i}.norm1.emb.class_embedder.embedding_table.weight",
        )
    return names | {"position": ("pos_embed.pos_embed",)}


_ORIGINAL_NAMES = {
    **{".mlp.0.": ".mlp.fc1.", ".mlp.2.": ".mlp.fc2.", ".attention.": ".attn.", ".modulation.": ".adaLN_modulation.1."},
    "final_modulation.": "final_layer.adaLN_modulation.1.",
    "final.": "final_layer.linear.",
    "embedders.0.label.": "y_embedder.embedding_table.",
    "embedders.0.time.": "t_embedder.mlp.",
    "patch.": "x_embedder.proj.",
    "position": "pos_embed",
}


def _original_name(name: str) -> str:
    """The name in facebookresearch/DiT of a tensor of `DiT`."""
    for ours, theirs in _ORIGINAL_NAMES.items():
        name = name.replace(ours, theirs)
    return name


def _empty(shape: DiTConfig) -> DiT:
    """A network without memory for weights, which are replaced, nor before they are known to fit."""
    with torch.device("meta"):
        return DiT(shape)


def _filled(network: DiT, state: State, names: Names) -> DiT:
    """The network with the tensors of `state`. Raises ValueError for those that cannot be its weights, and for a
    position embedding that is not DiT's."""
    fill(network, state, names)
    (own,) = names["position"]
    if own in state and not torch.allclose(state[own].float(), network.position, atol=0.02):
        raise ValueError(f"its position embedding {own} is not that of {network.config.sample_size} pixels")
    return network


@contextmanager
def _as_a_dit(path: Path, state: State | None = None) -> Iterator[None]:
    """Raise an ArtifactError of one line for all that Python and torch raise if names, shapes or numbers in the file at
    `path`, with the tensors of `state`, are not those of a DiT."""
    try:
        yield
    except KeyError as error:
        found = f", it has {listed(sorted(state or ()), 3)}" if state else ""
        raise ArtifactError(
            f"{path} lacks {error}{found}: it is neither a checkpoint with the names of facebookresearch/DiT nor, in a "
            "folder with its config.json, one with those of diffusers' DiT"
        ) from error
    except (UsageError, ValueError, TypeError, IndexError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise ArtifactError(f"{path} does not fit a DiT: {' '.join(str(error).split())[:400]}") from error
