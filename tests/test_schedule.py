"""The respaced schedule against diffusers' scheduler and its own identities."""

from itertools import pairwise

import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from dmgd.diffusion.condition import Condition
from dmgd.diffusion.noise import RecordedNoise
from dmgd.diffusion.sampler import sample
from dmgd.diffusion.schedule import respaced, training_alpha_bar
from dmgd.errors import UsageError
from dmgd.priors.load import load_prior


@pytest.mark.parametrize("num_steps", [50, 20, 7])
def test_one_step_equals_diffusers(golden, num_steps):
    """diffusers' DDPM with linspace spacing and learned range is guided-diffusion's respaced sampler."""
    reference = DDPMScheduler(timestep_spacing="linspace", variance_type="learned_range", clip_sample=False)
    reference.set_timesteps(num_steps)
    schedule = respaced(training_alpha_bar(), num_steps)
    assert [step.timestep for step in schedule] == reference.timesteps.tolist()[::-1]

    z, output = torch.randn(2, 4, 4, 4), torch.randn(2, 8, 4, 4).tanh()
    prior = load_prior(str(golden / "dit-tiny-diffusers"), vae="none")
    nothing = prior.null_condition(2)
    prior.network = lambda z, t, label: output
    for step in schedule[1:]:
        generator = torch.Generator().manual_seed(step.index)
        expected = reference.step(output, step.timestep, z, generator=generator).prev_sample
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(step.index))
        x0, log_variance = prior.denoise(z, step, nothing)
        found = step.mean_x0 * x0 + step.mean_z * z + (log_variance / 2).exp() * noise
        torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


@settings(deadline=None)
@given(st.integers(2, 1000))
def test_identities(num_steps):
    schedule = respaced(training_alpha_bar(), num_steps)
    assert [step.index for step in schedule] == [*range(num_steps)]
    assert (schedule[0].timestep, schedule[-1].timestep) == (0, 999)
    assert schedule[0].mean_x0 == pytest.approx(1)
    assert schedule[0].mean_z == pytest.approx(0)
    for before, step in pairwise(schedule):
        assert before.timestep < step.timestep
        assert before.alpha_bar > step.alpha_bar > 0
        assert step.log_variance_small <= step.log_variance_large
        assert step.alpha**2 + step.sigma**2 == pytest.approx(1)
        # A noiseless trajectory z_k = √ᾱ_k z_0 stays one: mean_x0 + mean_z √ᾱ_k = √ᾱ_{k−1}.
        assert step.mean_x0 + step.mean_z * step.alpha == pytest.approx(before.alpha)


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_training_schedules_equal_diffusers(kind):
    reference = DDPMScheduler(num_train_timesteps=500, beta_schedule=kind, beta_start=0.001, beta_end=0.03)
    found = training_alpha_bar(kind, 500, 0.001, 0.03)
    torch.testing.assert_close(torch.from_numpy(found).float(), reference.alphas_cumprod, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("num_steps", [0, 1, 1001])
def test_too_few_or_many_steps_are_refused(num_steps):
    with pytest.raises(UsageError, match=f"not {num_steps}"):
        respaced(training_alpha_bar(), num_steps)


@pytest.mark.parametrize("num_steps", [20, 7])
def test_the_second_order_solver_equals_diffusers(num_steps):
    """A whole trajectory of SDE-DPM-Solver++(2M), from the same noise through a network that is not linear."""
    schedule = respaced(training_alpha_bar(), num_steps, "dpm++")
    reference = DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", final_sigmas_type="zero")
    reference.set_timesteps(timesteps=[step.timestep for step in reversed(schedule)])
    noise = torch.randn(num_steps + 1, 2, 4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def predict(z, t):
        return (z * 1.5 + t / 500).tanh()

    def denoise(z, step, condition):
        return (z - step.sigma * predict(z, step.timestep)) / step.alpha, None

    z = noise[0]
    for k, t in zip(reversed(range(num_steps)), reference.timesteps, strict=True):
        z = reference.step(predict(z, int(t)), t, z, variance_noise=noise[k + 1]).prev_sample
    none = Condition({"label": torch.zeros(2, 1)})
    found, _ = sample(denoise, schedule, RecordedNoise(noise[0], noise[1:]), lambda step: (none, none))
    torch.testing.assert_close(found.double(), z, rtol=1e-4, atol=1e-4)
