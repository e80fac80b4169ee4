"""Images read and cropped to squares in worker processes, in the source's order."""

import hashlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import TypeVar

import numpy as np
from numpy import ndarray
from PIL import Image

from dmgd.errors import DmgdError
from dmgd.images import BadImage, read_image, square_pixels
from dmgd.sources.detail import detail
from dmgd.sources.source import SourceImage

Task = TypeVar("Task")
Result = TypeVar("Result")

CHUNK = 64
MAX_WORKERS = 16
AHEAD = 2  # pending chunks per worker, which bounds the memory


@dataclass(frozen=True)
class Chunk:
    """`size` consecutive images, decoded: `pixels` uint8 (n, s, s, c), `labels`, SHA-256 `digests` of the pixels and
    their `detail`, for the readable ones, each followed by its mirror image if requested; `bad` lists the name of each
    unreadable one and the reason.
    """

    pixels: ndarray
    labels: list[int]
    digests: list[bytes]
    mirrored: list[bool]
    detail: list[float]
    size: int
    bad: list[tuple[str, str]]


def decode_chunk(images: list[SourceImage[int]], size: int, channels: int, mirror: bool = False) -> Chunk:
    """The images as squares of `size` pixels, with `mirror` each followed by its mirror image."""
    views: list[tuple[ndarray, int, bool]] = []
    bad: list[tuple[str, str]] = []
    for image in images:
        try:
            pixels = square_pixels(read_image(image.image), size, channels)
        except BadImage as error:
            bad.append((image.name, str(error)))
            continue
        views.append((pixels, image.label, False))
        if mirror:
            views.append((np.ascontiguousarray(pixels[:, ::-1]), image.label, True))
    stacked = np.stack([view[0] for view in views]) if views else np.empty((0, size, size, channels), np.uint8)
    return Chunk(
        pixels=stacked,
        labels=[label for _, label, _ in views],
        digests=[hashlib.sha256(pixels.tobytes()).digest() for pixels, _, _ in views],
        mirrored=[mirrored for _, _, mirrored in views],
        detail=detail(stacked).tolist(),
        size=len(images),
        bad=bad,
    )


def decoded_chunks(
    images: Iterable[SourceImage[int]], size: int, channels: int, *, mirror: bool = False, workers: int | None = None
) -> Generator[Chunk, None, None]:
    """All images as chunks, in order, a bounded number at a time in memory.

    `workers` is the number of processes (None: one per core); 0, few images, or images that are in memory already are
    decoded in this process. Raises DmgdError if a worker dies.
    """
    iterator = iter(images)
    chunks = iter(lambda: list(itertools.islice(iterator, CHUNK)), [])
    first = list(itertools.islice(chunks, 2))
    in_memory = bool(first) and isinstance(first[0][0].image, Image.Image)
    workers = available_cores() if workers is None else workers
    if workers == 0 or in_memory or len(first) < 2:
        for chunk in itertools.chain(first, chunks):
            yield decode_chunk(chunk, size, channels, mirror)
        return
    with ProcessPoolExecutor(min(workers, MAX_WORKERS), mp_context=_Context(), initializer=_end_with_parent) as pool:
        decoding = partial(decode_chunk, size=size, channels=channels, mirror=mirror)
        try:
            yield from in_order(pool, decoding, itertools.chain(first, chunks), AHEAD * workers)
        except BrokenProcessPool as error:
            raise DmgdError(
                "a decoding process died, perhaps out of memory or in a script without "
                'if __name__ == "__main__"; --workers 0 decodes without processes'
            ) from error


def in_order(pool: Executor, function: Callable[[Task], Result], tasks: Iterable[Task], ahead: int) -> Iterator[Result]:
    """The function's result for each task, in order; at most `ahead` tasks are pending beside the next result's.

    The pool is shut down at the end. It cancels what is pending itself: done here, that would disturb a pool that is
    marking its futures as broken, as when a signal ends its processes, too.
    """
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Worker(SpawnProcess):
    """A process in which Ctrl-C, which a terminal sends to all, is blocked: its parent alone answers."""

    def start(self) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Context(SpawnContext):
    """The method "spawn" is safe whatever threads this process has; a forked child could deadlock."""

    Process = _Worker


def _end_with_parent() -> None:
    """End this worker when its parent ends, even if that is killed."""

    def wait() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()  # on a pipe that the parent's death closes
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
