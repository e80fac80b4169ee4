"""Encoding a source's images as latents of a prior: streamed, cached, resumable."""

import hashlib
import itertools
import weakref
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from platformdirs import user_cache_path

from dmgd.errors import DmgdError, listed
from dmgd.files import canonical_json, remove_temporaries, scratch_folder
from dmgd.priors.prior import Prior
from dmgd.progress import SILENT, Progress, Task
from dmgd.sources.decode import Chunk, decoded_chunks
from dmgd.sources.source import Source
from dmgd.statistics.cache import INDEX, LatentParts, Latents, PartRecord

ENCODE_BATCH = 64
PART_ITEMS = 2048
MAX_BAD = 0.01
FORMAT = 2


def encode_source(
    source: Source,
    prior: Prior,
    split: str = "train",
    *,
    mirror: bool = False,
    max_bad: float = MAX_BAD,
    workers: int | None = None,
    cache: bool = True,
    progress: Progress = SILENT,
) -> Latents:
    """The latents of one split's images, by class, in the source's order of classes.

    Cached latents are not computed again; an interrupted call continues after its last finished part. `mirror` adds
    the latent of every image's mirror image. All batches have the same size (the last is padded), so that a latent
    depends on its image alone and not on the rest of its batch; this is checked on the first batch.

    Raises UsageError for a split that the source lacks, DmgdError if more than the fraction `max_bad` of the images is
    unreadable or a class has none.
    """
    key = _cache_key(source, prior, split, mirror)
    scratch = ExitStack()
    if cache:
        remove_temporaries(user_cache_path("dmgd"))
    folder = user_cache_path("dmgd") / "latents" / key if cache else scratch.enter_context(scratch_folder())
    parts = LatentParts.open(folder)
    weakref.finalize(parts, scratch.close)
    if parts.damaged:
        progress.warn(f"{parts.damaged}; it is encoded again")
    if parts.complete:
        progress.note(f"reused latents {folder}")
    else:
        if parts.records:
            progress.note(f"continuing with part {len(parts.records)} of the latents in {folder}")
        _encode_rest(source, prior, split, parts, mirror=mirror, workers=workers, progress=progress)
    latents = Latents(parts, [info.identity for info in source.classes])
    _check(latents, source, split, max_bad, progress)
    return latents


def _cache_key(source: Source, prior: Prior, split: str, mirror: bool) -> str:
    """A digest of everything that the latents depend on."""
    settings = {
        "format": FORMAT,
        "source": source.fingerprint(split),
        "split": split,
        "classes": [info.identity for info in source.classes],
        "encoder": prior.encoder_identity,
        "image_size": prior.image_size,
        "mirror": mirror,
        "device": prior.device.type,
        "versions": {name: version(name) for name in ("torch", "diffusers", "pillow")},
    }
    return hashlib.sha256(canonical_json(settings).encode()).hexdigest()[:16]


def _encode_rest(
    source: Source,
    prior: Prior,
    split: str,
    parts: LatentParts,
    *,
    mirror: bool,
    workers: int | None,
    progress: Progress,
) -> None:
    done = sum(record.items for record in parts.records)
    ordinal = sum(record.items - len(record.bad) for record in parts.records)
    rest = itertools.islice(source.images(split), done, None)
    chunks = decoded_chunks(rest, prior.image_size, prior.image_channels, mirror=mirror, workers=workers)
    batch_invariant = parts.records[0].batch_invariant if parts.records else None
    with closing(chunks), progress.task("encode", None, "images") as task:
        task.advance(done)
        following = next(chunks, None)
        while following is not None or not parts.records:
            part = _Part(prior, ordinal, batch_invariant)
            while following is not None and part.items < PART_ITEMS:
                part.add(following, task)
                following = next(chunks, None)
            parts.append(*part.rows(), part.record(last=following is None))
            ordinal, batch_invariant = part.ordinal, part.batch_invariant


@dataclass
class _Part:
    """A part being encoded. `ordinal` is that of the next readable image; `batch_invariant` None: not checked yet."""

    prior: Prior
    ordinal: int
    batch_invariant: bool | None
    items: int = 0
    bad: list[tuple[str, str]] = field(default_factory=list)
    waiting: list[tuple[ndarray, tuple[Any, ...]]] = field(default_factory=list)
    latents: list[ndarray] = field(default_factory=list)
    index: list[ndarray] = field(default_factory=list)

    def add(self, chunk: Chunk, task: Task) -> None:
        """Add a chunk and encode full batches."""
        for pixels, label, digest, mirrored, detail in zip(
            chunk.pixels, chunk.labels, chunk.digests, chunk.mirrored, chunk.detail, strict=True
        ):
            ordinal = self.ordinal - mirrored
            self.waiting.append((pixels, (label, ordinal, np.frombuffer(digest, ">u8"), mirrored, detail)))
            self.ordinal += not mirrored
        self.items += chunk.size
        self.bad += chunk.bad
        while len(self.waiting) >= ENCODE_BATCH:
            self._encode()
        task.advance(chunk.size)

    def rows(self) -> tuple[ndarray, ndarray]:
        """The latents (n, d) and their index. The last batch is padded with black images, whose latents are dropped."""
        if self.waiting:
            self._encode()
        empty = np.empty((0, int(np.prod(self.prior.latent_shape))), np.float32)
        return np.concatenate([empty, *self.latents]), np.concatenate([np.empty(0, INDEX), *self.index])

    def record(self, *, last: bool) -> PartRecord:
        return PartRecord(
            items=self.items,
            rows=sum(len(rows) for rows in self.index),
            bad=self.bad,
            last=last,
            batch_invariant=self.batch_invariant is not False,
        )

    def _encode(self) -> None:
        batch, self.waiting = self.waiting[:ENCODE_BATCH], self.waiting[ENCODE_BATCH:]
        pixels = np.zeros((ENCODE_BATCH, *batch[0][0].shape), np.uint8)
        pixels[: len(batch)] = [pixels for pixels, _ in batch]
        images = torch.from_numpy(pixels)
        latents = self.prior.encode(images).flatten(1).cpu().numpy()
        if self.batch_invariant is None:
            rolled = self.prior.encode(images.roll(1, 0)).flatten(1).cpu().numpy()
            self.batch_invariant = bool((np.roll(rolled, -1, 0) == latents).all())
        index = np.empty(len(batch), INDEX)
        for column, name in enumerate(INDEX.names or ()):
            index[name] = [about[column] for _, about in batch]
        self.latents.append(latents[: len(batch)])
        self.index.append(index)


def _check(latents: Latents, source: Source, split: str, max_bad: float, progress: Progress) -> None:
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
        raise DmgdError(f"{source.name} has no {split} image of {listed(empty)}; add images or remove the classes")
    if not latents.batch_invariant:
        progress.warn(
            "the encoder's rounding depends on the batch: the same data in another order may differ in the last bits"
        )
