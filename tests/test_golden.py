"""`dmgd-released` is the authors' released code: recorded noise in, recorded trajectories out."""

import json
from types import SimpleNamespace

import pytest
import torch
from made_run import rows
from safetensors import safe_open

from dmgd.diffusion.condition import Condition
from dmgd.diffusion.guidance import Guidance
from dmgd.diffusion.noise import RecordedNoise
from dmgd.diffusion.sampler import sample
from dmgd.matching.methods import DMGDReleased
from dmgd.priors.load import load_prior

CLASSES, IMAGES, LAST = (3, 7), 3, 49


@pytest.fixture(params=["released_default", "released_strong_ot"])
def recorded(request, golden):
    with safe_open(golden / f"{request.param}.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["hyperparameters"])


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("name", ["dit-tiny-diffusers", "dit_tiny_original.pt", "dit_tiny_original.safetensors"])
def test_released_trajectories(recorded, golden, name):
    tensors, hyperparameters = recorded
    prior = load_prior(str(golden / name), vae="none")
    method = DMGDReleased(rho=float(hyperparameters["guidance_scale"]))
    schedule = prior.schedule(50, "ddpm")
    support = torch.stack([tensors[f"class{c}.support"] for c in CLASSES])
    mass = torch.stack([tensors[f"class{c}.mass"] for c in CLASSES]).float()
    mass = mass / mass.sum(1, keepdim=True)

    frozen = support[:, :0]
    for i in range(IMAGES):

        def of(what, i=i):
            return torch.stack([tensors[f"class{c}.sample{i}.{what}"] for c in CLASSES])

        label_noise, x0s, trajectory = of("label_noise"), of("pred_x0"), of("trajectory")
        conditions = method.conditions(
            prior.condition(rows(*CLASSES)),
            prior.null_condition(len(CLASSES)),
            prior.condition(rows(*of("random_label").tolist())),
            lambda step, noise=label_noise: Condition({"label": noise[:, LAST - step.index][:, :, None]}),
        )
        guide = method.guide(SimpleNamespace(support=support, mass=mass), frozen, [i])
        losses = []

        def observe(step, x0, z, cost, x0s=x0s, trajectory=trajectory, losses=losses):
            assert relative(x0, x0s[:, LAST - step.index]) < 1e-4
            assert relative(z, trajectory[:, LAST - step.index]) < 1e-4
            if cost is not None:
                losses.append(cost)

        noise = RecordedNoise(of("z_T"), of("step_noise").flip(1).transpose(0, 1))
        z, _ = sample(
            prior.denoise,
            schedule,
            noise,
            conditions,
            guide,
            Guidance(hyperparameters["cfg_scale"], method.guided_channels),
            observe=observe,
        )
        for found, expected in zip(z, of("latent"), strict=True):
            assert relative(found, expected) < 1e-5
        torch.testing.assert_close(torch.stack(losses, dim=1), of("ot_loss"), rtol=1e-4, atol=0)
        frozen = torch.cat([frozen, of("latent").flatten(1)[:, None]], dim=1)
