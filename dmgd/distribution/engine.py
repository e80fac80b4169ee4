"""What an engine is, and the serial one. The work knows neither.

Tasks come in chains: generators that yield a task and are sent its result, which the next may depend on. Chains are
independent of each other, and may be worked on in any order by any number of workers.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from dmgd.progress import Progress
from dmgd.progress import Task as Bar

Task = TypeVar("Task")
Result = TypeVar("Result")
Value = TypeVar("Value")
TaskIn = TypeVar("TaskIn", contravariant=True)
ResultOut = TypeVar("ResultOut", covariant=True)
ValueOut = TypeVar("ValueOut", covariant=True)
Chain = Generator[Task, Result, None]


class Work(Protocol[TaskIn, ResultOut]):
    """What is done with each task: a pure function of it, whatever was done before and wherever."""

    def __call__(self, task: TaskIn, bar: Bar) -> ResultOut:
        """The result; `bar` is told how much is done."""

    def spec(self) -> "WorkSpec[TaskIn, ResultOut]":
        """What another process opens the same work from."""


class WorkSpec(Protocol[TaskIn, ResultOut]):
    """What a work is opened from; picklable. `device` is what it needs: "cuda" a GPU, "cpu" as many cores as torch has
    threads, "core" a single one."""

    @property
    def device(self) -> str: ...

    def open(self, progress: Progress, cores: int) -> Work[TaskIn, ResultOut]:
        """The work, with so many cores for what is no network. Raises DmgdError or OSError if data or weights cannot be
        opened here, or are others."""


class Shared(Protocol[ValueOut]):
    """A value that several tasks contain, and that reaches each machine once."""

    def get(self) -> ValueOut: ...


class Engine(Protocol):
    """Does work; open, as a context, while it does. `device` is a name for `torch_device`."""

    @property
    def device(self) -> str: ...
    def __enter__(self) -> "Engine": ...
    def __exit__(self, *error: Any) -> None: ...

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
        """Every task with its result, once: as they are done, or `ordered`, for chains of a single task. The results
        held are bounded in number, and so are the chains begun. Without workers, `threads` of this process do the work,
        if it allows that and chains have a single task."""

    def share(self, value: Value) -> Shared[Value]: ...


@dataclass(frozen=True)
class Here(Generic[Value]):
    """A value in this process."""

    value: Value

    def get(self) -> Value:
        return self.value


@dataclass(frozen=True)
class SerialEngine:
    """Does everything in this process: nothing is pickled, or opened again."""

    device: str = "auto"

    def __enter__(self) -> "SerialEngine":
        return self

    def __exit__(self, *error: Any) -> None:
        pass

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
        if threads == 1:
            for chain in chains:
                task = next(chain, None)
                while task is not None:
                    result = work(task, bar)
                    yield task, result
                    task = following(chain, result)
        else:
            tasks = (task for chain in chains for task in chain)
            yield from in_order(ThreadPoolExecutor(threads), lambda task: (task, work(task, bar)), tasks, threads)

    def share(self, value: Value) -> Shared[Value]:
        return Here(value)


def alone(task: Task) -> Chain[Task, Any]:
    """The chain of this task."""
    yield task


def following(chain: Chain[Task, Result], result: Result) -> Task | None:
    """The chain's next task, now that there is the result of the last; None at its end."""
    try:
        return chain.send(result)
    except StopIteration:
        return None


def as_engine(device: str | Engine) -> Engine:
    """The engine itself, or for the name of a device the serial one on it."""
    return SerialEngine(device) if isinstance(device, str) else device


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
