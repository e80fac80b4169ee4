"""Encoding as the work of an engine: consecutive images of a source are a task, and become a part of the cache."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from dmgd.classes.info import ClassInfo
from dmgd.errors import MismatchError
from dmgd.priors.load import load_prior
from dmgd.progress import Progress, Task
from dmgd.sources.decode import Chunk
from dmgd.sources.open import open_source
from dmgd.sources.source import Source
from dmgd.specs import PriorSpec, SourceSpec, unlabelled
from dmgd.statistics.cache import INDEX
from dmgd.statistics.reading import SPLIT, SomeParts

# Images that the encoder sees at a time, and pixels: at 512 pixels an image takes about a gigabyte.
ENCODE_BATCH, ENCODE_PIXELS = 64, 64 * 128**2


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
    @property
    def spec(self) -> Any: ...
    def encode(self, images: Tensor) -> Tensor: ...


class Reader(Protocol):
    """What reads a source part by part, see `dmgd.statistics.reading`."""

    @property
    def at_end(self) -> bool: ...
    def part(self, start: int, items: int) -> Iterator[Chunk]: ...


def encode_batch(side: int) -> int:
    """How many images of this side are encoded at a time."""
    return max(1, min(ENCODE_BATCH, ENCODE_PIXELS // side**2))


@dataclass(frozen=True)
class PartTask:
    """The images `start` to `start + items` of the source."""

    start: int
    items: int


@dataclass
class EncodedPart:
    """The `latents` (n, d) of the readable images and their `index` (n,) of type INDEX, in which they are counted from
    0; the number of `items`, and the `bad` ones. `batch_invariant` None: not checked."""

    items: int = 0
    bad: list[tuple[str, str]] = field(default_factory=list)
    latents: ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    index: ndarray = field(default_factory=lambda: np.empty(0, INDEX))
    last: bool = False
    batch_invariant: bool | None = None


class Encoding:
    """Encodes parts. Unless `batch_invariant` is known, whether a latent depends on the rest of its batch is checked on
    the first batch."""

    def __init__(self, source: Source, encoder: Encoder, reader: Reader, mirror: bool, batch_invariant: bool | None):
        self.source, self.encoder, self.reader, self.mirror = source, encoder, reader, mirror
        self.batch_invariant = batch_invariant
        self.is_known = batch_invariant is not None

    def __call__(self, task: PartTask, bar: Task) -> EncodedPart:
        """All batches have the same size; the last is padded with black images."""
        part, size = EncodedPart(), encode_batch(self.encoder.image_size)
        latents = [np.empty((0, int(np.prod(self.encoder.latent_shape))), np.float32)]
        index = [np.empty(0, INDEX)]
        waiting: list[ndarray] = []
        for chunk in self.reader.part(task.start, task.items):
            index.append(_index_of(chunk, part.items - len(part.bad)))
            part.items += chunk.size
            part.bad += chunk.bad
            waiting += list(chunk.pixels)
            while len(waiting) >= size:
                latents.append(self._encode(waiting[:size], size))
                waiting = waiting[size:]
            bar.advance(chunk.size)
        if waiting:
            latents.append(self._encode(waiting, size))
        part.latents, part.index = np.concatenate(latents), np.concatenate(index)
        part.last, part.batch_invariant = self.reader.at_end, self.batch_invariant
        return part

    def spec(self) -> "EncodingSpec":
        known = self.batch_invariant if self.is_known else None
        identity = self.encoder.encoder_identity
        device, encoder = self.encoder.device.type, self.encoder.spec
        labels = getattr(self.source, "labels", None)
        extent = self.source.extent(SPLIT)
        return EncodingSpec(
            self.source.spec, labels, self.source.classes, extent, encoder, identity, device, self.mirror, known
        )

    def _encode(self, pixels: list[ndarray], size: int) -> ndarray:
        """The latents of a batch, which is filled up to `size` images."""
        filled = np.zeros((size, *pixels[0].shape), np.uint8)
        filled[: len(pixels)] = pixels
        images = torch.from_numpy(filled)
        latents = self.encoder.encode(images).flatten(1).cpu().numpy()
        if self.batch_invariant is None:
            rolled = self.encoder.encode(images.roll(1, 0)).flatten(1).cpu().numpy()
            self.batch_invariant = bool((np.roll(rolled, -1, 0) == latents).all())
        return latents[: len(pixels)]


def _index_of(chunk: Chunk, ordinal: int) -> ndarray:
    """The index of a chunk whose first readable image has this ordinal."""
    index = np.empty(len(chunk.labels), INDEX)
    index["label"], index["mirrored"], index["detail"] = chunk.labels, chunk.mirrored, chunk.detail
    index["digest"] = np.frombuffer(b"".join(chunk.digests), ">u8").reshape(-1, 4)
    index["sample"] = ordinal - 1 + np.cumsum(~index["mirrored"])  # a mirror image follows its image
    return index


@dataclass(frozen=True)
class EncodingSpec:
    """What `Encoding` is opened from, and what is expected to be found."""

    source: SourceSpec
    labels: tuple[str, ...] | None
    classes: tuple[ClassInfo, ...]
    extent: str
    encoder: Any
    identity: dict[str, Any]
    device: str
    mirror: bool
    batch_invariant: bool | None

    def open(self, progress: Progress, cores: int) -> Encoding:
        """Raises MismatchError if data or weights are others than where this was made."""
        source = open_source(self.source, labels=self.labels)
        if source.classes != self.classes:
            raise MismatchError(f"the source {source.name} has other classes there than here")
        if (extent := source.extent(SPLIT)) != self.extent:
            raise MismatchError(
                f"the source {source.name} has {extent} there, and {self.extent} where the command runs; copy it again"
            )
        is_prior = isinstance(self.encoder, PriorSpec)
        encoder = load_prior(self.encoder, device=self.device) if is_prior else self.encoder.open(self.device)
        if unlabelled(encoder.encoder_identity) != unlabelled(self.identity):
            raise MismatchError(f"the encoder {self.identity['id']} has other weights there than here")
        size, channels = encoder.image_size, encoder.image_channels
        reader = SomeParts(source, size, channels, mirror=self.mirror, threads=cores)
        return Encoding(source, encoder, reader, self.mirror, self.batch_invariant)
