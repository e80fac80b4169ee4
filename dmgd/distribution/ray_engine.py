"""The engine of Ray: work is done by actors on the devices of a cluster. Only this file and the others of ray_ know
Ray."""

import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dmgd.distribution.engine import Chain, Result, Shared, Task, Value, Work
from dmgd.distribution.ray_local import SETTINGS, LocalCluster
from dmgd.errors import UsageError, one_line
from dmgd.progress import Progress
from dmgd.progress import Task as Bar


class RayEngine:
    """An engine whose workers run on a Ray cluster: "auto" is the one that this machine belongs to, "local" one of this
    machine alone, started and ended here; or the address of its head, HOST:PORT.

    `workers` None: as many as there is room for. On GPUs a worker has `gpus_per_worker`, which may be a fraction, and
    an equal share of the cores; on CPUs as many cores as this process has threads. As a context, it keeps connection
    and workers until the end; otherwise each function starts anew. Raises UsageError without Ray or without a cluster.
    """

    def __init__(
        self, address: str = "auto", workers: int | None = None, gpus_per_worker: float = 1, device: str = "auto"
    ):
        found = find_spec("ray")  # not imported yet: a local cluster starts meanwhile
        if found is None or found.origin is None:  # a folder of that name has no origin
            raise UsageError("Ray is not installed; pip install 'dmgd[ray]'")
        if workers is not None and workers < 1:
            raise UsageError(f"workers must be at least 1 with Ray, not {workers}")
        if gpus_per_worker <= 0 or (gpus_per_worker > 1 and gpus_per_worker % 1):
            raise UsageError(f"gpus per worker must be a whole number or between 0 and 1, not {gpus_per_worker:g}")
        self.address, self.workers, self.gpus_per_worker, self.device = address, workers, gpus_per_worker, device
        self._entered = 0
        self._local: LocalCluster | None = None
        self._connected = False
        self._actors: list[Any] = []
        self._resources: tuple[float, int] | None = None  # GPUs and cores of each actor

    def __enter__(self) -> "RayEngine":
        self._entered += 1
        if self.address == "local" and not self._local and not _is_connected():
            self._local = LocalCluster()
        return self

    def __exit__(self, *error: Any) -> None:
        self._entered -= 1
        if not self._entered:
            try:
                self._end_workers()
            finally:
                if self._local:
                    self._local.end()
                    self._local = None

    def share(self, value: Value) -> Shared[Value]:
        from dmgd.distribution.ray_workers import in_store

        return in_store(value)

    def map(
        self,
        work: Work[Task, Result],
        chains: Iterable[Chain[Task, Result]],
        bar: Bar,
        progress: Progress,
        *,
        ordered: bool = False,
        threads: int = 1,
    ) -> Generator[tuple[Task, Result], None, None]:
        from dmgd.distribution.ray_workers import Pool

        spec = work.spec()
        with self:
            self._connect()
            pool = Pool(self._actors_on(spec.device), self.share(spec), bar, progress)
            pool.wait_until_opened()
            yield from pool.work(chains, ordered)

    def _connect(self) -> None:
        """Connect to the cluster, quietly, unless that is done."""
        import ray

        if ray.is_initialized():
            return
        address = self._local.address() if self._local else self.address
        self._connected = True  # from here on there is something to end
        try:
            with _quiet():
                ray.init(
                    address,
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,
                    namespace="dmgd",
                )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"there is no Ray cluster at {self.address} ({one_line(str(error))[:200]}); start one with ray start "
                "--head, or use this machine alone with --ray local"
            ) from error

    def _actors_on(self, device: str) -> list[Any]:
        """The workers on devices of this kind, those that are there if they have what it takes. Raises UsageError if
        there is no room for them."""
        import ray
        import torch

        from dmgd.distribution.ray_workers import Actor

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = self.gpus_per_worker if device == "cuda" else 0
        threads = 1 if device == "core" else torch.get_num_threads()
        cores = _share_of_cores(nodes, gpus) if gpus else threads
        if self._actors and self._resources == (gpus, cores):
            return self._actors
        wanted = self.workers
        if wanted and device == "core" and self._resources:  # as many cores as the workers before had
            wanted *= self._resources[1]
        self._end_actors()
        if (room := _room(nodes, gpus, cores)) < (wanted or 1):
            each = f"{gpus:g} GPU and {cores} cores" if gpus else f"{cores} cores, one for each thread of this process"
            raise UsageError(
                f"the Ray cluster has room for {room} workers of {each}, not for {wanted or 1}; take fewer --workers"
                + (" or --gpus-per-worker" if gpus else ", or set OMP_NUM_THREADS to fewer threads")
            )
        actor = ray.remote(num_cpus=cores, num_gpus=gpus, max_restarts=-1, max_task_retries=0)(Actor)
        self._actors = [actor.remote(threads, cores) for _ in range(wanted or room)]
        self._resources = gpus, cores
        return self._actors

    def _end_workers(self) -> None:
        """End the workers, and the connection if it was made here."""
        if self._connected:
            import ray

            from dmgd.distribution.ray_workers import head_answers

            self._connected = False
            if self._actors and not head_answers():  # the end of the connection would wait for it
                self._actors = []
                atexit.register(_leave)
                return
            self._actors = []
            ray.shutdown()
        self._end_actors()

    def _end_actors(self) -> None:
        if self._actors:
            import ray

            for actor in self._actors:
                ray.kill(actor)
        self._actors = []


def _leave() -> None:
    """End this process, which Ray ends within a minute of its head's, before it crashes in the interpreter's end."""
    sys.stdout.flush()
    os._exit(1)


def _is_connected() -> bool:
    """Whether this process has a connection to a cluster. Does not import Ray."""
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


@contextmanager
def _quiet() -> Iterator[None]:
    """Connect to Ray without what it prints, and without its handling of SIGTERM, which prints stacks and aborts.
    It has no settings for these. Ctrl-C and SIGTERM wait until it is connected: what is half so cannot be ended."""
    import ray

    for name, value in {**SETTINGS, "RAY_BACKEND_LOG_LEVEL": "fatal"}.items():
        os.environ.setdefault(name, value)
    is_main = threading.current_thread() is threading.main_thread()
    received: list[int] = []

    def keep(number: int, frame: Any) -> None:
        received.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM) if is_main else ()
    handlers = {number: signal.signal(number, keep) or signal.SIG_DFL for number in numbers}
    raylet: Any = ray._raylet
    utils: Any = ray._private.utils
    set_handler, core_worker = utils.set_sigterm_handler, raylet.CoreWorker

    def without_handler(*arguments: Any, **more: Any) -> Any:
        """The connection, which sets a handler of its own: SIGTERM waits until that is replaced."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            return core_worker(*arguments, **more)
        finally:
            if is_main:
                signal.signal(signal.SIGTERM, keep)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    utils.set_sigterm_handler = lambda handler: None
    raylet.CoreWorker = without_handler
    ray._private.worker.print_to_stdstream = lambda data, ignore_prefix: None  # deaths of workers, on stdout
    stderr = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        utils.set_sigterm_handler, raylet.CoreWorker = set_handler, core_worker
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for first in received[:1]:
            signal.raise_signal(first)


def _share_of_cores(nodes: list[dict[str, float]], gpus: float) -> int:
    """The cores that belong to so many GPUs, on the node that has the fewest."""
    shares = [int(node.get("CPU", 0) * gpus / node["GPU"]) for node in nodes if node.get("GPU", 0) >= gpus]
    return max(1, min(shares, default=1))


def _room(nodes: list[dict[str, float]], gpus: float, cores: int) -> int:
    """How many workers fit on the nodes."""
    by_cores = [int(node.get("CPU", 0) // cores) for node in nodes]
    by_gpus = [int(node.get("GPU", 0) / gpus) if gpus else count for node, count in zip(nodes, by_cores, strict=True)]
    return sum(map(min, by_cores, by_gpus))
