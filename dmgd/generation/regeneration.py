"""Some images of a run, regenerated to be compared with the stored ones."""

from collections.abc import Callable, Iterator

from numpy import ndarray
from torch import Tensor

from dmgd.generation.batches import Batch
from dmgd.generation.micro_batches import decode
from dmgd.generation.plan import Plan
from dmgd.generation.sampling import sample_batch
from dmgd.priors.prior import Prior
from dmgd.statistics.file import Statistics

StoredLatents = Callable[[Batch], Tensor | None]
"""The stored latents of a batch in batch order, or None where there are none."""


def spread(num_classes: int, ipc: int, count: int) -> list[tuple[int, int]]:
    """(class index, image index) of `count` different images, spread over classes and images; at most all."""
    count = min(count, num_classes * ipc)
    if count < num_classes:
        return [(k * num_classes // count, k % ipc) for k in range(count)]
    return sorted((k % num_classes, (k // num_classes + k % num_classes) % ipc) for k in range(count))


def regenerate(
    indices: list[tuple[int, int]],
    plan: Plan,
    prior: Prior,
    statistics: Statistics,
    stored_latents: StoredLatents = lambda batch: None,
) -> Iterator[tuple[int, int, ndarray]]:
    """(class index, image index, uint8 pixels (h, w, c)) of the images `indices`, sampled again by the run's own plan.

    Greedy matching needs the latents of the images before: the stored ones, or else they are regenerated, too.
    """
    made: dict[str, Tensor] = {}
    prior.prepare(plan.classes)

    def before(batch: Batch) -> list[Tensor]:
        """The latents (c, n, d) of the earlier images of the batch's classes."""
        if plan.method.matching_order != "greedy":
            return []
        earlier = [u for u in plan.batches if u.classes == batch.classes and u.images[0] < batch.images[0]]
        return [latents(u).reshape(len(u.classes), len(u.images), -1) for u in earlier]

    def latents(batch: Batch) -> Tensor:
        stored = stored_latents(batch)
        return stored.to(prior.device) if stored is not None else sampled(batch)

    def sampled(batch: Batch) -> Tensor:
        if batch.name not in made:
            made[batch.name] = sample_batch(batch, plan, prior, statistics, before(batch))[0]
        return made[batch.name]

    for batch in plan.batches:
        if wanted := [(row, index) for row, index in enumerate(batch.indices()) if index in indices]:
            pixels = decode(prior, sampled(batch)).numpy()
            yield from ((*index, pixels[row]) for row, index in wanted)
