"""The sampler against a plain loop, and batches against single classes."""

from dataclasses import replace

import pytest
import torch
from diffusers import DDPMScheduler, DiTTransformer2DModel
from made_run import rows

from dmgd.config import StatisticsConfig
from dmgd.diffusion.condition import Condition
from dmgd.diffusion.guidance import Guidance
from dmgd.diffusion.noise import RecordedNoise, SeededNoise
from dmgd.diffusion.sampler import sample
from dmgd.diffusion.schedule import respaced, training_alpha_bar
from dmgd.errors import DmgdError
from dmgd.generation.batches import Batch, batches_of
from dmgd.generation.config import DistillConfig
from dmgd.generation.plan import make_plan
from dmgd.generation.sampling import sample_batch
from dmgd.matching.method import Sampled
from dmgd.matching.methods import METHODS, method_named
from dmgd.priors.load import load_prior
from dmgd.sources.open import open_source
from dmgd.specs import SourceSpec
from dmgd.workflows.fit_stats import fit_statistics


@pytest.fixture(scope="module")
def prior():
    return load_prior("digits")


@pytest.fixture(scope="module")
def statistics(prior):
    return fit_statistics(open_source("digits"), prior, StatisticsConfig(k=6), cache=False)


def planned(config, prior, statistics):
    return make_plan(config, SourceSpec("digits"), prior, statistics)


def test_plain_dit_equals_a_plain_loop_over_diffusers(golden):
    """`dit` without matching is classifier-free guided DDPM as one writes it with diffusers' parts."""
    prior = load_prior(str(golden / "dit-tiny-diffusers"), vae="none")
    model = DiTTransformer2DModel.from_pretrained(golden / "dit-tiny-diffusers", low_cpu_mem_usage=False).eval()
    for block in model.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    scheduler = DDPMScheduler(timestep_spacing="linspace", variance_type="learned_range", clip_sample=False)
    scheduler.set_timesteps(50)
    seeds, classes = [11, 12, 13], [3, 7, 1]

    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    z = torch.stack([torch.randn(4, 8, 8, generator=g) for g in generators])
    labels = torch.tensor([*classes, 10, 10, 10])
    for t in scheduler.timesteps:
        with torch.no_grad():
            conditional, null = model(torch.cat([z, z]), timestep=t.expand(6), class_labels=labels).sample.chunk(2)
        guided = null[:, :4] + 4 * (conditional[:, :4] - null[:, :4])
        output = torch.cat([guided, conditional[:, 4:]], dim=1)
        z = scheduler.step(output, t, z, generator=generators).prev_sample

    pair = prior.condition(rows(*classes)), prior.null_condition(3)
    noise = SeededNoise(seeds, prior.latent_shape)
    found, _ = sample(prior.denoise, prior.schedule(50, "ddpm"), noise, lambda step: pair, guidance=Guidance(4.0))
    assert ((found - z).norm() / z.norm()).item() < 1e-5


@pytest.mark.parametrize("method", [name for name, kind in METHODS.items() if issubclass(kind, Sampled)])
def test_classes_in_one_batch_equal_classes_alone(prior, statistics, method):
    settings = method_named(method, steps=15)
    config = DistillConfig(ipc=2, method=settings)

    def run(classes, size):
        plan = planned(replace(config, batch_size=size), prior, statistics)
        latents, frozen = {}, {}
        for batch in plan.batches:
            if not set(batch.classes) <= set(classes):
                continue
            before = frozen.get(batch.classes, []) if settings.matching_order == "greedy" else []
            found, _ = sample_batch(batch, plan, prior, statistics, before)
            frozen[batch.classes] = [*before, found.reshape(len(batch.classes), len(batch.images), -1)]
            latents |= dict(zip(batch.indices(), found, strict=True))
        return latents

    together = run(range(10), size=100)
    alone = run((0, 4, 9), size=1 if settings.matching_order == "greedy" else 2)
    assert alone
    for index, latent in alone.items():
        assert ((latent - together[index]).norm() / latent.norm()).item() < 1e-5, index


def test_a_greedy_run_begins_the_longer_run():
    short = batches_of(10, DistillConfig(ipc=3, batch_size=4, method=METHODS["dmgd-paper"]()))
    long = batches_of(10, DistillConfig(ipc=9, batch_size=4, method=METHODS["dmgd-paper"]()))
    assert set(short) < set(long)
    for config in (DistillConfig(ipc=7, batch_size=4, method=METHODS["dit"]()), DistillConfig(ipc=2, batch_size=100)):
        indices = [index for batch in batches_of(10, config) for index in batch.indices()]
        assert sorted(indices) == [(c, i) for c in range(10) for i in range(config.ipc)]
        assert all(len(batch) <= config.batch_size for batch in batches_of(10, config))


def test_guidance_of_some_channels_and_of_none():
    """Channels that are not guided, and everything at scale 1, are the conditional row's own."""

    def denoise(z, step, condition):
        rows = torch.ones_like(z) * condition.embeddings["label"][:, :, None, None]
        return rows, rows

    z, step = torch.zeros(1, 4, 2, 2), respaced(training_alpha_bar())[0]
    label, null = (Condition({"label": torch.full((1, 1), value)}) for value in (3.0, 1.0))
    x0, log_variance = Guidance(4.0, 3).denoised(denoise, z, step, label, null)
    assert x0[0, :, 0, 0].tolist() == [9, 9, 9, 3]
    assert log_variance[0, :, 0, 0].tolist() == [3, 3, 3, 3]
    assert Guidance(1.0, 3).denoised(denoise, z, step, label, null)[0].unique().tolist() == [3]


def test_outside_the_guidance_interval_the_null_rows_are_skipped(prior):
    """Rows that the network sees at every step, and the same result as with a scale of 1 there."""
    pair, calls = (prior.condition(rows(5, 2)), prior.null_condition(2)), []

    def denoise(z, step, condition):
        calls.append(len(z))
        return prior.denoise(z, step, condition)

    def sampled(interval=None):
        return sample(
            denoise,
            respaced(training_alpha_bar(), 10),
            SeededNoise([1, 2], prior.latent_shape),
            lambda step: pair,
            guidance=Guidance(3.0, interval=interval),
        )[0]

    within = sampled((3, 5))
    assert calls == [2, 2, 2, 2, 4, 4, 4, 2, 2, 2]
    torch.testing.assert_close(sampled((0, 9)), sampled())
    assert (within - sampled()).abs().max() > 1e-2


def test_a_solver_of_second_order_sees_the_guided_prediction(prior):
    """If a guide keeps the clean latent constant, nothing changes from step to step, and both orders agree."""
    label, target, ways = prior.condition(rows(5)), torch.rand(1, *prior.latent_shape), []
    for schedule in (respaced(training_alpha_bar(), 12), respaced(training_alpha_bar(), 12, "dpm++")):
        way: list[torch.Tensor] = []

        def guide(step, x0, sigma):
            return target, None

        def observe(step, x0, z, cost, way=way):
            way.append(z)

        noise = SeededNoise([7], prior.latent_shape)
        sample(prior.denoise, schedule, noise, lambda step: (label, label), guide, observe=observe)
        ways.append(torch.stack(way))
    torch.testing.assert_close(*ways)
    torch.testing.assert_close(ways[0][-1], target)


def test_a_guide_that_ends_leaves_no_trend_to_the_second_order():
    """A prediction that never changes, moved at some steps: both orders take the same way."""
    target, condition, ways = torch.rand(1, 1, 4, 4), Condition({"label": torch.zeros(1, 1)}), []
    for solver in ("ddpm", "dpm++"):
        way: list[torch.Tensor] = []
        sample(
            lambda z, step, condition: (target, None),
            respaced(training_alpha_bar(), 12, solver),
            SeededNoise([7], (1, 4, 4)),
            lambda step: (condition, condition),
            lambda step, x0, sigma: (x0 + 1, None) if 4 <= step.index <= 7 else (x0, None),
            observe=lambda step, x0, z, cost, way=way: way.append(z),
        )
        ways.append(torch.stack(way))
    torch.testing.assert_close(*ways)


@pytest.mark.parametrize("change", [lambda x: x * float("nan"), lambda x: x[:1], lambda x: x.mean()])
def test_a_guide_that_gives_something_else_is_refused(prior, change):
    pair, schedule = (prior.condition(rows(5, 2)),) * 2, prior.schedule(3, "ddpm")
    noise = SeededNoise([7, 8], prior.latent_shape)
    with pytest.raises(DmgdError, match="the guide gave NaN, infinite values or another shape at step 0"):
        sample(
            prior.denoise,
            schedule,
            noise,
            lambda step: pair,
            lambda step, x0, sigma: (change(x0) if step.index == 0 else x0, None),
        )


@pytest.mark.parametrize("method", ["dit", "dmgd"])
def test_nan_values_of_the_network_are_an_error(prior, statistics, method):
    """Halfway through sampling, as when half precision overflows."""
    plan, calls = planned(DistillConfig(ipc=2, method=METHODS[method]()), prior, statistics), iter(range(50))

    def denoise(z, step, condition):
        x0, log_variance = prior.denoise(z, step, condition)
        return x0 * (float("inf") if next(calls) == 30 else 1), log_variance

    with pytest.raises(DmgdError, match=r"infinite values at step 19; .* precision fp32"):
        sample_batch(Batch(range(1), range(2)), plan, prior, statistics, [], denoise)


BF16_BOUND = 0.1


@pytest.mark.parametrize("method", ["dit", "dmgd"])
def test_half_precision_stays_within_its_bound(prior, statistics, method):
    """The final latents in bf16: the network's rounding, carried through all fifty steps."""
    half = load_prior("digits", precision="bf16")
    config = DistillConfig(ipc=2, method=METHODS[method](), batch_size=20)
    plan = planned(config, prior, statistics)
    (batch,) = plan.batches
    exact, found = (sample_batch(batch, plan, one, statistics, [])[0] for one in (prior, half))
    distance = (found - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    assert 0 < distance.mean().item() < BF16_BOUND


def test_recorded_noise_is_what_is_sampled_from(prior):
    pair, schedule = (prior.condition(rows(5)),) * 2, prior.schedule(50, "ddpm")
    recorded = SeededNoise([7], prior.latent_shape)
    start = recorded.start()
    steps = {k: recorded.step(k) for k in range(49, 0, -1)}
    steps = torch.stack([steps.get(k, torch.zeros(1, 1, 8, 8)) for k in range(50)])
    one, _ = sample(prior.denoise, schedule, SeededNoise([7], prior.latent_shape), lambda step: pair)
    two, _ = sample(prior.denoise, schedule, RecordedNoise(start, steps), lambda step: pair)
    assert torch.equal(one, two)


def test_batch_names():
    assert Batch(range(3, 7), range(2, 3)).name == "c0003-0006.i00002-00002"
