"""Reading DiT weights, from diffusers folders and original checkpoints, into a `DiT`.

Parameters are only renamed. A tensor that is missing, unexpected, misshapen or not finite is refused by name.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from dmgd.errors import ArtifactError, UsageError, listed
from dmgd.priors.description import Numerics, description_path, read_config
from dmgd.priors.dit import DiT, DiTConfig
from dmgd.priors.weights import State, read_weights, weight_file


def load_diffusers_dit(folder: Path, numerics: Numerics | None) -> tuple[DiT, Numerics, Path]:
    """The network in a diffusers `DiTTransformer2DModel` folder, its numerics, and the path of its weights.

    `numerics` "original" computes as facebookresearch/DiT, correct for converted checkpoints such as
    `facebook/DiT-XL-2-256`; "diffusers" as diffusers, correct for models trained there. None: detected, as a converted
    checkpoint has the same embedder in every block. Raises ArtifactError for missing or unexpected tensors.
    """
    config = read_config(folder / "config.json")
    if lacking := [key for key in _CONFIG_KEYS if key not in config]:
        raise ArtifactError(f"{folder / 'config.json'} is not that of a diffusers DiT: it lacks {', '.join(lacking)}")
    path = weight_file(folder)
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
    state = read_weights(path)
    copies = all(
        (copy := state.get(name.replace("blocks.0.", f"blocks.{i}."))) is not None and torch.equal(tensor, copy)
        for name, tensor in state.items()
        if name.startswith("transformer_blocks.0.norm1.emb.")
        for i in range(1, shape.depth)
    )
    numerics = numerics or ("original" if copies else "diffusers")
    shape = replace(shape, num_embedders=1 if copies else shape.depth)
    if numerics == "original":
        shape = replace(shape, frequency_divisor=128, norm_eps=1e-6)
    else:
        shape = replace(shape, frequency_divisor=127)
    with _as_a_dit(path, state):
        return _filled(shape, _from_diffusers(state, shape)), numerics, path


_ONLY = {"activation_fn": "gelu-approximate", "norm_type": "ada_norm_zero"}  # what the network computes, and no other
_CONFIG_KEYS = (
    *("sample_size", "patch_size", "in_channels", "out_channels"),
    *("num_attention_heads", "attention_head_dim", "num_layers", "num_embeds_ada_norm"),
)


def load_original_dit(path: Path, num_heads: int | None) -> DiT:
    """The network in a checkpoint with the names of facebookresearch/DiT, DiffFit's γ scales folded in.

    Its shape is inferred from the tensors, except for the number of attention heads: None takes that of the published
    size (DiT-S, B, L, XL) with this width. Raises ArtifactError if there is none.
    """
    state = read_weights(path)
    with _as_a_dit(path, state):
        state = fold_gamma(state)
        width, in_channels, patch, _ = state["x_embedder.proj.weight"].shape
        depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
        num_heads = num_heads or _HEADS.get(width)
        if num_heads is None:
            raise ArtifactError(
                f'{path} is {width} wide, which is no published DiT: say "num_heads" in {description_path(path)}'
            )
        shape = DiTConfig(
            sample_size=round(state["pos_embed"].shape[1] ** 0.5) * patch,
            patch_size=patch,
            in_channels=in_channels,
            out_channels=state["final_layer.linear.bias"].numel() // patch**2,
            width=width,
            depth=depth,
            num_heads=num_heads,
            num_classes=len(state["y_embedder.embedding_table.weight"]) - 1,
        )
        return _filled(shape, _from_original(state))


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


def _from_diffusers(state: State, shape: DiTConfig) -> State:
    """The state, renamed from diffusers' names to those of `DiT`; tensors that it does not know keep their names."""
    left, renamed = dict(state), State()

    def move(ours: str, *theirs: str) -> None:
        for kind in ("weight", "bias"):
            renamed[f"{ours}.{kind}"] = torch.cat([left.pop(f"{name}.{kind}") for name in theirs])

    move("patch", "pos_embed.proj")
    move("final_modulation", "proj_out_1")
    move("final", "proj_out_2")
    for i in range(shape.depth):
        block = f"transformer_blocks.{i}"
        move(f"blocks.{i}.modulation", f"{block}.norm1.linear")
        move(f"blocks.{i}.attention.qkv", *(f"{block}.attn1.to_{which}" for which in "qkv"))
        move(f"blocks.{i}.attention.proj", f"{block}.attn1.to_out.0")
        move(f"blocks.{i}.mlp.0", f"{block}.ff.net.0.proj")
        move(f"blocks.{i}.mlp.2", f"{block}.ff.net.2")
        # Where all blocks have the same embedder, the last of the copies is kept.
        embedder = f"embedders.{i if shape.num_embedders > 1 else 0}"
        move(f"{embedder}.time.0", f"{block}.norm1.emb.timestep_embedder.linear_1")
        move(f"{embedder}.time.2", f"{block}.norm1.emb.timestep_embedder.linear_2")
        renamed[f"{embedder}.label.weight"] = left.pop(f"{block}.norm1.emb.class_embedder.embedding_table.weight")
    if "pos_embed.pos_embed" in left:
        renamed["position"] = left.pop("pos_embed.pos_embed")
    return renamed | left


_ORIGINAL_NAMES: list[tuple[str, str]] = [
    ("pos_embed", "position"),
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
    """The state, renamed from facebookresearch/DiT's names to those of `DiT`."""
    renamed: State = {}
    for name, tensor in state.items():
        for theirs, ours in _ORIGINAL_NAMES:
            name = name.replace(theirs, ours)
        renamed[name] = tensor
    return renamed


def _filled(shape: DiTConfig, state: State) -> DiT:
    """The network with the tensors of `state`, in float32. Raises ValueError for numbers that cannot be weights and for
    a position embedding that is not DiT's, RuntimeError, naming them, for missing, unexpected and misshapen tensors."""
    with torch.device("meta"):  # no memory for weights that are replaced, nor before they are known to fit
        network = DiT(shape)
    bad = [name for name, one in state.items() if not (one.is_floating_point() and one.float().isfinite().all())]
    if bad:
        raise ValueError(f"not all numbers are finite in {listed(bad, 3)}")
    found = {name: tensor.float() for name, tensor in state.items()}
    position = found.pop("position", network.position)
    if position.shape != network.position.shape or not torch.allclose(position, network.position, atol=0.02):
        raise ValueError(f"its position embedding {tuple(position.shape)} is not that of {shape.sample_size} pixels")
    network.load_state_dict(found, assign=True)
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
        raise ArtifactError(f"{path} does not fit a DiT: {' '.join(str(error).split())[:300]}") from error
