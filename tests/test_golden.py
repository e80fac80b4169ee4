"""`dmgd-released` is the authors' released code: recorded noise in, recorded trajectories out."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from dmgd.config import METHODS
from dmgd.diffusion.noise import RecordedNoise
from dmgd.diffusion.sampler import Guidance, sample
from dmgd.diffusion.schedule import ddpm_schedule
from dmgd.matching.methods import TransportShift, make_condition
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
    method = replace(METHODS["dmgd-released"], rho=hyperparameters["guidance_scale"])
    schedule = ddpm_schedule()
    support = torch.stack([tensors[f"class{c}.support"] for c in CLASSES])
    mass = torch.stack([tensors[f"class{c}.mass"] for c in CLASSES]).float()
    mass = mass / mass.sum(1, keepdim=True)

    frozen = support[:, :0]
    for i in range(IMAGES):

        def of(what, i=i):
            return torch.stack([tensors[f"class{c}.sample{i}.{what}"] for c in CLASSES])

        label_noise, x0s, trajectory = of("label_noise"), of("pred_x0"), of("trajectory")
        condition = make_condition(
            method,
            schedule,
            label=prior.label_embedding(CLASSES),
            null_label=prior.null_embedding(len(CLASSES)),
            other=prior.label_embedding(of("random_label").tolist()),
            noise=lambda k, noise=label_noise: noise[:, LAST - k][:, :, None],
        )
        shift = TransportShift(schedule, support, mass, frozen, method, times_sigma=True)

        def observe(k, x0, z, x0s=x0s, trajectory=trajectory):
            assert relative(x0, x0s[:, LAST - k]) < 1e-4
            assert relative(z, trajectory[:, LAST - k]) < 1e-4

        noise = RecordedNoise(of("z_T"), of("step_noise").flip(1).transpose(0, 1))
        z = sample(
            prior.predict,
            schedule,
            noise,
            condition,
            shift,
            Guidance(hyperparameters["cfg_scale"], method.guided_channels),
            observe=observe,
        )
        for found, expected in zip(z, of("latent"), strict=True):
            assert relative(found, expected) < 1e-5
        losses = torch.stack([shift.losses[k] for k in range(45, 29, -1)], dim=1)
        torch.testing.assert_close(losses, of("ot_loss"), rtol=1e-4, atol=0)
        frozen = torch.cat([frozen, of("latent").flatten(1)[:, None]], dim=1)
