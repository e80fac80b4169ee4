"""One truth for all processes: a mixture of Gaussians, whose E[x_0 | z] is known, in the place of a network."""

from itertools import pairwise
from math import cos, pi, sin, sqrt

import diffusers
import pytest
import torch

from dmgd.diffusion.condition import Condition
from dmgd.diffusion.noise import RecordedNoise
from dmgd.diffusion.process import Diffusion, Flow
from dmgd.diffusion.sampler import sample
from dmgd.errors import UsageError

MEANS, DEVIATION = torch.tensor([[-2.0, 0.5], [1.0, 1.0], [0.5, -1.5]]), 0.3
ZERO_SNR = {"rescale_betas_zero_snr": True}
BETAS = {
    "linear": {},
    "scaled": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "trained": {"trained_betas": tuple(torch.linspace(0.001, 0.05, 300).tolist())},
    "zero terminal SNR": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, **ZERO_SNR},
}
DIFFUSIONS = [
    pytest.param(Diffusion(**betas, prediction_type=predicts), id=f"{name}, {predicts}")
    for name, betas in BETAS.items()
    for predicts in ("epsilon", "v_prediction", "sample")
    if not (predicts == "epsilon" and "rescale_betas_zero_snr" in betas)
]
FLOWS = [
    pytest.param(Flow(path, shift, scale, from_noise), id=f"flow, {path}, shift {shift}, {scale}, {from_noise}")
    for path, shift, scale, from_noise in [
        ("linear", 1.0, 1000.0, False),  # SD3 and Sana, but for their shift
        ("linear", 3.0, 1000.0, False),
        ("linear", 1.0, 1.0, False),  # REPA
        ("linear", 1.0, 1.0, True),  # SiT
        ("cosine", 1.0, 1.0, True),
    ]
]


def clean(x, a, b):
    """E[x_0 | a x_0 + b ε = x], pixel by pixel of images with two channels."""
    x, means = x.movedim(1, -1).unsqueeze(-2), MEANS.to(x.dtype)
    variance = (a * DEVIATION) ** 2 + b**2
    weights = (-(x - a * means).square().sum(-1) / (2 * variance)).softmax(-1)
    each = means + a * DEVIATION**2 / variance * (x - a * means)
    return (weights.unsqueeze(-1) * each).sum(-2).movedim(-1, 1)


def network(process):
    """What a perfect network of the process predicts of x at its own time: written from the process's definition alone,
    in its own coordinates and double precision."""

    def of_diffusion(x, t):
        settings = process.to_json() | {"prediction_type": "epsilon"}
        table = diffusers.DDPMScheduler(**settings).alphas_cumprod.double()
        alpha, sigma = table[t].sqrt(), (1 - table[t]).sqrt()
        x0 = clean(x.double(), alpha, sigma)
        if process.prediction_type == "sample":
            return x0
        noise = (x - alpha * x0) / sigma
        return noise if process.prediction_type == "epsilon" else alpha * noise - sigma * x0

    def of_flow(x, t):
        s = torch.tensor(t / process.time_scale, dtype=torch.float64)
        s = 1 - s if process.from_noise else s
        quarter = torch.pi / 2
        a, b = (1 - s, s) if process.path == "linear" else ((quarter * s).cos(), (quarter * s).sin())
        da, db = (-1, 1) if process.path == "linear" else (-quarter * b, quarter * a)
        x0 = clean(x.double(), a, b)
        velocity = da * x0 + db * (x - a * x0) / b
        return -velocity if process.from_noise else velocity

    return of_flow if isinstance(process, Flow) else of_diffusion


def noise_of(images, steps):
    return torch.randn(steps + 1, images, 2, 4, 4, generator=torch.Generator().manual_seed(0))


def sampled(process, steps, solver, images=8, through_network=True):
    predict, condition, noise = network(process), Condition({"label": torch.zeros(images, 1)}), noise_of(images, steps)

    def denoise(z, step, condition):
        if not through_network:
            return clean(z.double(), step.alpha, step.sigma).float(), None
        return process.clean(z, predict(process.network_input(z, step), step.timestep), step).float(), None

    schedule = process.schedule(steps, solver)
    return sample(denoise, schedule, RecordedNoise(noise[-1], noise), lambda step: (condition, condition))[0]


@pytest.mark.parametrize("solver", ["ddpm", "dpm++", "ddim"])
@pytest.mark.parametrize("process", DIFFUSIONS + FLOWS)
def test_every_prediction_of_the_same_truth_gives_the_same_samples(process, solver):
    found, truth = (sampled(process, 20, solver, through_network=through) for through in (True, False))
    assert (found - truth).abs().max() < 1e-4


@pytest.mark.parametrize("process", [*DIFFUSIONS[::6], *FLOWS[1:4:2]])
@pytest.mark.parametrize("solver", ["ddpm", "ddim"])
def test_samples_have_the_moments_of_the_truth(process, solver):
    pixels = sampled(process, 300, solver, images=200).movedim(1, -1).flatten(0, -2)
    nearest = torch.cdist(pixels, MEANS).argmin(1)
    assert torch.bincount(nearest, minlength=3) / len(nearest) == pytest.approx([1 / 3] * 3, abs=0.04)
    for mode, mean in enumerate(MEANS):
        own = pixels[nearest == mode]
        assert own.mean(0) == pytest.approx(mean, abs=0.03)
        assert own.std(0) == pytest.approx([DEVIATION] * 2, rel=0.1)


def euler_maruyama(process, steps, images):
    """SiT's SDE by the method of Euler and Maruyama, as its sampler runs it by default, from its t = 0 (noise) to 1:
    dx = (v + w s) dt + √(2 w) dW, s the score that the velocity v implies, w the diffusion of form "SBDM"; a last step
    without noise. Its own coordinates, a x_0 + b ε, written from its paper alone."""
    predict, draw, last = network(process), torch.Generator().manual_seed(1), 1 / steps
    x = torch.randn(images, 2, 4, 4, generator=draw, dtype=torch.float64)

    def drift_and_diffusion(x, t):
        quarter = pi / 2
        a, b = (t, 1 - t) if process.path == "linear" else (sin(quarter * t), cos(quarter * t))
        da, db = (1, -1) if process.path == "linear" else (quarter * b, -quarter * a)
        v, w = predict(x, t), da / a * b**2 - b * db
        score = (a / da * v - x) / (b**2 - a / da * db * b)
        return v + w * score, w

    times = torch.linspace(1e-3, 1 - last, steps, dtype=torch.float64).tolist()
    for now, after in pairwise(times):
        drift, w = drift_and_diffusion(x, now)
        noise = torch.randn(x.shape, generator=draw, dtype=torch.float64)
        x = x + drift * (after - now) + sqrt(2 * w * (after - now)) * noise
    return (x + drift_and_diffusion(x, times[-1])[0] * last).float()


@pytest.mark.parametrize("process", FLOWS[3:])
def test_samples_of_a_sit_are_distributed_as_those_of_its_own_sde(process):
    """Means, covariances, and the share, mean and deviation of every mode."""
    ours, theirs = sampled(process, 150, "ddpm", images=250), euler_maruyama(process, 150, images=250)
    ours, theirs = (pixels.movedim(1, -1).flatten(0, -2) for pixels in (ours, theirs))
    torch.testing.assert_close(ours.mean(0), theirs.mean(0), rtol=0, atol=0.1)
    torch.testing.assert_close(ours.T.cov(), theirs.T.cov(), rtol=0, atol=0.15)
    for mode in range(len(MEANS)):
        own, other = (pixels[torch.cdist(pixels, MEANS).argmin(1) == mode] for pixels in (ours, theirs))
        assert len(own) / len(ours) == pytest.approx(len(other) / len(theirs), abs=0.05)
        torch.testing.assert_close(own.mean(0), other.mean(0), rtol=0, atol=0.06)
        torch.testing.assert_close(own.std(0), other.std(0), rtol=0.1, atol=0)


@pytest.mark.parametrize("process", FLOWS)
def test_the_deterministic_solver_is_eulers_method_in_the_flows_own_coordinates(process):
    """Exactly for the linear path; the cosine's is Euler's in the angle only in the limit."""
    steps = 20 if process.path == "linear" else 1000
    predict, noise = network(process), noise_of(3, steps)
    times = [step.timestep for step in reversed(process.schedule(steps, "ddim"))]
    x, ends = noise[-1].double(), process.time_scale if process.from_noise else 0.0
    for now, after in zip(times, [*times[1:], ends], strict=True):
        x = x + (after - now) / process.time_scale * predict(x, now).double()
    found = sampled(process, steps, "ddim", images=3)
    assert (found - x).abs().max() < (1e-5 if process.path == "linear" else 0.02)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rescale_betas_zero_snr": True}, "cannot start from pure noise"),
        ({"trained_betas": (0.5, 2.0)}, "does not fall from 1"),
        ({"beta_schedule": "cubic"}, "the β schedule 'cubic' is not known"),
        ({"num_train_timesteps": 1}, "at least 2"),
        ({"prediction_type": "flow"}, "unknown prediction_type 'flow'"),
    ],
)
def test_an_impossible_diffusion_is_refused(wrong, said):
    with pytest.raises(UsageError, match=said):
        Diffusion(**wrong)
