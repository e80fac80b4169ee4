"""Encoding a source's images as latents of a prior: streamed, cached, resumable."""

import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import torch
from numpy import ndarray
from platformdirs import user_cache_path
from torch import Tensor

from dmgd.config import StatisticsConfig
from dmgd.errors import DmgdError, listed
from dmgd.files import canonical_json, remove_temporaries, sha256_bytes
from dmgd.progress import SILENT, Progress, Task
from dmgd.sources.decode import Chunk, decoded_chunks
from dmgd.sources.source import Source
from dmgd.statistics.cache import FORMAT, INDEX, LatentParts, Latents, PartRecord, warn_of_cache

# Images that the encoder sees at a time, and pixels: at 512 pixels an image takes about a gigabyte.
ENCODE_BATCH, ENCODE_PIXELS = 64, 64 * 128**2
PART_ITEMS = 2048


class Encoder(Protocol):
    """What encodes images: a prior, or the space that one will be trained in."""

    @property
    def device(self) -> torch.device: ...
    @property
    def image_size(self) -> int: ...
    @property
    def image_channels(self) -> int: ...
    @property
    def latent_shape(self) -> tuple[int, int, int]: ...
    @property
    def encoder_identity(self) -> dict[str, Any]: ...
    def encode(self, images: Tensor) -> Tensor: ...


def encode_source(
    source: Source,
    prior: Encoder,
    *,
    mirror: bool = False,
    max_bad: float = StatisticsConfig.max_bad,
    workers: int | None = None,
    cache: bool = True,
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
        rest = itertools.islice(source.images("train"), done, None)
        chunks = decoded_chunks(rest, prior.image_size, prior.image_channels, mirror=mirror, workers=workers)
        with closing(chunks), progress.task("encode", None, "images") as task:
            task.advance(done)
            _append_parts(parts, prior, chunks, task, progress)
    latents = Latents(parts, [info.identity for info in source.classes])
    _check(latents, source, max_bad, progress)
    return latents


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


def _append_parts(parts: LatentParts, prior: Encoder, chunks: Iterator[Chunk], task: Task, progress: Progress) -> None:
    """Encode the chunks as the parts that follow those that are there; at least one, if only to say that it is last.
    With a warning, without the cache as soon as it cannot be written."""
    ordinal = sum(record.items - len(record.bad) for record in parts.records)
    batch_invariant = parts.records[0].batch_invariant if parts.records else None
    following = next(chunks, None)
    while following is not None or not parts.records:
        part = _Part(prior, ordinal, batch_invariant)
        while following is not None and part.items < PART_ITEMS:
            part.add(following)
            task.advance(following.size)
            following = next(chunks, None)
        finished = part.finished(last=following is None)
        try:
            parts.append(*finished)
        except OSError as error:
            if not parts.in_cache:
                raise
            warn_of_cache(error, progress)
            parts.leave_cache()
            parts.append(*finished)
        ordinal, batch_invariant = part.ordinal, part.batch_invariant


def encode_batch(side: int) -> int:
    """How many images of this side are encoded at a time."""
    return max(1, min(ENCODE_BATCH, ENCODE_PIXELS // side**2))


@dataclass
class _Part:
    """A part being encoded. `ordinal` is that of the next readable image; `batch_invariant` None: not checked yet."""

    prior: Encoder
    ordinal: int
    batch_invariant: bool | None
    items: int = 0
    bad: list[tuple[str, str]] = field(default_factory=list)
    waiting: list[ndarray] = field(default_factory=list)
    latents: list[ndarray] = field(default_factory=list)
    index: list[ndarray] = field(default_factory=list)

    def add(self, chunk: Chunk) -> None:
        """Add a chunk and encode full batches."""
        index = np.empty(len(chunk.labels), INDEX)
        index["label"], index["mirrored"], index["detail"] = chunk.labels, chunk.mirrored, chunk.detail
        index["digest"] = np.frombuffer(b"".join(chunk.digests), ">u8").reshape(-1, 4)
        index["sample"] = self.ordinal - 1 + np.cumsum(~index["mirrored"])  # a mirror image follows its image
        self.index.append(index)
        self.ordinal += chunk.size - len(chunk.bad)
        self.items += chunk.size
        self.bad += chunk.bad
        self.waiting += list(chunk.pixels)
        while len(self.waiting) >= encode_batch(self.prior.image_size):
            self._encode()

    def finished(self, *, last: bool) -> tuple[ndarray, ndarray, PartRecord]:
        """The latents (n, d), their index (n,) and the record. The last batch is padded with black images."""
        if self.waiting:
            self._encode()
        empty = np.empty((0, int(np.prod(self.prior.latent_shape))), np.float32)
        latents = np.concatenate([empty, *self.latents])
        index = np.concatenate([np.empty(0, INDEX), *self.index])
        return latents, index, PartRecord(self.items, len(index), self.bad, last, self.batch_invariant is not False)

    def _encode(self) -> None:
        size = encode_batch(self.prior.image_size)
        batch, self.waiting = self.waiting[:size], self.waiting[size:]
        pixels = np.zeros((size, *batch[0].shape), np.uint8)
        pixels[: len(batch)] = batch
        images = torch.from_numpy(pixels)
        latents = self.prior.encode(images).flatten(1).cpu().numpy()
        if self.batch_invariant is None:
            rolled = self.prior.encode(images.roll(1, 0)).flatten(1).cpu().numpy()
            self.batch_invariant = bool((np.roll(rolled, -1, 0) == latents).all())
        self.latents.append(latents[: len(batch)])


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
