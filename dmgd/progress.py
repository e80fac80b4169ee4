"""The interface through which workflows report progress; by default nothing is reported."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable


class Task(Protocol):
    """A running task."""

    def advance(self, amount: int = 1) -> None:
        """Report that `amount` more units are done."""

    def describe(self, text: str) -> None:
        """Set the short text that says what is being processed."""


@runtime_checkable
class Progress(Protocol):
    """Receives a workflow's tasks, notes and warnings."""

    def task(self, name: str, total: int | None, unit: str) -> AbstractContextManager[Task]:
        """A task of `total` units (None: unknown), running while the context is open."""

    def note(self, text: str) -> None:
        """Report something for information, such as "reused statistics …"."""

    def warn(self, text: str) -> None:
        """Report something that the user should act on."""


class Silent:
    """Reports nothing; it is its own task."""

    def task(self, name: str, total: int | None, unit: str) -> AbstractContextManager[Task]:
        return nullcontext(self)

    def advance(self, amount: int = 1) -> None: ...

    def describe(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...


SILENT = Silent()


class OnlyWarnings(Silent):
    """Passes on warnings, and nothing else."""

    def __init__(self, progress: Progress):
        self._progress = progress

    def warn(self, text: str) -> None:
        self._progress.warn(text)


class PartOf(OnlyWarnings):
    """The progress of one `job` of several that share a bar: while its task `name` runs, the bar advances by `amount`
    in all. Beside that, only warnings are passed on, with the job's name."""

    def __init__(self, progress: Progress, bar: Task, job: str, name: str, amount: int):
        super().__init__(progress)
        self._bar, self._job, self._name, self._amount = bar, job, name, amount
        self._done, self._total = 0, 0

    def task(self, name: str, total: int | None, unit: str) -> AbstractContextManager[Task]:
        if name != self._name or not total:
            return nullcontext(SILENT)
        self._total = total
        return nullcontext(self)

    def advance(self, amount: int = 1) -> None:
        before, self._done = self._done, self._done + amount
        before, now = (self._amount * done // self._total for done in (before, self._done))
        if now > before:
            self._bar.advance(now - before)

    def warn(self, text: str) -> None:
        super().warn(f"{self._job}: {text}")


def listener(progress: "Progress | bool") -> Progress:
    """`progress` itself; for True the display on stderr, for False one that reports nothing."""
    if progress is True:
        from dmgd.display import Display  # rich is slow to import

        return Display()
    return progress or SILENT
