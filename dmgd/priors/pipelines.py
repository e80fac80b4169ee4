"""The families of diffusers' text-to-image pipelines: in what each differs from the others.

`encode_prompt` of every pipeline returns embeddings and masks in an order of its own, and every network takes them by
other names. Without torch, for names and defaults.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from dmgd.priors.defaults import PriorDefaults
from dmgd.priors.description import read_config

Tensors = Mapping[str, Any]


@dataclass(frozen=True)
class PipelineFamily:
    """What a family of pipelines does in its own way.

    `network` is the part that denoises. `returns` names what its `encode_prompt` returns, in order; "null" ones are of
    the negative prompt. `inputs(network, rows, side)` are the arguments of a call of the network besides latents and
    time, from tensors by these names and the side of the images in pixels. `more(pipeline)` are further arguments of
    `encode_prompt`; `no_negative` stands for no negative prompt.
    """

    network: str
    defaults: PriorDefaults
    returns: tuple[str, ...]
    inputs: Callable[[Any, Tensors, int], dict[str, Any]]
    more: Callable[[Any], dict[str, Any]] = lambda pipeline: {}
    no_negative: str | None = None


def _prompt_alone(network: Any, rows: Tensors, side: int) -> dict[str, Any]:
    return {"encoder_hidden_states": rows["prompt"]}


def _with_pooled_and_size(network: Any, rows: Tensors, side: int) -> dict[str, Any]:
    """SDXL is told the original size, the crop's corner and the target size of each image."""
    pooled = rows["pooled"]
    ids = pooled.new_tensor([side, side, 0, 0, side, side]).expand(len(pooled), 6)
    return {
        "encoder_hidden_states": rows["prompt"],
        "added_cond_kwargs": {"text_embeds": pooled, "time_ids": ids},
    }


def _with_pooled(network: Any, rows: Tensors, side: int) -> dict[str, Any]:
    return {"encoder_hidden_states": rows["prompt"], "pooled_projections": rows["pooled"]}


def _with_mask(network: Any, rows: Tensors, side: int) -> dict[str, Any]:
    return {"encoder_hidden_states": rows["prompt"], "encoder_attention_mask": rows["mask"]}


def _with_mask_and_size(network: Any, rows: Tensors, side: int) -> dict[str, Any]:
    """PixArt-α of 1024 pixels is told resolution and aspect ratio."""
    size: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
    if network.use_additional_conditions:
        prompt = rows["prompt"]
        size = {"resolution": prompt.new_full((len(prompt), 2), side), "aspect_ratio": prompt.new_ones(len(prompt), 1)}
    return {**_with_mask(network, rows, side), "added_cond_kwargs": size}


def _instruction(pipeline: Any) -> dict[str, Any]:
    """Sana's call has an instruction for its language model by default, its encode_prompt has none."""
    name = "complex_human_instruction"
    return {name: signature(pipeline.__call__).parameters[name].default}


_ONE, _POOLED = ("prompt", "null prompt"), ("prompt", "null prompt", "pooled", "null pooled")
_MASKED = ("prompt", "mask", "null prompt", "null mask")
_PIXART = PipelineFamily(
    "transformer", PriorDefaults(4.5, None, 20, "dpm++"), _MASKED, _with_mask_and_size, no_negative=""
)

PIPELINES: dict[str, PipelineFamily] = {
    "StableDiffusionPipeline": PipelineFamily("unet", PriorDefaults(7.5, None, 50, "dpm++"), _ONE, _prompt_alone),
    "StableDiffusionXLPipeline": PipelineFamily(
        "unet", PriorDefaults(5.0, None, 50, "dpm++"), _POOLED, _with_pooled_and_size
    ),
    "PixArtAlphaPipeline": _PIXART,
    "PixArtSigmaPipeline": _PIXART,
    "StableDiffusion3Pipeline": PipelineFamily(
        "transformer",
        PriorDefaults(7.0, None, 28, "dpm++"),
        _POOLED,
        _with_pooled,
        lambda pipeline: {"prompt_2": None, "prompt_3": None},
    ),
    "SanaPipeline": PipelineFamily(
        "transformer", PriorDefaults(4.5, None, 20, "dpm++"), _MASKED, _with_mask, _instruction, no_negative=""
    ),
}
"""The registry of families, by the class that a `model_index.json` names. Guidance scale and steps are those of the
pipelines' own calls; their solvers are of second order, or take as many steps as one of second order needs."""


def pipeline_class(path: Path) -> str | None:
    """The class of the pipeline in a folder, by its `model_index.json`; None if there is none, or it names none."""
    index = path / "model_index.json"
    name = read_config(index).get("_class_name") if index.is_file() else None
    return None if name is None else str(name)
