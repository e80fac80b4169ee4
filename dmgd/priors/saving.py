"""Writing a `DiT` as a folder that this project and diffusers load."""

import shutil
from pathlib import Path

from safetensors.torch import save

from dmgd.diffusion.process import Diffusion
from dmgd.files import write_bytes, write_json, written_whole
from dmgd.priors.dit import DiT, DiTConfig
from dmgd.priors.weights import STEM, State, weight_files

DIFFUSERS = (127, 1e-5)  # the frequency divisor and the norm's ε of its numerics, see DiTConfig


def save_dit(network: DiT, folder: Path) -> None:
    """Write a network of one embedder and diffusers' numerics as `transformer/`, in half precision, and its diffusion,
    DDPM's, as `scheduler/`. The same network gives the same bytes."""
    write_json(folder / "transformer" / "config.json", _config(network.config))
    weights = {name: one.half().contiguous() for name, one in _state(network).items()}
    write_bytes(folder / "transformer" / f"{STEM}.safetensors", save(weights))
    scheduler = {"_class_name": "DDPMScheduler", "clip_sample": False, **Diffusion().to_json()}
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)


def copy_autoencoder(vae: Path, folder: Path) -> None:
    """Copy the config and the weights of an autoencoder to `folder`."""
    for file in (vae / "config.json", *weight_files(vae), *vae.glob("*.index*.json")):
        with written_whole(folder / file.name) as temporary:
            shutil.copyfile(file, temporary)


def _config(config: DiTConfig) -> dict[str, object]:
    return {
        "_class_name": "DiTTransformer2DModel",
        "activation_fn": "gelu-approximate",
        "attention_bias": True,
        "attention_head_dim": config.width // config.num_heads,
        "in_channels": config.in_channels,
        "norm_elementwise_affine": False,
        "norm_eps": config.norm_eps,
        "norm_type": "ada_norm_zero",
        "num_attention_heads": config.num_heads,
        "num_embeds_ada_norm": config.num_classes,
        "num_layers": config.depth,
        "out_channels": config.out_channels,
        "patch_size": config.patch_size,
        "sample_size": config.sample_size,
    }


def _state(network: DiT) -> State:
    """The tensors by diffusers' names, on the CPU; every block gets a copy of the embedder."""
    own = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    renamed = State()

    def move(theirs: str, ours: str) -> None:
        for kind in ("weight", "bias"):
            renamed[f"{theirs}.{kind}"] = own[f"{ours}.{kind}"].clone()

    move("pos_embed.proj", "patch")
    move("proj_out_1", "final_modulation")
    move("proj_out_2", "final")
    for i in range(network.config.depth):
        block = f"transformer_blocks.{i}"
        move(f"{block}.norm1.linear", f"blocks.{i}.modulation")
        move(f"{block}.attn1.to_out.0", f"blocks.{i}.attention.proj")
        move(f"{block}.ff.net.0.proj", f"blocks.{i}.mlp.0")
        move(f"{block}.ff.net.2", f"blocks.{i}.mlp.2")
        for kind in ("weight", "bias"):
            parts = own[f"blocks.{i}.attention.qkv.{kind}"].chunk(3)
            renamed |= {f"{block}.attn1.to_{which}.{kind}": part for which, part in zip("qkv", parts, strict=True)}
        move(f"{block}.norm1.emb.timestep_embedder.linear_1", "embedders.0.time.0")
        move(f"{block}.norm1.emb.timestep_embedder.linear_2", "embedders.0.time.2")
        table = own["embedders.0.label.weight"].clone()
        renamed[f"{block}.norm1.emb.class_embedder.embedding_table.weight"] = table
    return renamed
