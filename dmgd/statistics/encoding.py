"""Encoding a source's images as latents of a prior: streamed, cached, resumable."""

import itertools
from collections.abc import Iterable
from contextlib import closing
from importlib.metadata import version

from platformdirs import user_cache_path

from dmgd.config import StatisticsConfig
from dmgd.distribution.engine import Engine, SerialEngine, alone
from dmgd.errors import DmgdError, listed
from dmgd.files import canonical_json, remove_temporaries, sha256_bytes
from dmgd.progress import SILENT, Progress
from dmgd.sources.source import Source
from dmgd.statistics.cache import FORMAT, LatentParts, Latents, PartRecord, warn_of_cache
from dmgd.statistics.encoding_work import EncodedPart, Encoder, Encoding, PartTask
from dmgd.statistics.reading import EveryPart

PART_ITEMS = 2048


def encode_source(
    source: Source,
    prior: Encoder,
    *,
    mirror: bool = False,
    max_bad: float = StatisticsConfig.max_bad,
    workers: int | None = None,
    cache: bool = True,
    engine: Engine = SerialEngine(),
    progress: Progress = SILENT,
) -> Latents:
    """The latents of the training images, by class, in the source's order of classes.

    Cached latents are not computed again; an interrupted call continues after its last finished part. `mirror` adds
    the latent of every image's mirror image. All batches have the same size (the last is padded), so that a latent
    depends on its image alone and not on the rest of its batch; this is checked on the first batch.

    Raises DmgdError if more than the fraction `max_bad` of the images is unreadable or a class has none.
    """
    key = _cache_key(source, prior, mirror)
    if cache:
        remove_temporaries(user_cache_path("dmgd"))
    folder = user_cache_path("dmgd") / "latents" / key
    parts = LatentParts(folder if cache else None)
    if parts.damaged:
        progress.warn(parts.damaged)
    if parts.complete:
        progress.note(f"reused latents {folder}")
    else:
        if parts.records:
            progress.note(f"continuing with part {len(parts.records)} of the latents in {folder}")
        done = sum(record.items for record in parts.records)
        size, channels = prior.image_size, prior.image_channels
        reader = EveryPart(source, size, channels, mirror=mirror, workers=workers)
        batch_invariant = parts.records[0].batch_invariant if parts.records else None
        encoding = Encoding(source, prior, reader, mirror, batch_invariant)
        tasks = (alone(PartTask(start, PART_ITEMS)) for start in itertools.count(done, PART_ITEMS))
        with engine, closing(reader), progress.task("encode", None, "images") as task:
            task.advance(done)
            with closing(engine.map(encoding, tasks, task, progress, ordered=True)) as encoded:
                _append_parts(parts, (part for _, part in encoded), progress)
    latents = Latents(parts, [info.identity for info in source.classes])
    _check(latents, source, max_bad, progress)
    return latents


def cached_latents(source: Source, prior: Encoder, *, mirror: bool = False) -> Latents | None:
    """What `encode_source` returns, if all of it is in the cache."""
    parts = LatentParts(user_cache_path("dmgd") / "latents" / _cache_key(source, prior, mirror))
    return Latents(parts, [info.identity for info in source.classes]) if parts.complete else None


def _cache_key(source: Source, prior: Encoder, mirror: bool) -> str:
    """A digest of everything that the latents depend on."""
    settings = {
        "format": FORMAT,
        "source": source.fingerprint("train"),
        "split": "train",
        "classes": [info.identity for info in source.classes],
        "encoder": prior.encoder_identity,
        "image_size": prior.image_size,
        "mirror": mirror,
        "device": prior.device.type,
        "versions": {name: version(name) for name in ("torch", "diffusers", "pillow")},
    }
    return sha256_bytes(canonical_json(settings).encode())[:16]


def _append_parts(parts: LatentParts, encoded: Iterable[EncodedPart], progress: Progress) -> None:
    """Append the parts that follow those that are there, up to the last. With a warning, without the cache as soon as
    it cannot be written."""
    ordinal = sum(record.items - len(record.bad) for record in parts.records)
    batch_invariant = parts.records[0].batch_invariant if parts.records else None
    for part in encoded:
        if batch_invariant is None:
            batch_invariant = part.batch_invariant
        index = part.index.copy()
        index["sample"] += ordinal
        record = PartRecord(part.items, len(index), part.bad, part.last, batch_invariant is not False)
        try:
            parts.append(part.latents, index, record)
        except OSError as error:
            if not parts.in_cache:
                raise
            warn_of_cache(error, progress)
            parts.leave_cache()
            parts.append(part.latents, index, record)
        ordinal += part.items - len(part.bad)
        if part.last:
            return


def _check(latents: Latents, source: Source, max_bad: float, progress: Progress) -> None:
    """Warn of unreadable images. Raises DmgdError if there are too many or a class has no image left."""
    seen, bad = latents.total + len(latents.bad), len(latents.bad)
    lines = listed([f"{name} ({reason})" for name, reason in latents.bad], 20)
    if bad > max_bad * seen:
        raise DmgdError(
            f"{bad} of {seen} images of {source.name} cannot be read, more than {max_bad:.2%}: {lines}; "
            "fix or remove them, or allow more with dmgd fit-stats --max-bad"
        )
    if bad:
        progress.warn(f"{bad} of {seen} images cannot be read and are left out: {lines}")
    empty = [info.identity for index, info in enumerate(source.classes) if latents.images(index) == 0]
    if empty:
        raise DmgdError(f"{source.name} has no train image of {listed(empty)}; add images or remove the classes")
    if not latents.batch_invariant:
        progress.warn(
            "the encoder's rounding depends on the batch: the same data in another order may differ in the last bits"
        )
