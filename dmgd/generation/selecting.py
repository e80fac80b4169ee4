"""How the images of a run are chosen from the source, for a method that selects real ones."""

from collections.abc import Collection, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from numpy import ndarray

from dmgd.errors import UsageError
from dmgd.generation.batches import Batch
from dmgd.generation.plan import Plan
from dmgd.generation.sampling_work import MadeBatch
from dmgd.images import read_image, square_pixels
from dmgd.matching.selections import RDED, Selection
from dmgd.priors.prior import Prior
from dmgd.sources.source import Source, SourceImage
from dmgd.statistics.cache import Latents
from dmgd.statistics.file import Statistics
from dmgd.statistics.kmeans import class_seed

HELD_BYTES = 2**30  # of decoded images: for more, the source is read several times


def selected_batches(
    batches: Sequence[Batch], plan: Plan, source: Source, prior: Prior, latents: Latents
) -> Iterator[tuple[Batch, MadeBatch]]:
    """Each of the plan's `batches` with its images: real ones of the source, in the size and with the channels that the
    prior sees, and their `latents`. A record has the image's position in the training split, and its name there."""
    size = prior.image_size**2 * prior.image_channels
    waiting, most = iter(batches), max(1, HELD_BYTES // max(1, size * max(map(len, batches), default=1)))
    unreadable = {name for name, _ in latents.bad}
    while group := list(islice(waiting, most)):
        rows, found = dict[tuple[int, int], ndarray](), dict[tuple[int, int], int]()
        for c in sorted({c for batch in group for c in batch.classes}):
            own = latents[c]
            chosen = chosen_rows(plan, c, own.rows)
            for batch in group:
                if c in batch.classes:
                    rows |= {(c, i): own.rows[chosen[i]] for i in batch.images}
                    found |= {(c, i): int(own.ordinals[chosen[i]]) for i in batch.images}
        images = dict(_read(source, unreadable, found, prior))
        for batch in group:
            yield batch, _made(batch, plan, prior, rows, images)


def chosen_rows(plan: Plan, index: int, rows: ndarray) -> list[int]:
    """The rows of the latents (n, d) of class `index` that the method chooses, one for each of its images."""
    assert isinstance(plan.method, Selection)
    return plan.method.chosen(rows, plan.config.ipc, class_seed(plan.config.seed, plan.classes[index].identity))


def require_enough(plan: Plan, statistics: Statistics) -> None:
    """Raise UsageError if a class has fewer images than are to be chosen."""
    for info, count in zip(plan.classes, statistics.count.tolist(), strict=True):
        if count < plan.config.ipc:
            raise UsageError(
                f"the class {info.name} has {count} images, of which {plan.method.name} cannot choose "
                f"{plan.config.ipc}; take --ipc {count} or less"
            )
    if isinstance(plan.method, RDED) and plan.method.pool < plan.config.ipc:
        raise UsageError(
            f"{plan.method.name} keeps one crop of an image: of a pool of {plan.method.pool} it cannot choose "
            f"{plan.config.ipc}; take --pool {plan.config.ipc} or more"
        )


def numbered_images(source: Source, unreadable: Collection[str]) -> Iterator[tuple[int, int, SourceImage[int]]]:
    """(ordinal among the readable images, position, image) of those of the training split whose name is not one of the
    `unreadable`."""
    found = ((position, one) for position, one in enumerate(source.images("train")) if one.name not in unreadable)
    yield from ((ordinal, position, one) for ordinal, (position, one) in enumerate(found))


def _read(
    source: Source, unreadable: set[str], wanted: dict[tuple[int, int], int], prior: Prior
) -> Iterator[tuple[tuple[int, int], tuple[ndarray, int, str]]]:
    """The pixels of the wanted images, with their positions in the split and their names. What is wanted are ordinals
    among the readable images."""
    indices = {ordinal: index for index, ordinal in wanted.items()}
    for ordinal, position, one in numbered_images(source, unreadable):
        if ordinal in indices:
            pixels = square_pixels(read_image(one.image), prior.image_size, prior.image_channels)
            yield indices.pop(ordinal), (pixels, position, one.name)
        if not indices:
            return


def _made(
    batch: Batch,
    plan: Plan,
    prior: Prior,
    rows: dict[tuple[int, int], ndarray],
    images: dict[tuple[int, int], tuple[ndarray, int, str]],
) -> MadeBatch:
    indices, classes = batch.indices(), plan.classes
    latents = torch.from_numpy(np.stack([rows[index] for index in indices])).reshape(-1, *prior.latent_shape)
    records = [
        {
            "seed": class_seed(plan.config.seed, classes[c].identity),
            "other_class": None,
            "ot_cost": None,
            "source_index": images[c, i][1],
            "source_name": images[c, i][2],
        }
        for c, i in indices
    ]
    return MadeBatch(latents, np.stack([images[index][0] for index in indices]), records)
