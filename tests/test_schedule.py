"""The respaced schedule against diffusers' scheduler and its own identities."""

import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st

from dmgd.diffusion.noise import RecordedNoise
from dmgd.diffusion.sampler import sample, standard_deviation
from dmgd.diffusion.schedule import ddpm_schedule, dpm_schedule
from dmgd.errors import UsageError


@pytest.mark.parametrize("num_steps", [50, 20, 7])
def test_one_step_equals_diffusers(num_steps):
    """diffusers' DDPM with linspace spacing and learned range is guided-diffusion's respaced sampler."""
    reference = DDPMScheduler(timestep_spacing="linspace", variance_type="learned_range", clip_sample=False)
    reference.set_timesteps(num_steps)
    schedule = ddpm_schedule(num_steps)
    assert list(schedule.timestep) == reference.timesteps.tolist()[::-1]

    z, output = torch.randn(2, 4, 4, 4), torch.randn(2, 8, 4, 4).tanh()
    for k in range(1, num_steps):
        t, epsilon = schedule.timestep[k], output[:, :4]
        generator = torch.Generator().manual_seed(k)
        expected = reference.step(output, t, z, generator=generator).prev_sample
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(k))
        x0 = (z - (1 - schedule.alpha_bar[k]) ** 0.5 * epsilon) / schedule.alpha_bar[k] ** 0.5
        mean = schedule.mean_x0[k] * x0 + schedule.mean_z[k] * z
        found = mean + standard_deviation(schedule, k, output[:, 4:], like=z) * noise
        torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


@given(st.integers(2, 1000))
def test_identities(num_steps):
    schedule = ddpm_schedule(num_steps)
    assert schedule.timestep[0] == 0
    assert schedule.timestep[-1] == 999
    assert all(a < b for a, b in zip(schedule.timestep, schedule.timestep[1:], strict=False))
    assert all(a > b > 0 for a, b in zip(schedule.alpha_bar, schedule.alpha_bar[1:], strict=False))
    assert schedule.mean_x0[0] == pytest.approx(1)
    assert schedule.mean_z[0] == pytest.approx(0)
    assert all(
        s <= large for s, large in zip(schedule.log_variance_small[1:], schedule.log_variance_large[1:], strict=True)
    )
    # A noiseless trajectory z_k = √ᾱ_k z_0 stays one: mean_x0 + mean_z √ᾱ_k = √ᾱ_{k−1}.
    for k in range(1, num_steps):
        kept = schedule.mean_x0[k] + schedule.mean_z[k] * schedule.alpha_bar[k] ** 0.5
        assert kept == pytest.approx(schedule.alpha_bar[k - 1] ** 0.5)


@pytest.mark.parametrize("num_steps", [0, 1, 1001])
def test_too_few_or_many_steps_are_refused(num_steps):
    with pytest.raises(UsageError, match=f"not {num_steps}"):
        ddpm_schedule(num_steps)


@pytest.mark.parametrize("num_steps", [20, 7])
def test_the_second_order_solver_equals_diffusers(num_steps):
    """A whole trajectory of SDE-DPM-Solver++(2M), from the same noise through a network that is not linear."""
    schedule = dpm_schedule(num_steps)
    reference = DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", final_sigmas_type="zero")
    reference.set_timesteps(timesteps=list(schedule.timestep[::-1]))
    noise = torch.randn(num_steps + 1, 2, 4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def denoise(z, t, label):
        return (z * 1.5 + t / 500).tanh()

    z = noise[0]
    for k, t in zip(reversed(range(num_steps)), reference.timesteps, strict=True):
        z = reference.step(denoise(z, int(t), None), t, z, variance_noise=noise[k + 1]).prev_sample
    label = torch.zeros(2, 1, 1)
    found = sample(denoise, schedule, RecordedNoise(noise[0], noise[1:]), lambda k: (label, label))
    torch.testing.assert_close(found.double(), z, rtol=1e-4, atol=1e-4)
