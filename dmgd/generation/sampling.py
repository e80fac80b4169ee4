"""How the images of one batch are sampled."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dmgd.classes.info import ClassInfo
from dmgd.diffusion.condition import Condition
from dmgd.diffusion.guidance import Denoiser
from dmgd.diffusion.noise import SeededNoise
from dmgd.diffusion.sampler import Observer, sample, unobserved
from dmgd.diffusion.schedule import Step
from dmgd.generation.batches import Batch
from dmgd.generation.micro_batches import micro_batched
from dmgd.generation.plan import Plan
from dmgd.priors.prior import Prior
from dmgd.statistics.file import Statistics


def sample_batch(
    batch: Batch,
    plan: Plan,
    prior: Prior,
    statistics: Statistics,
    frozen: Sequence[Tensor],
    denoise: Denoiser | None = None,
    observe: Observer = unobserved,
) -> tuple[Tensor, list[dict[str, Any]]]:
    """The latents of a batch's images, in its order, and what the run records of each beside them.

    `statistics` are of all classes; see `sample_images`, which needs those of the batch's alone.
    """
    own = statistics.of_classes(slice(batch.classes[0], batch.classes[-1] + 1), prior.device)
    return sample_images(batch, plan, prior, own, frozen, denoise, observe)


def sample_images(
    batch: Batch,
    plan: Plan,
    prior: Prior,
    statistics: Statistics,
    frozen: Sequence[Tensor],
    denoise: Denoiser | None = None,
    observe: Observer = unobserved,
) -> tuple[Tensor, list[dict[str, Any]]]:
    """`sample_batch` by the `statistics` of the batch's classes.

    `frozen` are the latents (c, n, d) of the finished images of the batch's classes, which greedy matching matches the
    new ones with. `denoise` is the prior's, by default in micro-batches of the plan's batch size; `observe` sees
    every step. A pure function of its arguments: every image has its own noise, from its own seed.
    """
    method, classes, device = plan.sampled, plan.classes, prior.device
    infos = [classes[c] for c, _ in batch.indices()]
    seeds = [image_seed(plan.config.seed, info, i) for info, (_, i) in zip(infos, batch.indices(), strict=True)]
    others = [other_class(seed, c, len(classes)) for seed, (c, _) in zip(seeds, batch.indices(), strict=True)]

    # Semantic matching: the conditioning.
    labels, null = prior.condition(infos), prior.null_condition(len(batch))
    conditions = method.conditions(
        labels,
        null,
        prior.condition([classes[other] for other in others]),
        label_noise(seeds, labels, uniform=method.uniform_label_noise),
    )
    # Distribution matching: the guide.
    statistics = statistics.of_classes(slice(None), device)
    finished = torch.cat([statistics.support[:, :0], *frozen], dim=1)

    latents, cost = sample(
        denoise or micro_batched(prior.denoise, plan.batch_size),
        prior.schedule(plan.steps, plan.solver),
        SeededNoise(seeds, prior.latent_shape, device),
        conditions,
        method.guide(statistics, finished, list(batch.images)),
        plan.guidance,
        observe=observe,
    )
    costs = [None] * len(classes) if cost is None else [round(value, 6) for value in cost.tolist()]
    records = [
        {"seed": seed, "other_class": other if plan.has_soft_labels else None, "ot_cost": costs[c - batch.classes[0]]}
        for seed, other, (c, _) in zip(seeds, others, batch.indices(), strict=True)
    ]
    return latents, records


def image_seed(run_seed: int, info: ClassInfo, image_index: int) -> int:
    """The seed of one image, from the run's seed, the class's identity and the image's index in its class."""
    return _hashed(f"{run_seed}/{info.identity}/{image_index}")


def _hashed(text: str) -> int:
    """A seed of 48 bits, which JSON readers keep exactly."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def other_class(seed: int, class_index: int, num_classes: int) -> int:
    """y*: another class of the set, drawn once per image; the class itself if it is the only one."""
    if num_classes == 1:
        return class_index
    generator = torch.Generator().manual_seed(_hashed(f"{seed}/y*"))
    return (class_index + 1 + int(torch.randint(num_classes - 1, (1,), generator=generator))) % num_classes


def label_noise(seeds: Sequence[int], labels: Condition, *, uniform: bool) -> Callable[[Step], Condition]:
    """The noise of both embeddings, conditional and null, with one generator per image apart from the latents' own."""
    generators = [torch.Generator().manual_seed(_hashed(f"{seed}/label noise")) for seed in seeds]
    draw = torch.rand if uniform else torch.randn

    def drawn(embedding: Tensor) -> Tensor:
        return torch.stack([draw((2, *embedding.shape[1:]), generator=g) for g in generators]).to(embedding.device)

    return lambda step: labels.noise(drawn)
