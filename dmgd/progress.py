"""How the workflows tell what they are doing, without knowing who listens."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Task(Protocol):
    """One running piece of work."""

    def advance(self, amount: int = 1) -> None:
        """Say that `amount` more units are done."""

    def describe(self, text: str) -> None:
        """Say what is being worked on now, in a few words."""


class Progress(Protocol):
    """Where a workflow reports its tasks and remarks."""

    def task(self, name: str, total: int | None, unit: str) -> AbstractContextManager[Task]:
        """A task of `total` units (None: unknown) that runs while the context is open."""

    def note(self, text: str) -> None:
        """A remark worth keeping, such as "reused statistics …"."""

    def warn(self, text: str) -> None:
        """A remark that the user should act upon."""


class _SilentTask:
    def advance(self, amount: int = 1) -> None: ...

    def describe(self, text: str) -> None: ...


class Silent:
    """The default listener: nobody."""

    def task(self, name: str, total: int | None, unit: str) -> AbstractContextManager[Task]:
        return nullcontext(_SilentTask())

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...


SILENT = Silent()


def listener(progress: "Progress | bool") -> Progress:
    """Who is told: the one that is given; for True the display on stderr, for False nobody."""
    if progress is True:
        from dmgd.display import Display  # rich is slow to import

        return Display()
    return progress or SILENT
