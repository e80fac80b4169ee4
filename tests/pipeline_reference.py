"""What a text-to-image pipeline predicts, in the obvious way: with its own parts, as its own call uses them."""

import inspect
from typing import Any

import diffusers
import torch
from tiny_pipelines import quiet
from torch import Tensor


@quiet()
@torch.no_grad()
def reference_x0(
    pipe: diffusers.DiffusionPipeline,
    latents: Tensor,
    timestep: float,
    prompt: str,
    negative_prompt: str | None = None,
    guidance_scale: float = 1.0,
    sigma: float | None = None,
) -> Tensor:
    """The predicted clean latents x̂_0 of `latents`, (b, c, h, w) in the coordinates of the pipeline's own scheduler, at
    `timestep` as the network is told it: 0 … 999, a flow's 1000 s in (0, 1000].

    `sigma` is a flow's s itself, where its scheduler tells the network another (Sana's truncates it).
    """
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    both = torch.cat([latents, latents])
    if isinstance(scheduler, diffusers.EulerDiscreteScheduler):
        scheduler.set_timesteps(timesteps=[timestep])
        both = scheduler.scale_model_input(both, scheduler.timesteps[0])
    conditioning = _conditioning(pipe, [prompt] * len(latents), negative_prompt)
    network = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    scale = getattr(network.config, "timestep_scale", None) or 1.0
    output = network(both, timestep=torch.full((len(both),), timestep) * scale, return_dict=False, **conditioning)[0]
    null, own = output.chunk(2)
    guided = (null + guidance_scale * (own - null))[:, : latents.shape[1]]  # without a learned variance
    if is_flow(pipe):
        return latents - (timestep / 1000 if sigma is None else sigma) * guided
    return _clean(scheduler, guided, timestep, latents)


def _conditioning(pipe: diffusers.DiffusionPipeline, prompts: list[str], negative: str | None) -> dict[str, Any]:
    """What the pipeline's call gives its network besides latents and time: null rows first, then those of prompts."""
    several = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
    negatives = None if negative is None else [negative] * len(prompts)
    if isinstance(pipe, diffusers.StableDiffusionPipeline):
        own, null = pipe.encode_prompt(prompts, negative_prompt=negatives, **several)
        return {"encoder_hidden_states": torch.cat([null, own])}
    if isinstance(pipe, diffusers.StableDiffusionXLPipeline):
        own, null, pooled, null_pooled = pipe.encode_prompt(prompts, negative_prompt=negatives, **several)
        side = pipe.default_sample_size * pipe.vae_scale_factor
        ids = torch.tensor([[side, side, 0, 0, side, side]]).float().repeat(2 * len(prompts), 1)
        added = {"text_embeds": torch.cat([null_pooled, pooled]), "time_ids": ids}
        return {"encoder_hidden_states": torch.cat([null, own]), "added_cond_kwargs": added}
    if isinstance(pipe, diffusers.StableDiffusion3Pipeline):
        own, null, pooled, null_pooled = pipe.encode_prompt(
            prompts, prompt_2=None, prompt_3=None, negative_prompt=negatives, **several
        )
        embeddings = torch.cat([null, own])
        return {"encoder_hidden_states": embeddings, "pooled_projections": torch.cat([null_pooled, pooled])}
    if isinstance(pipe, diffusers.SanaPipeline):
        name = "complex_human_instruction"  # the call has a default, encode_prompt has none
        several[name] = inspect.signature(pipe.__call__).parameters[name].default
    own, mask, null, null_mask = pipe.encode_prompt(prompts, negative_prompt=negative or "", **several)
    conditioning = {"encoder_hidden_states": torch.cat([null, own]),
                    "encoder_attention_mask": torch.cat([null_mask, mask])}  # fmt: skip
    if not isinstance(pipe, diffusers.SanaPipeline):
        conditioning["added_cond_kwargs"] = _sizes(pipe, 2 * len(prompts))
    return conditioning


def _sizes(pipe: diffusers.DiffusionPipeline, rows: int) -> dict[str, Tensor | None]:
    """PixArt's conditioning on the size of images, of those of 1024 pixels only."""
    if pipe.transformer.config.sample_size != 128:
        return {"resolution": None, "aspect_ratio": None}
    side = 128 * pipe.vae_scale_factor
    return {"resolution": torch.full((rows, 2), float(side)), "aspect_ratio": torch.ones(rows, 1)}


def _clean(scheduler: Any, output: Tensor, timestep: float, latents: Tensor) -> Tensor:
    """What the scheduler itself takes for x̂_0, given the network's guided output."""
    if isinstance(scheduler, diffusers.DPMSolverMultistepScheduler):
        scheduler.set_timesteps(timesteps=[timestep])
        scheduler._step_index = 0
        return scheduler.convert_model_output(output, sample=latents)
    if isinstance(scheduler, diffusers.EulerDiscreteScheduler):
        return scheduler.step(output, scheduler.timesteps[0], latents).pred_original_sample
    if isinstance(scheduler, diffusers.PNDMScheduler):  # keeps its own to itself
        scheduler = diffusers.DDIMScheduler.from_config(scheduler.config, clip_sample=False)
    scheduler.set_timesteps(1000)
    return scheduler.step(output, int(timestep), latents).pred_original_sample


def is_flow(pipe: diffusers.DiffusionPipeline) -> bool:
    """Whether its scheduler's latents are (1 − s) x_0 + s ε."""
    flow = isinstance(pipe.scheduler, diffusers.FlowMatchEulerDiscreteScheduler)
    return flow or bool(pipe.scheduler.config.get("use_flow_sigmas"))


def signal_and_noise(pipe: diffusers.DiffusionPipeline, timestep: float) -> tuple[float, float]:
    """(α, σ), α² + σ² = 1, of a timestep as the network is told it."""
    if is_flow(pipe):
        s = timestep / 1000
        return (1 - s) / ((1 - s) ** 2 + s**2) ** 0.5, s / ((1 - s) ** 2 + s**2) ** 0.5
    alpha_bar = pipe.scheduler.alphas_cumprod.double()[int(timestep)].item()
    return alpha_bar**0.5, (1 - alpha_bar) ** 0.5


def timestep_of_flow(alpha: float, sigma: float) -> float:
    """1000 s of a flow, the inverse of `signal_and_noise`."""
    return 1000 * sigma / (alpha + sigma)


def to_scheduler(pipe: diffusers.DiffusionPipeline, z: Tensor, timestep: float) -> Tensor:
    """Latents in the coordinates of its scheduler, of z = α x_0 + σ ε with α² + σ² = 1."""
    return z / unit(pipe, timestep)


def from_scheduler(pipe: diffusers.DiffusionPipeline, latents: Tensor, timestep: float) -> Tensor:
    """z = α x_0 + σ ε with α² + σ² = 1, of latents in the coordinates of its scheduler."""
    return latents * unit(pipe, timestep)


def unit(pipe: diffusers.DiffusionPipeline, timestep: float) -> float:
    """By which the latents of its scheduler are to be multiplied to have α² + σ² = 1."""
    alpha, sigma = signal_and_noise(pipe, timestep)
    if is_flow(pipe):
        return alpha + sigma
    return alpha if isinstance(pipe.scheduler, diffusers.EulerDiscreteScheduler) else 1.0
