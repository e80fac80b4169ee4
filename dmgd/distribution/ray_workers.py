"""The workers of a Ray cluster, and how work is handed out to them.

A worker may die at any moment, alone or with its machine. What it had in work is handed out again, to whoever is free,
while Ray starts it anew where there is room. At most PENDING tasks and results of each worker are held.
"""

import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic

import ray
import torch

from dmgd.distribution.engine import Chain, Result, Shared, Task, Value, Work, WorkSpec, following
from dmgd.errors import DmgdError, one_line
from dmgd.progress import Progress, Silent
from dmgd.progress import Task as Bar

PENDING = 2  # one in work, and one that waits for it
TRIES = 10  # of a task whose workers die
HEARTBEAT = 5.0  # seconds between looks at the head, which is gone if it does not answer BEATS of them
BEATS = 3
STARTING = 60.0  # seconds that others wait for a worker that does not start, as when its machine is gone
DEATHS = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.ObjectLostError,  # the result was on a machine that is gone
)


@dataclass(frozen=True)
class InStore(Generic[Value]):
    """A value in Ray's object store, from which each machine has it once."""

    reference: Any

    def get(self) -> Value:
        return ray.get(self.reference)


def in_store(value: Value) -> InStore[Value]:
    return InStore(ray.put(value))


def head_answers() -> bool:
    """Whether the cluster's head can be reached. Ray itself tries for a minute, and then ends the process."""
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1):
            return True
    except OSError:
        return False


@dataclass(frozen=True)
class Done(Generic[Result]):
    """A task's result or error, what it told its bar, and its warnings."""

    result: Result | None
    error: Exception | None
    advanced: int
    warnings: list[str]


class Heard(Silent):
    """Keeps what work says in a worker, which prints nothing."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.advanced, self.warnings = 0, list[str]()

    def advance(self, amount: int = 1) -> None:
        self.advanced += amount

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class Actor:
    """A worker's process. An error that a user can fix is a result: Ray would wrap it."""

    def __init__(self, threads: int, cores: int):
        torch.set_num_threads(threads)  # as in the driver: their number may change the last bits
        self.cores, self.heard = cores, Heard()
        self.spec: Shared[WorkSpec[Any, Any]] | None = None
        self.work: Work[Any, Any] | None = None

    def open(self, spec: Shared[WorkSpec[Any, Any]]) -> tuple[str, Exception | None]:
        """The name of the machine, and why the work cannot be opened there."""
        try:
            self._opened(spec)
        except (DmgdError, OSError) as error:
            return socket.gethostname(), _sendable(error)
        return socket.gethostname(), None

    def do(self, spec: Shared[WorkSpec[Any, Any]], task: Any) -> Done[Any]:
        self.heard.forget()
        result, error = None, None
        try:
            result = self._opened(spec)(task, self.heard)
        except (DmgdError, OSError) as caught:
            error = _sendable(caught)
        return Done(result, error, self.heard.advanced, self.heard.warnings)

    def _opened(self, spec: Shared[WorkSpec[Any, Any]]) -> Work[Any, Any]:
        """The work, opened unless it is that of the last task."""
        if self.work is None or spec != self.spec:
            self.work = None  # what it holds is freed first
            self.work, self.spec = spec.get().open(self.heard, self.cores), spec
        return self.work


def _sendable(error: Exception) -> Exception:
    """The error without what cannot be pickled."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


@dataclass(eq=False)
class Worker:
    """An actor as it is known here. It is not `alive` until it has opened its spec."""

    actor: Any
    pending: int = 0
    alive: bool = False
    done: int = 0


@dataclass(frozen=True)
class Link(Generic[Task]):
    """A chain's current task. `number` is the chain's, `tries` how many workers have died of the task."""

    number: int
    chain: Chain[Task, Any]
    task: Task
    tries: int = 0


class Pool:
    """The workers of one map, and what they have in work."""

    def __init__(self, actors: list[Any], spec: Shared[WorkSpec[Any, Any]], bar: Bar, progress: Progress):
        self.workers, self.spec, self.bar, self.progress = [*map(Worker, actors)], spec, bar, progress
        self.again: deque[Link[Any]] = deque()  # what dead workers had in work
        self.tasks: dict[Any, tuple[Worker, Link[Any]]] = {}  # by the reference of the result
        self.starting: dict[Any, Worker] = {}
        self.restarts, self.since = 0, time.monotonic()
        self.unanswered, self.looked = 0, time.monotonic()

    def wait_until_opened(self) -> None:
        """Return when the workers have opened the spec. Raises DmgdError, with the machine, if one cannot."""
        for worker in self.workers:
            self._start(worker)
        self._describe()
        first: float | None = None
        while self.starting and (first is None or time.monotonic() < first + STARTING):
            self._next_done(timeout=1)
            if first is None and len(self.starting) < len(self.workers):
                first = time.monotonic()
        self.since = time.monotonic()

    def work(self, chains: Iterable[Chain[Any, Any]], ordered: bool) -> Iterator[tuple[Any, Any]]:
        """Every task of the chains with its result, see `Engine.map`."""
        waiting, is_exhausted = enumerate(chains), False
        begun, due, held = 0, 0, dict[int, tuple[Link[Any], Done[Any]]]()
        while True:
            while worker := self._free():
                if self.again:
                    self._hand_out(worker, self.again.popleft())
                elif is_exhausted or (ordered and begun - due >= PENDING * len(self.workers)):
                    break
                elif first := next(waiting, None):
                    self._hand_out(worker, Link(*first, next(first[1])))
                    begun += 1
                else:
                    is_exhausted = True
            if is_exhausted and not self.tasks and not self.again:
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

    def _free(self) -> Worker | None:
        """The worker with the least to do, if one can take more."""
        free = [worker for worker in self.workers if worker.alive and worker.pending < PENDING]
        return min(free, key=lambda worker: worker.pending, default=None)

    def _follow(self, worker: Worker, link: Link[Any], done: Done[Any]) -> None:
        """Hand out the chain's next task, if it has one, to the same worker if that is still there."""
        if (task := following(link.chain, done.result)) is None:
            return
        if worker.alive:
            self._hand_out(worker, Link(link.number, link.chain, task))
        else:
            self.again.append(Link(link.number, link.chain, task))

    def _hand_out(self, worker: Worker, link: Link[Any]) -> None:
        worker.pending += 1
        self.tasks[worker.actor.do.remote(self.spec, link.task)] = worker, link

    def _start(self, worker: Worker) -> None:
        """Let a worker open its spec as soon as it is there, however often it dies."""
        worker.alive = False
        self.starting[worker.actor.open.options(max_task_retries=-1).remote(self.spec)] = worker

    def _next_done(self, timeout: float = HEARTBEAT) -> tuple[Worker, Link[Any], Done[Any]] | None:
        """What is done next; None if a worker has started or died, or after `timeout` seconds. Raises DmgdError if the
        cluster's head is gone."""
        self._look_at_head()
        ready, _ = ray.wait([*self.tasks, *self.starting], num_returns=1, timeout=timeout)
        if not ready:
            return None
        if worker := self.starting.pop(ready[0], None):
            self._has_started(worker, ready[0])
            return None
        worker, link = self.tasks.pop(ready[0])
        worker.pending -= 1
        try:
            done = ray.get(ready[0])
        except DEATHS as error:
            self._died(worker, link, error)
            return None
        if done.error:
            raise done.error
        worker.done += done.advanced
        return worker, link, done

    def _look_at_head(self) -> None:
        if (now := time.monotonic()) < self.looked + HEARTBEAT:
            return
        self.looked, self.unanswered = now, 0 if head_answers() else self.unanswered + 1
        if self.unanswered == BEATS:
            raise DmgdError(
                f"the head of the Ray cluster at {ray.get_runtime_context().gcs_address} is gone; start the cluster "
                "again, and repeat the command"
            )

    def _has_started(self, worker: Worker, reference: Any) -> None:
        try:
            machine, problem = ray.get(reference)
        except ray.exceptions.RayError as error:
            reason = one_line(str(error).strip().splitlines()[-1])[:200]
            raise DmgdError(
                f"a worker cannot start ({reason}); every machine of the cluster needs the same installation of dmgd"
            ) from error
        if problem:
            raise type(problem)(f"the worker on {machine} cannot start: {problem}")
        worker.alive = True
        self._describe()

    def _died(self, worker: Worker, link: Link[Any], error: Exception) -> None:
        """Put its task first in the queue. Raises DmgdError if too many workers have died of it."""
        if link.tries + 1 == TRIES:
            raise DmgdError(
                f"{TRIES} workers died of the same work, perhaps out of memory ({one_line(str(error))[:200]}); take "
                "fewer --workers, or see Ray's logs in /tmp/ray"
            ) from error
        self.again.append(replace(link, tries=link.tries + 1))
        if worker.alive:  # the first of its tasks
            self.restarts += 1
            self._start(worker)
            self._describe()

    def _used(self, link: Link[Any], done: Done[Any]) -> tuple[Any, Any]:
        """The task and its result; what the worker said of it is passed on."""
        for text in done.warnings:
            self.progress.warn(text)
        if done.advanced:
            self.bar.advance(done.advanced)
        self._describe()
        return link.task, done.result

    def _describe(self) -> None:
        """Say how many workers there are, and how much the slowest and the fastest of them do a second."""
        seconds = max(time.monotonic() - self.since, 1e-9)
        rates = [worker.done / seconds for worker in self.workers]
        alive = sum(worker.alive for worker in self.workers)
        each = f", {min(rates):.1f} to {max(rates):.1f}/s each" if max(rates) else ""
        again = f", restarts: {self.restarts}" if self.restarts else ""
        self.bar.describe(f"{alive} of {len(self.workers)} workers{each}{again}")
