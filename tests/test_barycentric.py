"""The barycentric step against slow reference implementations, and the window that follows from the data."""

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import ot
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.optimize import linear_sum_assignment

from dmgd.classes.info import ClassInfo
from dmgd.config import StatisticsConfig
from dmgd.diffusion.condition import Condition
from dmgd.diffusion.noise import SeededNoise
from dmgd.diffusion.sampler import sample
from dmgd.diffusion.schedule import respaced, training_alpha_bar
from dmgd.generation.batches import Batch
from dmgd.generation.config import DistillConfig
from dmgd.generation.plan import make_plan
from dmgd.generation.sampling import sample_batch
from dmgd.matching.barycentric import barycentric_guide, barycentric_projection, exact_plan, span_of
from dmgd.matching.covariance import ClassCovariance, with_covariance
from dmgd.matching.method import CLEAR, VISIBLE, speciation_step
from dmgd.matching.methods import DMGD, METHODS
from dmgd.priors.load import load_prior
from dmgd.sources.open import open_source
from dmgd.specs import SourceSpec
from dmgd.statistics.encoding import encode_source
from dmgd.statistics.file import Statistics
from dmgd.statistics.fitting import covariance_along
from dmgd.statistics.kmeans import quantize
from dmgd.workflows.fit_stats import fit_statistics


@pytest.fixture
def points():
    """Two classes of 6 latents and 6 support points in 5 dimensions, equal masses."""
    generator = torch.Generator().manual_seed(0)
    latents, support = torch.randn(2, 6, 5, generator=generator), torch.randn(2, 6, 5, generator=generator)
    return latents, support, torch.full((2, 6), 1 / 6)


def test_with_as_many_points_as_images_each_goes_to_its_own(points):
    latents, support, mass = points
    target, cost = barycentric_projection(latents, support, mass)
    for c in range(2):
        squared = torch.cdist(latents[c], support[c]).square().numpy()
        _, column = linear_sum_assignment(squared)
        torch.testing.assert_close(target[c], support[c][column])
        assert cost[c].item() == pytest.approx(squared[range(6), column].mean(), rel=1e-5)


def test_the_step_is_the_scaled_gradient_of_the_transport_distance(points):
    """Against differences of POT's exact W₂² on unequal masses."""
    latents, support, mass = (part[0].double() for part in points)
    mass = mass * torch.tensor([0.5, 2.0, 1.0, 1.0, 0.7, 0.8])

    def distance(x):
        return ot.emd2(np.full(6, 1 / 6), mass.numpy(), ot.dist(x.numpy(), support.numpy()))

    target, _ = barycentric_projection(latents[None], support[None], mass[None])
    for i, j in ((0, 0), (3, 4), (5, 1)):
        step = torch.zeros(6, 5, dtype=torch.float64)
        step[i, j] = 1e-5
        slope = (distance(latents + step) - distance(latents - step)) / 2e-5
        assert -6 / 2 * slope == pytest.approx((target[0] - latents)[i, j].item(), rel=1e-4)


def test_one_image_goes_to_the_mean_and_points_without_mass_count_for_nothing(points):
    latents, support, mass = points
    mass = mass * torch.tensor([3.0, 3.0, 0.0, 0.0, 0.0, 0.0])
    target, _ = barycentric_projection(latents[:, :1], support, mass)
    torch.testing.assert_close(target[:, 0], support[:, :2].mean(1))


def test_the_step_size_does_not_depend_on_scale_or_finished_images(points):
    latents, support, mass = points
    step = respaced(training_alpha_bar())[7]
    finished, new = latents[:, :4], latents[:, 4:].flatten(0, 1)
    moved = [
        barycentric_guide(scale * support, mass, scale * finished, rho=0.25)(step, scale * new, new)[0] - scale * new
        for scale in (1.0, 1000.0)
    ]
    expected = 0.25 * (barycentric_projection(latents, support, mass)[0] - latents)[:, 4:]
    torch.testing.assert_close(moved[0], expected.flatten(0, 1))
    torch.testing.assert_close(moved[1], 1000 * moved[0])


def test_matching_acts_within_its_window(points):
    latents, support, mass = points
    method = DMGD(window=(8, 9), keep_detail=False, match_covariance=False, match_features=False)
    guide = method.guide(
        SimpleNamespace(support=support, mass=mass, covariance=None, count=None), latents[:, :0], range(6)
    )
    z, schedule = latents.flatten(0, 1), respaced(training_alpha_bar())
    assert [guide(step, z, z)[1] is not None for step in schedule[6:11]] == [False, False, True, True, False]
    assert guide(schedule[7], z, z)[0] is z


@pytest.fixture
def parts():
    """A class of 60 latents in 5 dimensions, its 20 support points, the weights of 8 means, and its covariance."""
    latents = (
        torch.randn(60, 5, generator=torch.Generator().manual_seed(3)) * torch.tensor([4.0, 2.0, 1.0, 0.5, 0.2]) + 1
    )
    support, mass = quantize(latents.numpy(), 20, seed=0)
    along = torch.from_numpy(covariance_along(support, mass, latents.numpy()))[None]
    support, mass = torch.from_numpy(support)[None], torch.from_numpy(mass).float()[None]
    weights = 8 * exact_plan(torch.cdist(latents[None, :8], support).square(), mass)
    return latents, weights, support, ClassCovariance.of(support, mass, along, torch.tensor([60]))


def deviations(weights, support, latents):
    return (weights @ support)[0].double() - latents.double().mean(0)


def matched(parts, count):
    """The deviations of the 8 targets as if the class had so many images."""
    latents, weights, support, covariance = parts
    return deviations(with_covariance(weights, replace(covariance, count=torch.tensor([count]))), support, latents)


def test_covariance_matching_is_the_gaussian_transport_map(parts):
    """Against the map between Gaussians, Σ_T^−½ (Σ_T^½ Σ Σ_T^½)^½ Σ_T^−½, in latent space."""
    latents, weights, support, _ = parts
    means, found = deviations(weights, support, latents), matched(parts, 10**9)
    of_means, of_class = (np.cov(x.numpy().T, bias=True) for x in (means, latents.double()))
    root = sqrtm(of_means)
    wanted = means.numpy() @ np.linalg.inv(root) @ sqrtm(root @ of_class @ root) @ np.linalg.inv(root)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)
    np.testing.assert_allclose(np.cov(found.numpy().T, bias=True), of_class, atol=1e-5)
    np.testing.assert_allclose(found.mean(0).numpy(), 0, atol=1e-5)


def test_covariance_matching_undoes_at_most_the_effect_of_averaging(parts):
    latents, weights, support, _ = parts
    means = deviations(weights, support, latents)
    for count in (8, 12, 60):
        found = matched(parts, count)
        widening = torch.linalg.lstsq(means, found).solution
        assert torch.linalg.eigvals(widening).real.max().item() <= (count / 8) ** 0.5 + 1e-5
        assert count > 8 or torch.allclose(found, means, atol=1e-5)


def test_equal_targets_stay_equal(parts):
    """One image gets the mean; images of one support point are not separated by rounding."""
    latents, weights, support, covariance = parts
    alone = with_covariance(weights.mean(1, keepdim=True), covariance)
    torch.testing.assert_close(deviations(alone, support, latents)[0], torch.zeros(5).double(), atol=1e-5, rtol=0)
    pair = torch.zeros(1, 4, 20)
    pair[0, :2, 0] = pair[0, 2:, 1] = 1
    two = torch.tensor([[0.5, 0.5, *[0.0] * 18]])
    targets = with_covariance(pair, ClassCovariance.of(support, two, covariance.along, covariance.count)) @ support
    torch.testing.assert_close(targets[0, 0], targets[0, 1])
    assert targets.isfinite().all()


def test_a_step_is_projected_on_the_span_of_the_support_points(points):
    """Against a least-squares projection on the deviations of the support points, one of which has no mass."""
    latents = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(1))
    support = torch.cat([points[1], torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(2))], dim=2)
    mass = points[2].clone()
    mass[:, 0] = 0
    z, step = latents.flatten(0, 1), respaced(training_alpha_bar())[7]
    guides = [barycentric_guide(support, mass, latents[:, :0], rho=0.5, span=s) for s in (None, span_of(support, mass))]
    (whole, cost), (kept, same_cost) = (guide(step, z, z) for guide in guides)
    assert cost.equal(same_cost)
    whole, kept = ((moved - z).reshape(2, 6, 9).double() for moved in (whole, kept))
    for c in range(2):
        deviations = (support[c, 1:] - support[c, 1:].mean(0)).double()
        expected = torch.linalg.lstsq(deviations.T, whole[c].T, rcond=1e-6).solution.T @ deviations
        torch.testing.assert_close(kept[c], expected, atol=1e-6, rtol=1e-5)


def test_a_sampled_set_has_the_variance_of_its_class():
    """From the images to the last step, which goes all the way: where means of the class's parts differ, the set has
    the variance of the class, of which bare means fall short."""
    prior, source = load_prior("digits"), open_source("digits")
    statistics = fit_statistics(source, prior, StatisticsConfig(k=10), cache=False)
    latents = encode_source(source, prior, workers=0, cache=False)
    for keep, least, most in ((True, 0.999, 1.001), (False, 0.3, 0.9)):
        kept = {"match_covariance": keep, "match_features": False, "keep_detail": False}
        method = replace(METHODS["dmgd"](), steps=12, rho=1.0, **kept)
        plan = make_plan(DistillConfig(ipc=5, method=method), source.spec, prior, statistics)
        made, _ = sample_batch(Batch(range(3, 5), range(5)), plan, prior, statistics, [])
        for c, images in zip((3, 4), made.reshape(2, 5, -1).double().numpy(), strict=True):
            own = latents[c].rows.astype(np.float64)
            offsets = images - own.mean(0)
            within = np.linalg.svd(offsets)[2][:4]
            ratio = ((offsets @ within.T) ** 2).mean(0).sum() / (((own - own.mean(0)) @ within.T) ** 2).mean(0).sum()
            assert least < ratio < most, (keep, c, ratio)


def test_images_keep_their_detail_where_latents_are_not_pixels():
    """A perfect prior of a class without structure, Gaussian in 256 dimensions, whose guided latents are to vary as its
    plain samples do. Half of the way to a mean of their part leaves a quarter of the variance: a picture of 16×16
    pixels, but fog in the latents of one of 128×128."""
    images = torch.randn(400, 256, generator=torch.Generator().manual_seed(0))
    support, mass = quantize(images.numpy(), 10, seed=0)
    residual = float(torch.cdist(images, torch.from_numpy(support)).min(1).values.square().mean())
    schedule, none = respaced(training_alpha_bar()), Condition({"label": torch.zeros(5, 1)})

    def made(method, pixels):
        statistics = Statistics(
            support=torch.from_numpy(support)[None],
            mass=torch.from_numpy(mass).float()[None],
            covariance=torch.from_numpy(covariance_along(support, mass, images.numpy()))[None],
            features=torch.empty(1, 0, 0),
            count=torch.tensor([400]),
            classes=(ClassInfo("noise", None, 0),),
            header={"encoder": {"pixels": pixels}, "quality": {"w2": [residual]}},
        )
        method = replace(method, semantic=False).settled(schedule, statistics, 5)
        latents, _ = sample(
            lambda z, step, condition: (step.alpha * z, None),  # x̂_0 of z_t, as x_0 and ε are standard normal
            schedule,
            SeededNoise(range(5), (1, 16, 16)),
            lambda step: (none, none),
            method.guide(statistics, torch.zeros(1, 0, 256), range(5)),
        )
        return latents.var().item(), method.window

    plain, _ = made(DMGD(distribution=False), pixels=False)
    of_pixels, whole_window = made(DMGD(match_features=False), pixels=True)
    of_latents, window = made(DMGD(match_features=False), pixels=False)
    assert of_pixels < 0.5 * plain
    assert whole_window[0] == 0
    assert of_latents > 0.95 * plain
    # σ/α at the last guided step hides the deviation of an image from its support point; one step later it does not.
    noise = [schedule[k].sigma / schedule[k].alpha for k in (window[0], window[0] - 1)]
    assert noise[1] < (residual / 256) ** 0.5 <= noise[0]


def test_a_single_image_is_guided_to_the_mean_at_the_norm_of_an_image(points):
    """Only with an autoencoder's latents, and only until the modes are as strong as the noise."""
    _, support, mass = points
    support = support * 5
    images = torch.cat([support + 1, support - 1], dim=1)  # each support point represents two images
    w2 = [5.0, 5.0]  # each 1 away from it in five dimensions
    statistics = Statistics(
        support=support,
        mass=mass,
        covariance=torch.zeros(2, 6, 6, dtype=torch.float64),
        features=torch.empty(2, 0, 0),
        count=torch.tensor([12, 12]),
        classes=(ClassInfo("a"), ClassInfo("b")),
        header={"encoder": {"pixels": False}, "quality": {"w2": w2}},
    )
    torch.testing.assert_close(statistics.norm, images.square().sum(2).mean(1).sqrt())
    schedule = respaced(training_alpha_bar())
    several, one = (DMGD().settled(schedule, statistics, ipc) for ipc in (2, 1))
    assert (several.match_norm, one.match_norm) == (False, True)
    of_pixels = DMGD(keep_detail=False).settled(schedule, statistics, 1)
    assert (of_pixels.match_norm, of_pixels.window) == (False, (0, several.window[1]))
    first, last = one.window
    assert last == 49
    signal = [schedule[k].alpha * statistics.within / 2 / schedule[k].sigma for k in (first, first + 1)]
    assert signal[0] >= 1 > signal[1]

    greedy = DMGD(order="greedy").settled(schedule, statistics, 1)  # the first of what may become more
    assert (greedy.match_norm, greedy.window) == (False, several.window)

    x0 = torch.randn(1, 5)
    moved, _ = one.guide(statistics.of_classes(slice(1, 2), x0.device), support[1:, :0], [0])(schedule[last], x0, x0)
    mean = support[1].mean(0)
    torch.testing.assert_close(moved[0], x0[0] + 0.5 * (statistics.norm[1] * mean / mean.norm() - x0[0]))


def test_labels_are_plain_at_last_however_near_the_classes_are():
    """The only class has no other to be soft towards: soft to the end, it would not be conditioned at all."""
    schedule = respaced(training_alpha_bar())

    def settled(between):
        known = SimpleNamespace(between=between, within=3.0, of_pixels=True, blurs=False)
        return DMGD().settled(schedule, known, 5)

    from dmgd.matching.soft_labels import paper_certainty

    refine_until, explore_from = settled(0.0).stages
    assert all(paper_certainty(step.index, explore_from, refine_until) == 1 for step in schedule)
    near = settled(1e-3)
    assert schedule[near.stages[0]].sigma >= 0.5 * schedule[near.stages[0]].alpha
    assert schedule[near.stages[0] - 1].sigma < 0.5 * schedule[near.stages[0] - 1].alpha
    assert settled(4.0).stages[0] > near.stages[0]


def test_the_speciation_step_is_where_two_points_are_distinguishable():
    alpha_bar = [step.alpha_bar for step in respaced(training_alpha_bar())]
    for deviations in (VISIBLE, CLEAR):
        for distance in (2.0, 20.0):
            k = speciation_step(alpha_bar, distance, deviations)
            visible = [a**0.5 * distance / 2 / (1 - a) ** 0.5 >= deviations for a in alpha_bar]
            assert visible == [i <= k for i in range(50)]
    assert (
        speciation_step(alpha_bar, 20.0, VISIBLE)
        > speciation_step(alpha_bar, 2.0, VISIBLE)
        > speciation_step(alpha_bar, 2.0, CLEAR)
    )
    assert speciation_step(alpha_bar, 0.0, VISIBLE) == 0


def test_joint_matching_does_not_depend_on_how_many_images_the_network_sees_at_a_time():
    prior = load_prior("digits")
    statistics = fit_statistics(open_source("digits"), prior, StatisticsConfig(k=6), cache=False)
    method = replace(METHODS["dmgd"](), steps=12)
    assert method.settled(prior.schedule(12, "ddpm"), statistics, 7).window[1] in range(3, 9)

    def latents(batch_size):
        config = DistillConfig(ipc=7, method=method, batch_size=batch_size)
        plan = make_plan(config, SourceSpec("digits"), prior, statistics)
        assert all(batch.images == range(7) for batch in plan.batches)
        return torch.cat([sample_batch(batch, plan, prior, statistics, [])[0] for batch in plan.batches])

    whole, parts = latents(70), latents(3)
    assert ((whole - parts).flatten(1).norm(dim=1) / whole.flatten(1).norm(dim=1)).max().item() < 1e-4


def test_libraries_that_nothing_here_uses_stay_unloaded(tmp_path):
    """POT loads every array library that it finds, and JAX may then take three quarters of a GPU's memory."""
    for name in ("jax", "cupy", "tensorflow"):
        (tmp_path / f"{name}.py").write_text("")
    asked = f"""
import os, sys
sys.path.insert(0, {str(tmp_path)!r})
import dmgd.evaluation.metrics, dmgd.matching.barycentric, dmgd.matching.sinkhorn
print([*{{"jax", "cupy", "tensorflow"}} & set(sys.modules)], [one for one in os.environ.items() if one[0][:3] == "POT"])
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POT_")}
    environment["POT_BACKEND_DISABLE_CUPY"] = "mine"
    found = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout == "[] [('POT_BACKEND_DISABLE_CUPY', 'mine')]\n"
