"""The sets of a bench in its folder: runs, and selections of real images, each with a record that is written last.

    runs/<name>/        a run of `distill`
    sets/<name>.json    of a run or a selection: what is in it, and how long it took; of a selection also its images

A record that is damaged, or of other data, is as if it were not there.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

from dmgd.config import StatisticsConfig
from dmgd.distribution.engine import Engine
from dmgd.errors import ArtifactError, UsageError
from dmgd.evaluation.baselines import random_readable, select_by_latents
from dmgd.evaluation.imageset import ImageSet, Shape, numbered_set, prepared_set, readable_images, source_set
from dmgd.evaluation.inputs import RawSet, read_raw_set
from dmgd.evaluation.overlap import refuse_test_images
from dmgd.evaluation.planned_set import PlannedSet
from dmgd.evaluation.results import SetFacts
from dmgd.files import canonical_json, is_temporary, misfit, read_sealed, sha256_bytes, write_sealed
from dmgd.generation.config import short_name
from dmgd.guard import GUARD
from dmgd.images import pixels_of, read_image, square_pixels, stored
from dmgd.mosaics import stored_sizes
from dmgd.priors.prior import Prior
from dmgd.progress import OnlyWarnings, Progress
from dmgd.runs.directory import MANIFEST, RunDirectory
from dmgd.runs.manifest import comparable
from dmgd.sources.source import Source
from dmgd.statistics.cache import Latents
from dmgd.statistics.encoding import encode_source
from dmgd.statistics.fitting import statistics_path

FORMAT = 1
RECORDS, RUNS, RESULT = "sets", "runs", "bench.json"
_NUMBERS = dict.fromkeys(("images", "pixels", "image_bytes", "label_bytes"), int)
_SHAPE = {**_NUMBERS, "seconds": dict, "ordinals": list | None}


def require_own_folder(out: Path) -> None:
    """Raise UsageError if the folder holds other files, and no bench."""
    found = [path.name for path in (out.iterdir() if out.is_dir() else ())]
    others = [name for name in found if name not in (GUARD, RUNS) and not is_temporary(name)]
    if others and not {RECORDS, RESULT} & set(others):
        raise UsageError(
            f"{out} exists and is not a bench (it holds {min(others)}); choose a new or empty --out folder"
        )


@dataclass(frozen=True)
class Made:
    """A set that is there, and for a selection the `ordinals` of its images among the training images (None: all)."""

    facts: SetFacts
    ordinals: list[int] | None


class BenchSets:
    """The sets of a bench of this source in the folder `out`; the `prior` is None if none of them needs it. Mosaics of
    real images have these `channels`, and all the side of the prior's images, without a prior `source_size` pixels."""

    def __init__(
        self,
        out: Path,
        source: Source,
        prior: Prior | None,
        source_size: int,
        channels: int,
        engine: Engine,
        progress: Progress,
    ):
        self.out, self.source, self.prior = out, source, prior
        self._engine, self._progress = engine, progress
        self.side, self._channels = prior.image_size if prior else source_size, channels

    def run_path(self, one: PlannedSet) -> Path:
        return self.out / RUNS / one.name(self.source.name)

    def name(self, one: PlannedSet) -> str:
        """The name of a set, as it is stored."""
        return one.name(self.source.name) + ("" if one.tiles == 1 else f"-{one.tiles}x{one.tiles}")

    def made(self, one: PlannedSet) -> Made | None:
        """The set, if it is complete."""
        path = self._record_path(one)
        with suppress(OSError, ArtifactError, UsageError, KeyError, TypeError):
            key = self._key(one)
            kept = read_sealed(path, FORMAT, missing=ArtifactError(f"{path} is missing"), remedy="made again")
            if not misfit(kept, _SHAPE) and kept.get("key") == key:
                facts = {name: kept[name] for name in (*_NUMBERS, "seconds")}
                return Made(_facts(one, facts), kept["ordinals"])
        return None

    def images_of(self, one: PlannedSet) -> int:
        """How many images, or parts of mosaics, the set has or will have."""
        if one.parts is None:
            return sum(1 for _ in self.source.images("train"))
        return one.parts * len(self.source.classes)

    def images_done(self, one: PlannedSet) -> int:
        """How many images of the run are finished."""
        path = self.run_path(one)
        return len(RunDirectory.open(path).records()) if (path / MANIFEST).is_file() else 0

    def statistics_seconds(self, config: StatisticsConfig, fit: Callable[[], object]) -> float | None:
        """The seconds that the statistics took, which `fit` makes unless they are in the cache; None if it is not known
        any more."""
        assert self.prior is not None
        cached = statistics_path(self.source, self.prior, config)
        path = self.out / RECORDS / f"{short_name(self.source.name)}-k{config.k}.json"
        if cached.is_file():
            fit()
            with suppress(OSError, ArtifactError):
                kept = read_sealed(path, FORMAT, ("seconds",), missing=ArtifactError(f"{path} is missing"), remedy="")
                return float(kept["seconds"]) if kept.get("statistics") == cached.name else None
            return None
        started = perf_counter()
        fit()
        seconds = round(perf_counter() - started, 3)
        write_sealed(path, {"format": FORMAT, "statistics": cached.name, "seconds": seconds})
        return seconds

    def keep_run(self, one: PlannedSet, run: RunDirectory, seconds: Mapping[str, float]) -> Made:
        """The finished run as a set, recorded with the seconds that it took unless it was there before."""
        files = [run.path / record.path for record in run.records()]
        return self.made(one) or self._keep(one, self._sizes(one, files), seconds, None)

    def select(self, one: PlannedSet) -> Made:
        """The selection of real images, recorded."""
        if one.by in ("kmeans-real", "herding"):
            self._latents  # noqa: B018 - encoded before time is taken
        started, counts = perf_counter(), [one.parts or 0] * len(self.source.classes)
        chosen: list[int] | None = None
        if one.by == "random":
            chosen = random_readable(self.source, counts, range(one.seed, one.seed + 1))[one.seed]
        elif one.ipc is not None:
            chosen = select_by_latents(str(one.by), self.source, self._latents, counts, one.seed)
        seconds = {"sampling": round(perf_counter() - started, 3)} if chosen else {}
        wanted = None if chosen is None else set(chosen)
        images = {i: image for i, image in enumerate(self.source.images("train")) if wanted is None or i in wanted}
        ordered = [images[i] for i in chosen or images]
        if one.tiles > 1:
            self._require_parts(one, [image.label for image in ordered])
        return self._keep(one, self._sizes(one, [image.image for image in ordered]), seconds, chosen)

    def raw(self, one: PlannedSet) -> RawSet:
        """The images of a run or a selection that is made, as they are stored; of mosaics the parts."""
        if one.distillation:
            return replace(read_raw_set(self.run_path(one)), name=str(one)).in_mosaics(one.tiles)
        made, own = self.made(one), Shape(0, 0, self._channels).in_mosaics(self.side, one.tiles)
        chosen = (made and made.ordinals) or []
        there = {i: (own.stored(image), label) for i, image, label in readable_images(self.source, "train", chosen)}
        images, labels = [there[i][0] for i in chosen], [there[i][1] for i in chosen]
        return RawSet(str(one), images, labels, self.source.classes, tiles=one.tiles)

    @cache  # noqa: B019 - as many as the bench compares
    def at(self, one: PlannedSet, shape: Shape) -> ImageSet:
        """The images of a set that is made, in this shape."""
        if one.distillation:
            return prepared_set(self.raw(one), self.source.classes, shape)
        made = self.made(one)
        assert made is not None
        own, silent = shape.in_mosaics(self.side, one.tiles), OnlyWarnings(self._progress)
        data, there = numbered_set(self.source, "train", str(one), own, made.ordinals, silent)
        position = {ordinal: i for i, ordinal in enumerate(there)}
        return data if made.ordinals is None else data.select([position[i] for i in made.ordinals], str(one))

    def refuse_test_images(self, planned: Sequence[PlannedSet], test: ImageSet, shape: Shape) -> None:
        """`refuse_test_images` of sets that are made; mosaics are compared with the test images as parts of such."""
        for tiles in dict.fromkeys(one.tiles for one in planned):
            own = shape.in_mosaics(self.side, tiles)
            alike = test if tiles == 1 else source_set(self.source, "test", "test", own, progress=self._progress)
            refuse_test_images((self.at(one, shape) for one in planned if one.tiles == tiles), alike, self._progress)

    def _require_parts(self, one: PlannedSet, labels: Sequence[int]) -> None:
        """Raise UsageError unless there are enough images of each class for its mosaics."""
        for label, info in enumerate(self.source.classes):
            if (count := labels.count(label)) < (one.parts or 0):
                raise UsageError(
                    f"{one} needs {one.parts} images of each class, and there are {count} of {info.name}; choose an "
                    f"IPC of at most {count // one.tiles**2} for these tiles"
                )

    def _sizes(self, one: PlannedSet, images: Sequence[Any]) -> list[tuple[int, int]]:
        """The pixels and bytes of every stored image of a set that has these images."""
        if one.tiles == 1:
            return [stored(image) for image in images]
        decoded = map(read_image, images)
        if one.distillation:
            return stored_sizes([pixels_of(image) for image in decoded], one.tiles)
        return stored_sizes([square_pixels(image, self.side, self._channels) for image in decoded], one.tiles)

    @cached_property
    def _latents(self) -> Latents:
        assert self.prior is not None
        return encode_source(self.source, self.prior, engine=self._engine, progress=self._progress)

    def _record_path(self, one: PlannedSet) -> Path:
        return self.out / RECORDS / f"{self.name(one)}.json"

    def _key(self, one: PlannedSet) -> str:
        """A digest of what the set was made from. Raises UsageError or ArtifactError for a run that is not complete."""
        if one.distillation:
            run = RunDirectory.open(self.run_path(one))
            run.complete_records()
            key = comparable(run.manifest)
            return sha256_bytes(canonical_json(key if one.tiles == 1 else [key, one.tiles]).encode())
        by_latents = one.by in ("kmeans-real", "herding") and self.prior
        key = {
            "source": self.source.fingerprint("train"),
            "classes": [info.identity for info in self.source.classes],
            "selection": [one.by, one.parts, None if one.ipc is None else one.seed],
            "encoder": self.prior.encoder_identity["digest"] if by_latents and self.prior else None,
            "versions": [version(name) for name in ("torch", "scikit-learn", "numpy", "pillow")],
        }
        if one.tiles > 1:
            key["mosaics"] = [one.tiles, self.side, self._channels]
        return sha256_bytes(canonical_json(key).encode())

    def _keep(
        self,
        one: PlannedSet,
        sizes: Sequence[tuple[int, int]],
        seconds: Mapping[str, float],
        ordinals: list[int] | None,
    ) -> Made:
        """Record a set of stored images with these pixels and bytes."""
        numbers: dict[str, Any] = {
            "images": len(sizes) * one.tiles**2,
            "pixels": sum(pixels for pixels, _ in sizes),
            "image_bytes": sum(size for _, size in sizes),
            "label_bytes": 0,
            "seconds": dict(seconds),
        }
        content = {"format": FORMAT, "key": self._key(one), **numbers, "ordinals": ordinals}
        write_sealed(self._record_path(one), content)
        return Made(_facts(one, numbers), ordinals)


def _facts(one: PlannedSet, numbers: Mapping[str, Any]) -> SetFacts:
    return SetFacts(one.method, one.ipc, one.seed, **numbers, tiles=one.tiles)
