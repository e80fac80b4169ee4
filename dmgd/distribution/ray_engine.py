"""The engine of Ray: work is done by actors on the devices of a cluster. The only file that knows Ray.

A worker may die at any moment, alone or with its node. What it had in work is handed out again, to whoever is free; Ray
starts it anew where there is room. This process holds at most PENDING results of each worker.
"""

import logging
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic

from dmgd.distribution.engine import Chain, Result, Shared, Task, Value, Work, WorkSpec, following
from dmgd.errors import DmgdError, UsageError, one_line
from dmgd.progress import Progress, Silent
from dmgd.progress import Task as Bar

PENDING = 2  # tasks of each worker: one in work, and one that waits for it
TRIES = 10  # of a task whose workers die


@dataclass
class _Done(Generic[Result]):
    """A task's result or error, what it told its bar, and its warnings."""

    result: Result | None
    error: Exception | None
    advanced: int
    warnings: list[str]


class _Heard(Silent):
    """Keeps what work says in a worker, which prints nothing."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.advanced, self.warnings = 0, list[str]()

    def advance(self, amount: int = 1) -> None:
        self.advanced += amount

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class _Actor:
    """A worker's process. An error that a user can fix is a result: Ray would wrap it, and try again."""

    def __init__(self, threads: int, cores: int):
        import torch

        torch.set_num_threads(threads)  # as in the driver: their number may change the last bits
        self.cores, self.heard = cores, _Heard()
        self.spec: _InStore[WorkSpec[Any, Any]] | None = None
        self.work: Work[Any, Any] | None = None

    def open(self, spec: "_InStore[WorkSpec[Any, Any]]") -> tuple[str, Exception | None]:
        """The name of the machine, and why the work cannot be opened there."""
        try:
            self._opened(spec)
        except (DmgdError, OSError) as error:
            return socket.gethostname(), _sendable(error)
        return socket.gethostname(), None

    def do(self, spec: "_InStore[WorkSpec[Any, Any]]", task: Any) -> _Done[Any]:
        result, error = None, None
        try:
            work = self._opened(spec)
            self.heard.forget()
            result = work(task, self.heard)
        except (DmgdError, OSError) as caught:
            error = _sendable(caught)
        return _Done(result, error, self.heard.advanced, self.heard.warnings)

    def _opened(self, spec: "_InStore[WorkSpec[Any, Any]]") -> Work[Any, Any]:
        """The work, opened unless it was the last one here."""
        if self.work is None or spec != self.spec:
            self.spec = self.work = None  # what it holds is freed first
            self.work = spec.get().open(self.heard, self.cores)
            self.spec = spec
        return self.work


def _sendable(error: Exception) -> Exception:
    """The error without what cannot be pickled."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


@dataclass(eq=False)
class _Worker:
    actor: Any
    pending: int = 0
    alive: bool = False
    done: int = 0


@dataclass(eq=False)
class _Link(Generic[Task]):
    """A chain's current task. `number` is the chain's."""

    number: int
    chain: Chain[Task, Any]
    task: Task
    tries: int = 0


@dataclass(frozen=True)
class _InStore(Generic[Value]):
    """A value in Ray's object store."""

    reference: Any

    def get(self) -> Value:
        import ray

        return ray.get(self.reference)


class RayEngine:
    """An engine whose workers run on a Ray cluster: "auto" is the one that this machine belongs to, "local" one of this
    machine alone, started and ended here; or the address of its head, HOST:PORT.

    `workers` None: as many as there is room for. On GPUs a worker has `gpus_per_worker`, which may be a fraction, and
    an equal share of the cores; on CPUs as many cores as this process has threads. As a context, it keeps its
    connection until the end; otherwise each function connects anew. Raises UsageError without Ray or without a cluster.
    """

    def __init__(
        self,
        address: str = "auto",
        workers: int | None = None,
        gpus_per_worker: float = 1,
        device: str = "auto",
    ):
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise UsageError("--ray needs Ray, which is not installed; pip install 'dmgd[ray]'") from error
        if workers is not None and workers < 1:
            raise UsageError(f"workers must be at least 1 with Ray, not {workers}")
        if gpus_per_worker <= 0:
            raise UsageError(f"gpus per worker must be more than 0, not {gpus_per_worker}")
        self.address, self.workers, self.gpus_per_worker, self.device = address, workers, gpus_per_worker, device
        self._entered, self._connected = 0, False
        self._started: dict[str, list[Any]] = {}  # actors, by the kind of device

    def __enter__(self) -> "RayEngine":
        self._entered += 1
        return self

    def __exit__(self, *error: Any) -> None:
        self._entered -= 1
        if not self._entered:
            self._end()
            if self._connected:
                self._disconnect()

    def share(self, value: Value) -> Shared[Value]:
        import ray

        return _InStore(ray.put(value))

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

        spec = work.spec()
        with self:
            self._connect()
            if spec.device not in self._started:
                self._end()
                self._started[spec.device] = self._start(spec.device)
            pool = _Pool(self._started[spec.device], self.share(spec), bar, progress)
            pool.wait_until_opened()
            yield from pool.work(chains, ordered)

    def _connect(self) -> None:
        """Connect to the cluster, quietly, unless that is done."""
        import ray

        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        is_main = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                self.address,
                include_dashboard=False if self.address == "local" else None,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                namespace="dmgd",
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"there is no Ray cluster at {self.address} ({one_line(str(error))[:200]}); start one with ray start "
                "--head, or use this machine alone with --ray local"
            ) from error
        finally:
            if is_main:  # Ray sets its own
                signal.signal(signal.SIGTERM, handler)
        self._connected = True
        # Ray prints the deaths of workers on stdout, where results are, and has no setting for that.
        self._printing = ray._private.worker.print_to_stdstream
        ray._private.worker.print_to_stdstream = lambda data, ignore_prefix: None

    def _disconnect(self) -> None:
        import ray

        ray.shutdown()
        ray._private.worker.print_to_stdstream = self._printing
        self._connected = False

    def _start(self, device: str) -> list[Any]:
        """Actors on devices of this kind. Raises UsageError if there is no room for them."""
        import ray
        import torch

        threads, gpus = torch.get_num_threads(), self.gpus_per_worker if device == "cuda" else 0
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if gpus:
            shares = [int(node.get("CPU", 0) * gpus / node["GPU"]) for node in nodes if node.get("GPU", 0) >= gpus]
            cores = max(1, min(shares, default=1))
        else:
            cores = threads
        room = sum(
            int(min(node.get("CPU", 0) // cores, node.get("GPU", 0) / gpus if gpus else node.get("CPU", 0)))
            for node in nodes
        )
        each = f"{gpus:g} GPU and {cores} cores" if gpus else f"{cores} cores, one for each thread"
        if room < (self.workers or 1):
            raise UsageError(
                f"the Ray cluster has room for {room} workers of {each}, not for {self.workers or 1}; take fewer "
                "--workers" + (" or --gpus-per-worker" if gpus else ", or set OMP_NUM_THREADS to fewer threads")
            )
        actor = ray.remote(num_cpus=cores, num_gpus=gpus, max_restarts=-1, max_task_retries=0)(_Actor)
        return [actor.remote(threads, cores) for _ in range(self.workers or room)]

    def _end(self) -> None:
        """End the actors."""
        import ray

        for actor in (actor for actors in self._started.values() for actor in actors):
            ray.kill(actor)
        self._started.clear()


class _Pool:
    """The workers of one map, and what they have in work."""

    def __init__(self, actors: list[Any], spec: Shared[WorkSpec[Any, Any]], bar: Bar, progress: Progress):
        self.workers, self.spec, self.bar, self.progress = [*map(_Worker, actors)], spec, bar, progress
        self.restarts, self.started = 0, time.monotonic()
        self.again: deque[_Link[Any]] = deque()  # what dead workers had in work
        self.running: dict[Any, tuple[_Worker, _Link[Any] | None]] = {}  # without a link: a worker that is starting

    def wait_until_opened(self) -> None:
        """Return when every worker has opened its specs. Raises DmgdError, with the machine, if one cannot."""
        for worker in self.workers:
            self._await(worker)
        while not all(worker.alive for worker in self.workers):
            self._next_done()
        self.started = time.monotonic()

    def work(self, chains: Iterable[Chain[Any, Any]], ordered: bool) -> Iterator[tuple[Any, Any]]:
        """Every task of the chains with its result."""
        waiting = enumerate(chains)
        begun, due, held = 0, 0, dict[int, tuple[_Link[Any], _Done[Any]]]()
        while True:
            while worker := self._free():
                if self.again:
                    self._hand_out(worker, self.again.popleft())
                elif ordered and begun - due >= PENDING * len(self.workers):
                    break
                elif first := next(waiting, None):
                    self._hand_out(worker, _Link(*first, next(first[1])))
                    begun += 1
                else:
                    break
            if not self.running:
                return
            if (finished := self._next_done()) is None:
                continue
            worker, link, done = finished
            if ordered:
                held[link.number] = link, done
                while due in held:
                    yield self._used(*held.pop(due))
                    due += 1
            else:
                yield self._used(link, done)
                self._follow(worker, link, done)

    def _free(self) -> _Worker | None:
        """The worker with the least to do, if one can take more."""
        free = [worker for worker in self.workers if worker.alive and worker.pending < PENDING]
        return min(free, key=lambda worker: worker.pending, default=None)

    def _follow(self, worker: _Worker, link: _Link[Any], done: _Done[Any]) -> None:
        """Hand out the chain's next task, if it has one, to the same worker if that is still there."""
        if (task := following(link.chain, done.result)) is None:
            return
        if worker.alive:
            self._hand_out(worker, _Link(link.number, link.chain, task))
        else:
            self.again.append(_Link(link.number, link.chain, task))

    def _hand_out(self, worker: _Worker, link: _Link[Any]) -> None:
        worker.pending += 1
        self.running[worker.actor.do.remote(self.spec, link.task)] = worker, link

    def _await(self, worker: _Worker) -> None:
        """Wait for a worker that is starting, however often it dies."""
        worker.alive = False
        self.running[worker.actor.open.options(max_task_retries=-1).remote(self.spec)] = worker, None

    def _next_done(self) -> "tuple[_Worker, _Link[Any], _Done[Any]] | None":
        """What is done next; None if a worker has started or died."""
        import ray

        (reference,), _ = ray.wait(list(self.running), num_returns=1)
        worker, link = self.running.pop(reference)
        if link is None:
            self._has_started(worker, reference)
            return None
        worker.pending -= 1
        try:
            done = ray.get(reference)
        except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
            self._died(worker, link, error)
            return None
        if done.error:
            raise done.error
        worker.done += done.advanced
        return worker, link, done

    def _has_started(self, worker: _Worker, reference: Any) -> None:
        import ray

        try:
            machine, problem = ray.get(reference)
        except ray.exceptions.RayError as error:
            reason = one_line(str(error))[-300:]
            raise DmgdError(
                f"a worker cannot start ({reason}); every machine of the cluster needs the same installation of dmgd"
            ) from error
        if problem:
            raise type(problem)(f"the worker on {machine} cannot start: {problem}")
        worker.alive = True
        self._describe()

    def _died(self, worker: _Worker, link: _Link[Any], error: Exception) -> None:
        """Put its task first in the queue. Raises DmgdError if it has ended too many workers."""
        link.tries += 1
        if link.tries == TRIES:
            raise DmgdError(
                f"{TRIES} workers died of the same work, perhaps out of memory ({one_line(str(error))[:200]}); take "
                "fewer --workers, or see Ray's logs in /tmp/ray"
            ) from error
        self.again.append(link)
        if worker.alive:  # the first of its tasks
            self.restarts += 1
            self._await(worker)
            self._describe()

    def _used(self, link: _Link[Any], done: _Done[Any]) -> tuple[Any, Any]:
        """The task and its result, and what the worker said of it passed on."""
        for text in done.warnings:
            self.progress.warn(text)
        if done.advanced:
            self.bar.advance(done.advanced)
        self._describe()
        return link.task, done.result

    def _describe(self) -> None:
        """Say how many workers there are, and how much each does a second."""
        seconds = time.monotonic() - self.started
        rates = [worker.done / seconds for worker in self.workers]
        alive = sum(worker.alive for worker in self.workers)
        each = f", {min(rates):.1f} to {max(rates):.1f}/s each" if max(rates) else ""
        again = f", {self.restarts} restarts" if self.restarts else ""
        self.bar.describe(f"{alive} of {len(self.workers)} workers{each}{again}")
