"""Images of a run made again, a few of them, to be compared with the stored ones."""

from collections.abc import Callable, Iterator

from numpy import ndarray
from torch import Tensor

from dmgd.generation.batches import Unit
from dmgd.generation.micro_batches import decode
from dmgd.generation.plan import Plan
from dmgd.generation.sampling import sample_unit
from dmgd.priors.prior import Prior
from dmgd.statistics.file import Statistics

StoredLatents = Callable[[Unit], Tensor | None]
"""The stored latents of a unit in batch order, or None where there are none."""


def spread(num_classes: int, ipc: int, count: int) -> list[tuple[int, int]]:
    """(class index, image index) of `count` different images, spread over classes and images; at most all."""
    count = min(count, num_classes * ipc)
    if count < num_classes:
        return [(k * num_classes // count, k % ipc) for k in range(count)]
    return sorted((k % num_classes, (k // num_classes + k % num_classes) % ipc) for k in range(count))


def regenerate(
    cells: list[tuple[int, int]],
    plan: Plan,
    prior: Prior,
    statistics: Statistics,
    stored_latents: StoredLatents = lambda unit: None,
) -> Iterator[tuple[int, int, ndarray]]:
    """(class index, image index, uint8 pixels (h, w, c)) of the images `cells`, sampled again by the run's own plan.

    Greedy matching needs the latents of the images before: the stored ones, or else they are made again, too.
    """
    made: dict[str, Tensor] = {}

    def before(unit: Unit) -> list[Tensor]:
        """The latents (c, n, d) of the earlier images of the unit's classes."""
        if plan.method.order != "greedy":
            return []
        earlier = [u for u in plan.batches if u.classes == unit.classes and u.images[0] < unit.images[0]]
        return [latents(u).reshape(len(u.classes), len(u.images), -1) for u in earlier]

    def latents(unit: Unit) -> Tensor:
        stored = stored_latents(unit)
        return stored.to(prior.device) if stored is not None else sampled(unit)

    def sampled(unit: Unit) -> Tensor:
        if unit.name not in made:
            made[unit.name] = sample_unit(unit, plan, prior, statistics, before(unit))[0]
        return made[unit.name]

    for unit in plan.batches:
        if wanted := [(row, cell) for row, cell in enumerate(unit.cells()) if cell in cells]:
            pixels = decode(prior, sampled(unit)).numpy()
            yield from ((*cell, pixels[row]) for row, cell in wanted)
