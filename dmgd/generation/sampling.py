"""How the images of one batch are sampled."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dmgd.classes.info import ClassInfo
from dmgd.diffusion.noise import SeededNoise
from dmgd.diffusion.sampler import Denoiser, sample
from dmgd.generation.batches import Unit
from dmgd.generation.micro_batches import in_portions
from dmgd.generation.plan import Plan
from dmgd.matching.methods import (
    BarycentricShift,
    TransportShift,
    draws_uniform,
    make_condition,
    make_shift,
)
from dmgd.priors.prior import Prior
from dmgd.statistics.file import Statistics


def sample_unit(
    unit: Unit,
    plan: Plan,
    prior: Prior,
    statistics: Statistics,
    frozen: Sequence[Tensor],
    denoise: Denoiser | None = None,
) -> tuple[Tensor, list[dict[str, Any]]]:
    """The latents of a unit's images, in batch order, and what the run keeps of each beside them.

    `frozen` are the latents (c, n, d) of the finished images of the unit's classes, which greedy matching matches the
    new ones with. `denoise` is the prior's network, by default in portions of the plan's batch size. A pure
    function of its arguments: every image has its own noise, from its own seed.
    """
    device = prior.device
    method, schedule, classes = plan.method, plan.schedule, plan.classes
    infos = [classes[c] for c, _ in unit.cells()]
    seeds = [image_seed(plan.config.seed, info, i) for info, (_, i) in zip(infos, unit.cells(), strict=True)]
    others = [other_class(seed, c, len(classes)) for seed, (c, _) in zip(seeds, unit.cells(), strict=True)]

    # Semantic matching: what the network is told.
    condition = make_condition(
        method,
        schedule,
        label=prior.label_embedding([row_of(info) for info in infos]),
        null_label=prior.null_embedding(len(unit)),
        other=prior.label_embedding([row_of(classes[o]) for o in others]),
        noise=label_noise(seeds, prior, uniform=draws_uniform(method)),
    )
    # Distribution matching: how the mean is moved.
    known = statistics.of_classes(slice(unit.classes[0], unit.classes[-1] + 1), device)
    finished = torch.cat([known.support[:, :0], *frozen], dim=1)
    shift = make_shift(method, schedule, known, finished, list(unit.images))

    latents = sample(
        denoise or in_portions(prior.predict, plan.batch_size),
        schedule,
        SeededNoise(seeds, prior.latent_shape, device),
        condition,
        shift,
        plan.guidance,
    )
    costs = transport_costs(shift, unit)
    with_soft_labels = method.semantic != "none"
    notes = [
        {"seed": seed, "other_class": other if with_soft_labels else None, "ot_cost": cost}
        for seed, other, cost in zip(seeds, others, costs, strict=True)
    ]
    return latents, notes


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


def label_noise(seeds: Sequence[int], prior: Prior, *, uniform: bool):
    """The noise of the label embeddings, with one generator per image apart from that of the latents."""
    generators = [torch.Generator().manual_seed(_hashed(f"{seed}/label noise")) for seed in seeds]
    shape = (2, *prior.null_embedding(1).shape[1:])
    draw = torch.rand if uniform else torch.randn
    return lambda k: torch.stack([draw(shape, generator=g) for g in generators]).to(prior.device)


def transport_costs(shift: Any, unit: Unit) -> list[float | None]:
    """The last L_OT seen by each image's class, or None without optimal transport."""
    if not isinstance(shift, TransportShift | BarycentricShift) or not shift.losses:
        return [None] * len(unit)
    last = shift.losses[min(shift.losses)].tolist()
    return [round(loss, 6) for loss in last for _ in unit.images]


def row_of(info: ClassInfo) -> int:
    """The class's row in the prior's label table, which matching the classes has found."""
    assert info.prior_index is not None
    return info.prior_index
