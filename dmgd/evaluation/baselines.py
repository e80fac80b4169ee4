"""The baselines: selected real images, plain samples of the prior, the whole training split."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from dmgd.distribution.engine import Engine, SerialEngine
from dmgd.errors import UsageError
from dmgd.evaluation.cores import fitting_threads
from dmgd.evaluation.imageset import ImageSet, Shape, numbered_set, readable_images, stack_images
from dmgd.evaluation.inputs import RawSet
from dmgd.generation.config import DistillConfig
from dmgd.generation.micro_batches import decode
from dmgd.generation.plan import make_plan
from dmgd.generation.sampling import sample_batch
from dmgd.images import to_image
from dmgd.matching.coresets import herding, nearest_distinct
from dmgd.matching.methods import METHODS
from dmgd.priors.prior import Prior
from dmgd.progress import SILENT, Progress
from dmgd.sources.source import Source
from dmgd.statistics.cache import ClassLatents, Latents
from dmgd.statistics.encoding import encode_source
from dmgd.statistics.file import Statistics
from dmgd.statistics.kmeans import class_seed, quantize

NEED_LATENTS = ("kmeans-real", "herding")


@dataclass(frozen=True)
class Contender:
    """A set to train on, or one of `several` for each seed; or a pool of images with the indices of those that a
    baseline has `drawn` for each seed. `kind`: "set", "other", or the baseline's name."""

    data: ImageSet
    kind: str
    drawn: dict[int, list[int]] | None = None
    several: dict[int, ImageSet] | None = None

    @property
    def name(self) -> str:
        return self.data.name if self.kind in ("set", "other") else self.kind

    @property
    def varies(self) -> bool:
        """Whether the set depends on the seed."""
        return bool(self.drawn or self.several)

    def of_seed(self, seed: int) -> ImageSet:
        """The set for a repeat's seed."""
        if self.several:
            return self.several[seed]
        return self.data.select(self.drawn[seed], self.name) if self.drawn else self.data


def in_turn(sets: Sequence[ImageSet], kind: str, seeds: range) -> Contender:
    """The sets of one method as a contender: with each seed the next of them is trained on. Raises UsageError if there
    are more sets than seeds."""
    first, count = sets[0], len(sets)
    if count == 1:
        return Contender(first, kind)
    if count > len(seeds):
        raise UsageError(
            f"{first.name} and {count - 1} others are runs of one method with {count} seeds, and only {len(seeds)} of "
            f"them would be trained on; give --repeats {count} or more"
        )
    is_marked = first.soft or first.weights is not None
    name = f"{first.name.removesuffix(')')}, {count} seeds)" if is_marked else f"{first.name} ({count} seeds)"
    named = [replace(one, name=name) for one in sets]
    return Contender(named[0], kind, several={seed: named[i % count] for i, seed in enumerate(seeds)})


@dataclass(frozen=True)
class Baselines:
    """The baselines `names`, before conversion to a shape: ordinals of training images by name and seed, and the
    prior's samples, if included."""

    names: tuple[str, ...]
    source: Source
    chosen: dict[str, dict[int, list[int]]]
    sampled: RawSet | None

    def at(self, shape: Shape, seeds: Sequence[int], *, progress: Progress = SILENT) -> list[Contender]:
        """The baselines as sets of this shape, for some of the seeds; "full" never has mosaics."""
        contenders: dict[str, Contender] = {}
        full = "full" in self.names
        if full and shape.tiles > 1:
            whole, _ = numbered_set(self.source, "train", "full", shape.in_mosaics(0, 1), None, progress)
            contenders["full"], full = Contender(whole, "full"), False
        if self.chosen or full:
            wanted = {i for by_seed in self.chosen.values() for seed in seeds for i in by_seed[seed]}
            ordinals = None if full else wanted
            pool, there = numbered_set(self.source, "train", "train", shape, ordinals, progress)
            position = {ordinal: i for i, ordinal in enumerate(there)}
            contenders.setdefault("full", Contender(replace(pool, name="full"), "full"))
            for name, by_seed in self.chosen.items():
                drawn = {seed: [position[i] for i in by_seed[seed]] for seed in seeds}
                contenders[name] = Contender(pool, name, drawn)
        if self.sampled:
            pixels = [shape.apply(image) for image in self.sampled.images]
            sampled = stack_images("dit", pixels, self.sampled.labels, self.source.classes)
            sizes = [shape.stored_pixels(image) for image in self.sampled.images]
            contenders["dit"] = Contender(sampled.with_stored(sizes, shape.tiles), "dit")
        return [contenders[name] for name in self.names]


def choose_baselines(
    names: Sequence[str],
    source: Source,
    counts: Sequence[int],
    seeds: range,
    prior: Prior | None,
    *,
    engine: Engine = SerialEngine(),
    progress: Progress = SILENT,
) -> Baselines:
    """The named baselines with `counts[c]` images of class c; "full" has all. Only "random" depends on the seed, the
    others use the first. `prior` is given if one of NEED_PRIOR is named."""
    chosen: dict[str, dict[int, list[int]]] = {}
    if "random" in names:
        chosen["random"] = random_readable(source, counts, seeds)
    if prior and (by_latents := [name for name in NEED_LATENTS if name in names]):
        latents = encode_source(source, prior, engine=engine, progress=progress)
        for name in by_latents:
            chosen[name] = dict.fromkeys(seeds, select_by_latents(name, source, latents, counts, seeds[0]))
    sampled = sample_plain(source, counts, seeds[0], prior, progress) if "dit" in names and prior else None
    return Baselines(tuple(names), source, chosen, sampled)


def select_by_latents(name: str, source: Source, latents: Latents, counts: Sequence[int], seed: int) -> list[int]:
    """Ordinals of the `counts[c]` training images of every class c that "kmeans-real" or "herding" chooses by the
    source's latents. Only the former depends on the seed."""
    bad = {name for name, _ in latents.bad}  # latents are numbered without them
    readable = [i for i, one in enumerate(source.images("train")) if one.name not in bad]
    if name == "kmeans-real":
        class_seeds = [class_seed(seed, info.identity) for info in source.classes]
        return [readable[i] for i in kmeans_real(latents, counts, class_seeds)]
    own = zip(latents, counts, strict=True)
    return [readable[i] for of_class, count in own for i in of_class.ordinals[herding(of_class.rows, count)]]


def random_readable(source: Source, counts: Sequence[int], seeds: range) -> dict[int, list[int]]:
    """The `random_selection` for each seed among the readable images. Only those that are drawn are decoded."""
    labels = torch.tensor([one.label for one in source.images("train")], dtype=torch.int64)
    while True:
        chosen = {seed: random_selection(labels, counts, seed) for seed in seeds}
        wanted = {i for drawn in chosen.values() for i in drawn}
        bad = wanted - {i for i, *_ in readable_images(source, "train", wanted)}
        if not bad:
            return chosen
        labels[sorted(bad)] = -1  # of no class: drawn again without them


def random_selection(labels: Int64[Tensor, " n"], counts: Sequence[int], seed: int) -> list[int]:
    """Ordinals of `counts[c]` images of every class c (all if it has fewer), drawn without replacement."""
    chosen: list[int] = []
    for c, count in enumerate(counts):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + c)
        own = (labels == c).nonzero()[:, 0]
        chosen += own[torch.randperm(len(own), generator=generator)[:count]].tolist()
    return chosen


def kmeans_real(latents: Sequence[ClassLatents], counts: Sequence[int], seeds: Sequence[int]) -> list[int]:
    """Ordinals of the real images nearest to each of `counts[c]` k-means centres of class c's latents."""
    chosen: list[int] = []
    for own, count, seed in zip(latents, counts, seeds, strict=True):
        centres, _ = quantize(own.rows, count, seed)
        chosen += own.ordinals[nearest_distinct(own.rows, centres)].tolist()
    return chosen


def sample_plain(source: Source, counts: Sequence[int], seed: int, prior: Prior, progress: Progress) -> RawSet:
    """Plain samples of the prior with its own guidance scale, as by the method "dit"."""
    config = DistillConfig(max(counts), seed, METHODS["dit"]())
    classes = prior.match_classes(source.classes)
    point = torch.zeros(len(classes), 1, 1)  # of each class, of statistics without effect
    none, no_images = torch.zeros(len(classes), 0, 0), torch.zeros(len(classes), dtype=torch.int64)
    unused = Statistics(point, point[:, 0], point.double(), none, no_images, classes, {})
    plan = make_plan(config, source.spec, prior, unused)
    images: list[Image.Image] = []
    labels: list[int] = []
    with (
        fitting_threads(prior.image_size, prior.device),
        progress.task("sample dit", len(classes) * max(counts), "images") as task,
    ):
        for batch in plan.batches:
            latents, _ = sample_batch(batch, plan, prior, unused, [])
            for (label, i), image in zip(batch.indices(), decode(prior, latents).numpy(), strict=True):
                if i < counts[label]:
                    images.append(to_image(image))
                    labels.append(label)
            task.advance(len(batch))
    return RawSet("dit", images, labels, source.classes)
