"""Where trainings are computed: on a CPU in small parts, each by one thread, so that no result depends on the number of
cores, or on what else is computed at the same time."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from dmgd.evaluation.protocols import QUICK_SIZE, Protocol

Item = TypeVar("Item")
Result = TypeVar("Result")


class Whole(Executor):
    """Computes everything at once, in the calling thread and with all of torch's threads. `count` at a time."""

    count = 1

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(function(*args, **kwargs))
        return done


class Cores(ThreadPoolExecutor):
    """`count` threads, for each of which torch uses no others."""

    def __init__(self, count: int):
        super().__init__(count, initializer=torch.set_num_threads, initargs=(1,))
        self.count = count


@contextmanager
def open_cores(protocol: Protocol, device: torch.device | str) -> Iterator[Whole | Cores]:
    """The cores for trainings by this protocol: on a CPU as many as torch has threads. A GPU takes whole batches, and
    so does batch norm, unless the images are so small that more threads would only add overhead.

    At the end, also by an error or an interrupt, what is pending is cancelled: trainings in other threads stop.
    """
    if not single_threads(protocol, device):
        yield Whole()
        return
    before = torch.get_num_threads()
    cores = Cores(before)
    try:
        yield cores
    finally:
        cores.shutdown(wait=False, cancel_futures=True)
        torch.set_num_threads(before)  # of threads to come: the number that a thread sets is theirs, too


def single_threads(protocol: Protocol, device: torch.device | str) -> bool:
    """Whether all work of a training is done by single threads."""
    in_parts = protocol.norm == "instance" or (protocol.size or 0) <= QUICK_SIZE
    return torch.device(device).type == "cpu" and in_parts


@contextmanager
def fitting_threads(size: int, device: torch.device | str) -> Iterator[None]:
    """Use one CPU thread for small images, for which more would only add overhead."""
    before = torch.get_num_threads()
    if torch.device(device).type == "cpu" and size <= QUICK_SIZE:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def ahead(cores: Executor, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The function's result for each item, the next one computed while the last one is used."""
    pending: Future[Result] | None = None
    for item in items:
        following = cores.submit(function, item)
        if pending:
            yield pending.result()
        pending = following
    if pending:
        yield pending.result()
