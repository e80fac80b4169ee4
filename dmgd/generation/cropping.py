"""How crops of real images are chosen for a run by RDED: of a pool of images of each class, those that a teacher knows
best. The crops are random ones of the original images, square, and judged in the size in which the run stores them.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from PIL import Image

from dmgd.errors import DmgdError, MismatchError
from dmgd.generation.batches import Batch
from dmgd.generation.plan import Plan
from dmgd.generation.sampling_work import MadeBatch
from dmgd.generation.selecting import HELD_BYTES, numbered_images
from dmgd.images import read_image, square_pixels
from dmgd.matching.selections import RDED
from dmgd.priors.prior import Prior
from dmgd.progress import Task
from dmgd.sources.source import Source
from dmgd.statistics.cache import Latents
from dmgd.statistics.kmeans import class_seed

SMALLEST = 0.08  # of the area of the largest square
JUDGED, ENCODED = 64, 16  # crops in a call of the teacher, and of the encoder
NEAR_CHANCE = 1.2

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels of the upright image."""


@dataclass(frozen=True)
class Judge:
    """A teacher by its `name`, the `identity` that a plan records, and its `log_probabilities`: uint8 crops (b, h, w,
    c) → (b, k), by the classes of the run."""

    name: str
    identity: dict[str, Any]
    log_probabilities: Callable[[ndarray], ndarray]


@dataclass(frozen=True)
class Crop:
    """A crop `pixels` (h, w, c) of the image at `position` of the training split, called `name`."""

    position: int
    name: str
    box: Box
    pixels: ndarray


def box_of(size: tuple[int, int], drawn: Sequence[float]) -> Box:
    """The square in an image of `size` (width, height) for three numbers in [0, 1): its area, from SMALLEST of the
    largest square's to all of it, and where it is across and down."""
    area, across, down = drawn
    side = max(1, round(min(size) * (SMALLEST + (1 - SMALLEST) * area) ** 0.5))
    left, top = int(across * (size[0] - side + 1)), int(down * (size[1] - side + 1))
    return left, top, left + side, top + side


def crops_tried(plan: Plan, latents: Latents, classes: Collection[int]) -> int:
    """How many crops of these classes are judged."""
    assert isinstance(plan.method, RDED)
    return sum(min(plan.method.pool, latents.images(c)) for c in classes) * plan.method.crops


def cropped_batches(
    batches: Sequence[Batch], plan: Plan, source: Source, prior: Prior, latents: Latents, judge: Judge, task: Task
) -> Iterator[tuple[Batch, MadeBatch]]:
    """Each of the plan's `batches` with its crops, in the size and with the channels that the prior sees, and their
    latents; as soon as all crops of its classes are judged, which `task` counts. A record has the image's position in
    the training split, its name there, and the box. Raises DmgdError for a teacher that does not recognise them."""
    size = prior.image_size**2 * prior.image_channels
    waiting, most = iter(batches), max(1, HELD_BYTES // max(1, size * max(map(len, batches), default=1)))
    while group := list(islice(waiting, most)):
        best = _Best(plan, judge, {c for batch in group for c in batch.classes}, latents)
        for _ in best.judged(source, {name for name, _ in latents.bad}, prior, task):
            while group and best.knows(group[0]):
                batch = group.pop(0)
                yield batch, _made(batch, plan, prior, best.crops)


class _Best:
    """The best crops so far of some classes of a plan: `crops`, by class, in order."""

    def __init__(self, plan: Plan, judge: Judge, classes: set[int], latents: Latents):
        assert isinstance(plan.method, RDED)
        self._plan, self._judge, self._each = plan, judge, plan.method.crops
        self._pool: dict[int, tuple[int, int, ndarray]] = {}  # ordinal → class, place in its pool, boxes as drawn
        for c in sorted(classes):
            own, seed = latents[c], class_seed(plan.config.seed, plan.classes[c].identity)
            drawn = plan.method.chosen(own.rows, plan.method.pool, seed)
            boxes = plan.method.boxes(len(drawn), seed)
            self._pool |= {int(own.ordinals[row]): (c, i, boxes[i]) for i, row in enumerate(drawn)}
        self._left = {c: sum(c == of for of, _, _ in self._pool.values()) for c in classes}
        self._found: dict[int, list[tuple[float, int, Crop]]] = {c: [] for c in classes}
        self._right = self._seen = 0

    @property
    def crops(self) -> Mapping[int, list[Crop]]:
        return {c: [crop for _, _, crop in found] for c, found in self._found.items()}

    def knows(self, batch: Batch) -> bool:
        """Whether all crops of the batch's classes are judged. Raises DmgdError where these are all there are, and the
        teacher recognises hardly more of them than chance."""
        if any(self._left[c] for c in batch.classes):
            return False
        classes = len(self._plan.classes)
        judged_all = len(self._left) == classes > 1 and not any(self._left.values())
        if judged_all and self._right * classes < NEAR_CHANCE * self._seen:
            raise DmgdError(
                f"the teacher {self._judge.name} recognises {self._right / self._seen:.1%} of the crops, chance is "
                f"{1 / classes:.1%}; it may have another order of classes, or expect another image size"
            )
        return True

    def judged(self, source: Source, unreadable: set[str], prior: Prior, task: Task) -> Iterator[None]:
        """Judge the crops of the source's images of the pool; yields after every few of them."""
        waiting: list[tuple[int, int, list[Crop]]] = []  # class, place, the crops of an image
        for ordinal, position, one in numbered_images(source, unreadable):
            if ordinal in self._pool:
                c, place, drawn = self._pool.pop(ordinal)
                image = read_image(one.image)
                boxes = [box_of(image.size, numbers) for numbers in drawn.tolist()]
                waiting.append((c, place, [Crop(position, one.name, box, _cut(image, box, prior)) for box in boxes]))
            if waiting and (not self._pool or len(waiting) * self._each >= JUDGED):
                self._judge_all(waiting)
                task.advance(len(waiting) * self._each)
                waiting = []
                yield
            if not self._pool:
                return

    def _judge_all(self, images: list[tuple[int, int, list[Crop]]]) -> None:
        """Keep the best crop of each of the images, as far as it is among the best of its class."""
        known = _by_parts(self._judge, np.stack([crop.pixels for _, _, own in images for crop in own]))
        known = known.reshape(len(images), -1, known.shape[1])
        for (c, place, own), rows in zip(images, known, strict=True):
            best = int(rows[:, c].argmax())
            found = [*self._found[c], (-float(rows[best, c]), place, own[best])]
            self._found[c] = sorted(found, key=lambda one: one[:2])[: self._plan.config.ipc]
            self._left[c] -= 1
            self._right += int((rows.argmax(1) == c).sum())
            self._seen += len(rows)


def cut_again(
    wanted: Mapping[tuple[int, int], tuple[str, str]], source: Source, prior: Prior
) -> Iterator[tuple[int, int, ndarray]]:
    """(class index, image index, uint8 pixels (h, w, c)) of the crops whose image's name and box are `wanted`, as
    records have them. Raises MismatchError if the source has no such image of the class."""
    waiting: dict[tuple[int, str], list[tuple[int, Box]]] = {}
    for (c, i), (name, crop) in wanted.items():
        left, top, right, bottom = map(int, crop.split())
        waiting.setdefault((c, name), []).append((i, (left, top, right, bottom)))
    for one in source.images("train"):
        if crops := waiting.pop((one.label, one.name), []):
            image = read_image(one.image)
            yield from ((one.label, i, _cut(image, box, prior)) for i, box in crops)
    if waiting:
        c, name = next(iter(waiting))
        raise MismatchError(f"{source.name} has no image {name} of class {c}, which a crop is of; name the same data")


def _cut(image: Image.Image, box: Box, prior: Prior) -> ndarray:
    return square_pixels(image.crop(box), prior.image_size, prior.image_channels)


def _by_parts(judge: Judge, crops: ndarray) -> ndarray:
    """The judge's log probabilities (n, k). All parts have the same size, so that those of a crop do not depend on how
    many there are."""
    count = len(crops)
    padded = np.concatenate([crops, np.zeros((-count % JUDGED, *crops.shape[1:]), np.uint8)])
    parts = [judge.log_probabilities(padded[first : first + JUDGED]) for first in range(0, len(padded), JUDGED)]
    return np.concatenate(parts)[:count]


def _made(batch: Batch, plan: Plan, prior: Prior, crops: Mapping[int, list[Crop]]) -> MadeBatch:
    chosen = [crops[c][i] for c, i in batch.indices()]
    pixels = np.stack([crop.pixels for crop in chosen])
    latents = torch.cat([prior.encode(part).cpu() for part in torch.from_numpy(pixels).split(ENCODED)])
    records = [
        {
            "seed": class_seed(plan.config.seed, plan.classes[c].identity),
            "other_class": None,
            "ot_cost": None,
            "source_index": crop.position,
            "source_name": crop.name,
            "source_crop": " ".join(map(str, crop.box)),
        }
        for (c, _), crop in zip(batch.indices(), chosen, strict=True)
    ]
    return MadeBatch(latents, pixels, records)
