"""The training images, decoded part by part."""

import itertools
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from dmgd.distribution.engine import in_order
from dmgd.sources.decode import AHEAD, CHUNK, Chunk, decode_chunk, decoded_chunks
from dmgd.sources.source import Source, SourceImage

SPLIT = "train"


class EveryPart:
    """All parts, one after another: worker processes decode the next one in advance. Parts are a multiple of CHUNK."""

    def __init__(self, source: Source, size: int, channels: int, *, mirror: bool, workers: int | None):
        self._source = source
        self._decoded = partial(decoded_chunks, size=size, channels=channels, mirror=mirror, workers=workers)
        self._chunks: Generator[Chunk, None, None] | None = None
        self._following: Chunk | None = None

    def part(self, start: int, items: int) -> Iterator[Chunk]:
        """The images `start` to `start + items`, as far as there are any."""
        if self._chunks is None:
            self._chunks = self._decoded(itertools.islice(self._source.images(SPLIT), start, None))
            self._following = next(self._chunks, None)
        done = 0
        while self._following is not None and done < items:
            chunk, self._following = self._following, next(self._chunks, None)
            done += chunk.size
            yield chunk

    @property
    def at_end(self) -> bool:
        """Whether the part was the last."""
        return self._following is None

    def close(self) -> None:
        if self._chunks:
            self._chunks.close()


class SomeParts:
    """Parts in rising order, between which others are left out; threads decode them. The source is read once, however
    many parts of it are needed."""

    def __init__(self, source: Source, size: int, channels: int, *, mirror: bool, threads: int):
        self._source, self._threads, self._position = source, threads, 0
        self._decode = partial(decode_chunk, size=size, channels=channels, mirror=mirror)
        self._images: Iterator[SourceImage[int]] | None = None
        self._following: SourceImage[int] | None = None

    def part(self, start: int, items: int) -> Iterator[Chunk]:
        """The images `start` to `start + items`, as far as there are any."""
        if self._images is None or start < self._position:
            self._images, self._position = self._source.images(SPLIT), 0
            self._following = next(self._images, None)
        for _ in range(start - self._position):
            self._following = next(self._images, None)
        own = iter(lambda: list(itertools.islice(self._rest(start + items), CHUNK)), [])
        self._position = max(start, self._position)
        yield from in_order(ThreadPoolExecutor(self._threads), self._decode, own, AHEAD * self._threads)

    def _rest(self, end: int) -> Iterator[SourceImage[int]]:
        """The images from the position on that are before the `end`."""
        assert self._images
        while self._following is not None and self._position < end:
            one, self._following = self._following, next(self._images, None)
            self._position += 1
            yield one

    @property
    def at_end(self) -> bool:
        """Whether the part was the last."""
        return self._following is None
