"""The reference that text-to-image priors are compared with: is it what the pipelines' own call does?"""

import functools
import json

import pytest
import torch
from pipeline_reference import (
    from_scheduler,
    is_flow,
    reference_x0,
    signal_and_noise,
    timestep_of_flow,
    to_scheduler,
    unit,
)
from tiny_pipelines import FAMILIES, load, make_pipeline, quiet, save_lora

PROMPT = "a photo of a tench"
VARIANTS = {
    **{family: (family, {}) for family in FAMILIES},
    "sd21-zero-snr": ("sd21", {"scheduler": {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}}),
    "pixart-alpha-1024": ("pixart-alpha", {"network": {"sample_size": 128, "patch_size": 16}}),
}


@quiet()
def called(pipe, **arguments):
    """What the call of a pipeline gives its scheduler in two steps, and gets from it: [(timestep, latents, next)]."""
    seen, step = [], pipe.scheduler.step

    @functools.wraps(step)
    def watched(output, timestep, latents, *others, **options):
        done = step(output, timestep, latents, *others, **options)
        seen.append((float(timestep), latents, done[0]))
        return done

    own = {
        "PixArtAlphaPipeline": {"use_resolution_binning": False, "clean_caption": False},
        "PixArtSigmaPipeline": {"use_resolution_binning": False, "clean_caption": False},
        "SanaPipeline": {"use_resolution_binning": False, "height": 32, "width": 32},
    }.get(type(pipe).__name__, {})
    pipe.scheduler.step = watched
    pipe([PROMPT] * 2, num_inference_steps=2, output_type="latent", generator=torch.manual_seed(0), **own, **arguments)
    return seen


def coordinates(pipe, timestep):
    """The a and b of its scheduler's latents a x_0 + b ε."""
    alpha, sigma = signal_and_noise(pipe, timestep)
    return alpha / unit(pipe, timestep), sigma / unit(pipe, timestep)


@pytest.mark.parametrize("negative", [{}, {"negative_prompt": "blurry"}], ids=["plain", "negative"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_reference_is_what_the_pipelines_own_call_does(tmp_path, variant, negative):
    """The first step of every solver is of first order: to a′ x_0 + b′ ε, with the ε that x_0 leaves. So is the second
    and last but for PNDM, and without noise left it is x_0 itself."""
    family, changes = VARIANTS[variant]
    pipe = load(make_pipeline(family, tmp_path, **changes))
    negatives = {name: [text] * 2 for name, text in negative.items()}
    steps = called(pipe, guidance_scale=3.0, **negatives)
    times = [1000 * float(s) for s in pipe.scheduler.sigmas] if is_flow(pipe) else [time for time, *_ in steps]
    (a, b), (later_a, later_b) = (coordinates(pipe, time) for time in times[:2])

    def x0(k):
        time, latents, _ = steps[k]
        return reference_x0(
            pipe,
            latents,
            time,
            PROMPT,
            guidance_scale=3.0,
            sigma=times[k] / 1000 if is_flow(pipe) else None,
            **negative,
        )

    _, latents, following = steps[0]
    clean = x0(0)
    torch.testing.assert_close(later_a * clean + later_b * (latents - a * clean) / b, following, rtol=1e-4, atol=1e-4)
    if family not in ("sd15", "sd21"):  # which end at the first of their timesteps
        torch.testing.assert_close(x0(1), steps[1][2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tiny_pipeline_reacts_to_prompt_guidance_and_negative_prompt(tmp_path, family):
    pipe = load(make_pipeline(family, tmp_path))
    written = json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())
    assert type(pipe.scheduler).__name__ == written["_class_name"]
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 1e6
    network = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    z = torch.randn(1, network.config.in_channels, 8, 8, generator=torch.manual_seed(0))
    latents = to_scheduler(pipe, z, 500)
    torch.testing.assert_close(from_scheduler(pipe, latents, 500), z)
    if is_flow(pipe):
        assert timestep_of_flow(*signal_and_noise(pipe, 500)) == pytest.approx(500)

    def x0(prompt=PROMPT, **options):
        return reference_x0(pipe, latents, 500, prompt, **options)

    own = x0()
    for other in (x0("a church"), x0(guidance_scale=4.0)):
        assert (own - other).norm() > 0.05 * own.norm()
    assert (x0(guidance_scale=4.0, negative_prompt="blurry") - x0(guidance_scale=4.0)).norm() > 0.05 * own.norm()


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "sana"])
def test_a_tiny_lora_changes_what_the_network_predicts(tmp_path, family):
    pipe = load(make_pipeline(family, tmp_path / "pipeline"))
    network = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    latents = torch.randn(1, network.config.in_channels, 8, 8, generator=torch.manual_seed(0))
    without = reference_x0(pipe, latents, 500, PROMPT)
    with quiet():
        pipe.load_lora_weights(save_lora(family, tmp_path / "lora"))
        pipe.fuse_lora()
        pipe.unload_lora_weights()
    assert (reference_x0(pipe, latents, 500, PROMPT) - without).norm() > 0.05 * without.norm()
