"""Work done in a thread behind the main one, which goes on with the next."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any


class BackgroundWriter:
    """Runs calls one after another in a thread, at most one waiting behind the one that runs.

    What a call raises is raised by a later `run` or by `wait`. Leaving the context waits for what was begun, whatever
    happened, so that an interrupt loses nothing finished.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._begun: list[Future[Any]] = []

    def __enter__(self) -> "BackgroundWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)
        if error is None:
            self.wait()

    def run(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Begin a call, once there is room for it."""
        while len(self._begun) > 1:
            self._begun.pop(0).result()
        self._begun.append(self._thread.submit(call, *arguments))

    def wait(self) -> None:
        """Return when every call has ended."""
        while self._begun:
            self._begun.pop(0).result()
