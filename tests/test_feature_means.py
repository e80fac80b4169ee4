"""Feature matching: the untrained networks, a class's mean features, and the steps of the last x̂_0."""

import numpy as np
import pytest
import torch
from source_stand_ins import as_folder, pictures, small_prior
from torch import nn

from dmgd.config import StatisticsConfig
from dmgd.diffusion.process import Diffusion
from dmgd.generation.batches import Batch
from dmgd.generation.config import DistillConfig
from dmgd.generation.plan import make_plan
from dmgd.generation.sampling import sample_batch
from dmgd.matching import feature_means
from dmgd.matching.feature_means import feature_guide, matched
from dmgd.matching.methods import DMGD
from dmgd.priors.load import load_prior
from dmgd.sources.open import open_source
from dmgd.statistics.untrained import IMAGES, NETWORKS, UntrainedNetworks, mean_features
from dmgd.workflows.fit_stats import fit_statistics

SHAPE = (3, 16, 16)
LABELS = ["tench", "golf ball"]
LAST, BEFORE = Diffusion().schedule(10, "ddpm")[:2]


def images(count, seed=0):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed)).clamp(-1, 1)


def wanted(classes=2):
    return torch.stack([torch.from_numpy(mean_features(images(30, 9 + c).numpy(), SHAPE)) for c in range(classes)])


def as_modules(number):
    """Network `number`, in torch's modules."""
    generator, layers, inputs = torch.Generator().manual_seed(number), [], 3
    for _ in range(2):
        convolution = nn.Conv2d(inputs, 64, 3, padding=1, bias=False)
        convolution.weight.data = torch.randn(64, inputs, 3, 3, generator=generator)
        layers += [convolution, nn.InstanceNorm2d(64), nn.ReLU(), nn.AvgPool2d(2)]
        inputs = 64
    return nn.Sequential(*layers, nn.Flatten())


def test_features_are_those_of_convnets_with_instance_norm():
    networks = UntrainedNetworks(SHAPE)
    for number in (0, NETWORKS - 1):
        found = networks.features(number, images(3))
        torch.testing.assert_close(found, as_modules(number)(images(3)), rtol=1e-5, atol=1e-5)
    assert found.shape == (3, 64 * 4 * 4)


@pytest.mark.parametrize(("side", "maps"), [(2, 1), (3, 1), (4, 1), (8, 2), (28, 7), (64, 16)])
def test_a_block_halves_the_maps(side, maps):
    networks = UntrainedNetworks((1, side, side))
    assert networks.features(0, torch.zeros(1, 1, side, side)).shape == (1, 64 * maps**2)
    assert networks.means_shape == (20, 64 * maps**2)


def test_single_pixels_are_their_own_features():
    """Latents of 8 pixels by an autoencoder of factor 8: nothing can be pooled, and a norm would leave zero."""
    pixels = np.float32([[1, 2, 3, 4], [3, 2, 1, 0]])
    means = mean_features(pixels, (4, 1, 1))
    assert means.shape == UntrainedNetworks((4, 1, 1)).means_shape
    np.testing.assert_array_equal(means, [[2, 2, 2, 2]] * 20)


def test_large_images_take_no_more_memory_than_small_ones(monkeypatch):
    seen, features = [], UntrainedNetworks.features
    monkeypatch.setattr(UntrainedNetworks, "features", lambda *of: seen.append(of[2].numel()) or features(*of))
    for side in (32, 64):
        mean_features(np.zeros((101, side**2), np.float32), (1, side, side))
    assert max(seen) == 100 * 32**2


def test_mean_features_are_of_evenly_spread_images():
    several = images(IMAGES + 1)
    means = mean_features(several.flatten(1).numpy(), SHAPE)
    chosen = several[np.linspace(0, IMAGES, IMAGES).round().astype(int)]
    for number in (0, 3):
        plain = as_modules(number)(chosen).mean(0)
        torch.testing.assert_close(torch.from_numpy(means[number]), plain, rtol=1e-4, atol=1e-5)


def test_only_the_last_step_is_guided():
    x0 = images(4)
    guide = feature_guide(wanted(), x0.new_empty(2, 0, 768), are_pixels=True)
    assert guide(BEFORE, x0, x0)[0] is x0
    assert guide(LAST, x0, x0)[0] is not x0


def test_a_step_follows_the_gradient_of_the_squared_distance_of_means(monkeypatch):
    monkeypatch.setattr(feature_means, "STEPS", 1)
    x0, done, means = images(3) / 2, images(2, 5), wanted(1)
    moving = x0.clone().requires_grad_()
    ((as_modules(0)(torch.cat([done, moving])).mean(0) - means[0, 0]) ** 2).sum().backward()
    step = 0.02 * moving.grad / moving.grad.square().mean().sqrt()
    found, cost = feature_guide(means, done.flatten(1)[None], are_pixels=True)(LAST, x0, x0)
    torch.testing.assert_close(found, x0 - step, rtol=1e-4, atol=1e-5)
    assert cost is None


def test_images_get_the_mean_features_of_their_class_and_stay_pictures():
    x0, means = images(8), wanted()
    guide = feature_guide(means, x0.new_empty(2, 0, 768), are_pixels=True)
    found, _ = guide(LAST, x0, x0)
    assert found.abs().max() <= 1
    assert (found - x0).square().mean().sqrt() < 0.3

    def distance(of):
        features = [UntrainedNetworks(SHAPE).features(4, one).mean(0) for one in of.reshape(2, 4, *SHAPE)]
        return (torch.stack(features) - means[:, 4]).square().sum(1)

    assert (distance(found) < distance(x0) / 2).all()


def test_a_class_is_matched_by_itself():
    x0, means, none = images(6), wanted(), torch.empty(2, 0, 768)
    both, _ = feature_guide(means, none, are_pixels=True)(LAST, x0, x0)
    alone, _ = feature_guide(means[1:], none[1:], are_pixels=True)(LAST, x0[3:], x0[3:])
    assert torch.equal(both[3:], alone)


def test_classes_that_are_matched_together_are_as_if_each_were_alone():
    x0, done = images(6).reshape(2, 3, *SHAPE), images(4, 5).reshape(2, 2, -1)
    networks, means = UntrainedNetworks(SHAPE), wanted()
    together = matched(networks, x0, means, done, 1.0)
    each = [matched(networks, x0[c : c + 1], means[c : c + 1], done[c : c + 1], 1.0) for c in range(2)]
    torch.testing.assert_close(together, torch.cat(each), rtol=1e-3, atol=1e-4)


def test_images_that_have_the_features_stay():
    flat = torch.zeros(2, *SHAPE)
    means = torch.from_numpy(mean_features(flat.numpy(), SHAPE))[None]
    found, _ = feature_guide(means, torch.empty(1, 0, 768), are_pixels=True)(LAST, flat, flat)
    assert torch.equal(found, flat)


def test_latents_of_an_autoencoder_have_no_bounds():
    x0 = 3 * images(2)
    means = torch.from_numpy(mean_features(x0.flatten(1).numpy(), SHAPE))[None]
    found, _ = feature_guide(means, torch.empty(1, 0, 768), are_pixels=False)(LAST, x0, x0)
    assert found.abs().max() > 2.9


def prior_and_source(kind, folder):
    """The digits in pixels, and pictures of two classes in the latents of an autoencoder."""
    if kind == "pixels":
        return load_prior("digits"), open_source("digits")
    prior = load_prior(str(small_prior(folder / "prior")))
    return prior, open_source(f"folder:{as_folder(folder / 'data', pictures(LABELS))}")


@pytest.mark.parametrize(("kind", "share"), [("pixels", 0.5), ("latents", 1)])  # the second prior draws nothing
def test_the_default_matches_features_and_can_leave_it_out(kind, share, tmp_path):
    prior, source = prior_and_source(kind, tmp_path)
    statistics = fit_statistics(source, prior, StatisticsConfig(k=3), workers=0, cache=False)
    networks, distances = UntrainedNetworks(prior.latent_shape), []
    for method in (DMGD(steps=5), DMGD(steps=5, match_features=False)):
        plan = make_plan(DistillConfig(ipc=5, method=method), source.spec, prior, statistics)
        made, _ = sample_batch(Batch(range(1, 2), range(5)), plan, prior, statistics, [])
        distances.append((networks.features(7, made).mean(0) - statistics.features[1, 7]).square().sum())
        assert made.abs().max() <= 1 or kind == "latents" or not method.match_features
    assert distances[0] < share * distances[1]
