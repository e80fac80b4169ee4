"""Semantic and distribution matching: against slow reference implementations, and by their properties."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dmgd.diffusion.condition import Condition
from dmgd.diffusion.schedule import respaced, training_alpha_bar
from dmgd.errors import DmgdError
from dmgd.matching.methods import DMGD, DMGDPaper
from dmgd.matching.sinkhorn import loss_and_gradient, sphere_cost, transport_loss, transport_plan
from dmgd.matching.soft_labels import (
    null_soft_labels,
    paper_certainty,
    paper_label,
    released_certainty,
    released_pair,
    released_soft_labels,
)
from dmgd.statistics.kmeans import quantize

SEEDS = st.integers(0, 2**32 - 1)


def problem(seed, classes=2, images=3, points=4, dimension=8):
    """Random latents, support points and masses in float64."""
    g = torch.Generator().manual_seed(seed)
    latents = torch.randn(classes, images, dimension, generator=g, dtype=torch.float64)
    support = torch.randn(classes, points, dimension, generator=g, dtype=torch.float64)
    mass = torch.rand(classes, points, generator=g, dtype=torch.float64) + 0.05
    return latents, support, mass / mass.sum(1, keepdim=True)


def plain_plan(cost, mass, epsilon, iterations):
    """The unrolled loop for one class: rows to 1/n, then columns to the masses."""
    plan = torch.exp(-cost / epsilon)
    for _ in range(iterations):
        plan = plan * (1 / len(cost) / plan.sum(1))[:, None]
        plan = plan * (mass / plan.sum(0))[None]
    return plan


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.05, 0.1, 1.0]))
def test_batched_plan_equals_the_plain_loop(seed, images, points, epsilon):
    latents, support, mass = problem(seed, images=images, points=points)
    latents.requires_grad_()
    cost = sphere_cost(latents, support)
    plan = transport_plan(cost, mass, epsilon=epsilon, iterations=5)
    expected = torch.stack([plain_plan(c, m, epsilon, 5) for c, m in zip(cost, mass, strict=True)])
    torch.testing.assert_close(plan, expected, rtol=1e-9, atol=1e-12)
    (found,) = torch.autograd.grad((plan * cost).sum(), latents, retain_graph=True)
    (wanted,) = torch.autograd.grad((expected * cost).sum(), latents)
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-10)


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.integers(1, 5))
def test_marginals(seed, images):
    """Columns are exact after any number of iterations, rows in the limit."""
    latents, support, mass = problem(seed, images=images)
    cost = sphere_cost(latents, support)
    plan = transport_plan(cost, mass, epsilon=0.1, iterations=5)
    torch.testing.assert_close(plan.sum(1), mass, rtol=1e-9, atol=0)
    plan = transport_plan(cost, mass, epsilon=0.5, iterations=500)
    torch.testing.assert_close(plan.sum(2), torch.full((2, images), 1 / images, dtype=torch.float64), rtol=1e-6, atol=0)


def test_greedy_gradient_is_the_gradient_of_the_whole_loss():
    """Finished images keep their costs: the gradient reaches the new image alone, and is that of the joint problem."""
    latents, support, mass = problem(1, images=4)
    finished, new = latents[:, :3], latents[:, 3:].clone().requires_grad_()
    loss = transport_loss(sphere_cost(torch.cat([finished, new], 1), support), mass, epsilon=0.1, iterations=5)
    (expected,) = torch.autograd.grad(loss.sum(), new)
    found_loss, found = loss_and_gradient(new, support, mass, sphere_cost(finished, support), epsilon=0.1, iterations=5)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found_loss, loss.detach())


def degenerate(kind):
    latents, support, mass = problem(2)
    if kind == "zero latents":
        latents[:] = 0
    elif kind == "identical images":
        latents[:] = latents[:, :1].clone()
    elif kind == "image on a support point":
        latents[:, 0] = support[:, 0]
    elif kind == "points without mass":
        mass[:, 2:], support[:, 2:] = 0, 0
        mass = mass / mass.sum(1, keepdim=True)
    return latents.float(), support.float(), mass.float()


@pytest.mark.parametrize(
    "kind", ["zero latents", "identical images", "image on a support point", "points without mass"]
)
def test_degenerate_problems_stay_finite(kind):
    latents, support, mass = degenerate(kind)
    loss, gradient = loss_and_gradient(
        latents, support, mass, sphere_cost(latents[:, :0], support), epsilon=0.1, iterations=5
    )
    assert loss.isfinite().all()
    assert gradient.isfinite().all()
    if kind == "points without mass":
        plan = transport_plan(sphere_cost(latents, support), mass, epsilon=0.1, iterations=5)
        assert plan[:, :, 2:].max() < 1e-30
        alone, _ = loss_and_gradient(
            latents, support[:, :2], mass[:, :2], sphere_cost(latents[:, :0], support[:, :2]), epsilon=0.1, iterations=5
        )
        torch.testing.assert_close(loss, alone)


@settings(deadline=None, max_examples=30)
@given(
    arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 3)), elements=st.integers(-3, 3).map(float)),
    st.integers(1, 15),
)
def test_support_points_carry_the_whole_mass(latents, num_points):
    """Any class, even smaller than K or of equal images: masses sum to 1 and the mean is kept."""
    support, mass = quantize(latents, num_points, seed=0)
    assert support.shape == (num_points, latents.shape[1])
    assert mass.sum() == pytest.approx(1)
    assert (np.diff(mass) <= 0).all()
    assert (mass > 0).sum() <= min(num_points, len(np.unique(latents, axis=0)))
    np.testing.assert_allclose(mass @ support, latents.mean(0), atol=1e-5)


def test_k_means_refuses_latents_without_a_mean():
    latents = np.zeros((4, 2), np.float32)
    latents[2, 1] = np.nan
    with pytest.raises(DmgdError, match="NaN"):
        quantize(latents, 2, seed=0)
    with pytest.raises(DmgdError, match="without images"):
        quantize(latents[:0], 2, seed=0)


@settings(deadline=None)
@given(st.integers(0, 49))
def test_stages(k):
    certainty = paper_certainty(k, explore_from=45, refine_until=25)
    assert certainty == (0 if k >= 45 else 1 if k <= 25 else (45 - k) / 20)


def test_paper_label_by_hand():
    f, other, noise = torch.ones(1, 1, 2), torch.full((1, 1, 2), 2.0), torch.tensor([[[1.0, -1.0]]])
    soft = paper_label(f, other, noise, 0.25, beta_s=0.01, beta_n=0.06)
    torch.testing.assert_close(soft, torch.tensor([[[0.5 + 0.5 * 0.08, 0.5 - 0.5 * 0.04]]]))
    assert torch.equal(paper_label(f, other, noise, 1.0, beta_s=0.01, beta_n=0.06), f)


def test_labels_of_the_default_are_annealed_from_no_class_to_the_class():
    """By hand, with the certainties 0, ¼ and 1; what no class is, a prior with guidance has learned."""
    own, null, other = (
        Condition({"a": torch.randn(2, 1, 3)}, {"mask": torch.full((2, 1), mask)}) for mask in (1, 0, 2)
    )
    drawn = own.blend(lambda embedding: torch.randn(2, 2, 1, 3)).embeddings["a"]
    conditions = null_soft_labels(
        own, null, other, lambda step: Condition({"a": drawn}), stages=(4, 8), beta_s=0.01, beta_n=0.06
    )
    schedule = respaced(training_alpha_bar(), 10)
    label, nothing, another = (one.embeddings["a"] for one in (own, null, other))
    for step, share in ((schedule[8], 0.0), (schedule[7], 0.5), (schedule[4], 1.0)):
        soft, none = conditions(step)
        assert none is null
        vague = (1 - share) * (0.01 * (another - nothing) + 0.06 * drawn[:, 0])
        torch.testing.assert_close(soft.embeddings["a"], nothing + share * (label - nothing) + vague)
        assert soft.fixed["mask"].unique().item() == (1 if share == 1 else 2)
    assert conditions(schedule[4])[0] is own
    for method, begins in ((DMGD, nothing), (DMGDPaper, torch.zeros_like(nothing))):
        vague = method(beta_n=0.0, beta_s=0.0, stages=(4, 8)).conditions(
            own, null, other, lambda step: own.blend(lambda embedding: torch.zeros(2, 2, 1, 3))
        )
        torch.testing.assert_close(vague(schedule[8])[0].embeddings["a"], begins)


def test_a_blend_has_the_mask_of_all_that_it_is_made_of():
    """The conditional and the null row, which the released code blends, too; plain ones keep their own."""
    own, null, other = (
        Condition({"a": torch.randn(2, 3), "b": torch.randn(2, 1, 4)}, {"mask": torch.full((2, 1), value)})
        for value in (1, 0, 2)
    )
    drawn = own.blend(lambda embedding: torch.rand(2, 2, *embedding.shape[1:]))
    conditions = released_soft_labels(own, null, other, lambda step: drawn, stages=(500, 900), beta_s=0.1, beta_n=0.2)
    for step in respaced(training_alpha_bar(), 10):
        found, nothing = conditions(step)
        masks = found.fixed["mask"].unique().item(), nothing.fixed["mask"].unique().item()
        assert masks == ((1, 0) if step.timestep < 500 else (2, 2))
        for before, after in ((own, found), (null, nothing)):
            same = [torch.equal(before.embeddings[name], after.embeddings[name]) for name in ("a", "b")]
            assert same == [step.timestep < 500] * 2
    both = Condition.cat(own, null)
    parts = both.tensor_split(3)
    assert [len(part) for part in parts] == [2, 1, 1]
    assert torch.cat([part.fixed["mask"] for part in parts]).flatten().tolist() == [1, 1, 0, 0]


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.integers(500, 999))
def test_released_pair_keeps_its_moments(seed, t):
    g = torch.Generator().manual_seed(seed)
    pair, noise = torch.randn(3, 2, 1, 16, generator=g), torch.rand(3, 2, 1, 16, generator=g)
    other = torch.randn(3, 1, 16, generator=g)
    blend = released_pair(pair, other, noise, t, beta_s=0.01, beta_n=0.06)
    torch.testing.assert_close(blend.mean((1, 2, 3)), pair.mean((1, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(blend.std((1, 2, 3)), pair.std((1, 2, 3)), rtol=1e-4, atol=1e-5)
    assert released_certainty(t) == (0 if t > 900 else (900 - t) / 400)
    if t > 900:  # nothing of the label is left
        same = released_pair(pair, other * 0, noise, t, beta_s=0.01, beta_n=0.06)
        torch.testing.assert_close(blend, same)
