"""Progress: bars on a terminal or in a notebook with ipywidgets, plain lines otherwise; on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from rich import progress
from rich.console import Console
from rich.text import Text

PLAIN_INTERVAL = 10.0


class _Rate(progress.ProgressColumn):
    """Units a second, as "12.3 images/s"."""

    def render(self, task: progress.Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {task.fields['unit']}/s" if speed else "", style="progress.data.speed")


class _Bar:
    def __init__(self, bars: progress.Progress, name: str, total: int | None, unit: str):
        self._bars, self._id = bars, bars.add_task(name, total=total, unit=unit, now="")

    def advance(self, amount: int = 1) -> None:
        self._bars.advance(self._id, amount)

    def describe(self, text: str) -> None:
        self._bars.update(self._id, now=text)


class _Lines:
    """A line every ten seconds and at the end."""

    def __init__(self, console: Console, name: str, total: int | None, unit: str):
        self._console, self._name, self._total, self._unit = console, name, total, unit
        self._done, self._now = 0, ""
        self._started = self._printed = time.monotonic()

    def advance(self, amount: int = 1) -> None:
        self._done += amount
        if time.monotonic() - self._printed >= PLAIN_INTERVAL:
            self.print(self._now)

    def describe(self, text: str) -> None:
        self._now = text

    def print(self, now: str = "") -> None:
        self._printed = time.monotonic()
        seconds = self._printed - self._started
        of = f"/{self._total}" if self._total is not None else ""
        rate = f", {self._done / seconds:.1f} {self._unit}/s" if seconds > 0 and self._done else ""
        tail = f", {now}" if now else ""
        self._console.print(f"{self._name}: {self._done}{of} {self._unit}, {seconds:.0f} s{rate}{tail}")


class Display:
    """Shows progress on stderr."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
        in_notebook = self._console.is_jupyter and find_spec("ipywidgets") is not None
        self._draws_bars = self._console.is_terminal or in_notebook

    @contextmanager
    def task(self, name: str, total: int | None, unit: str) -> Iterator[_Bar | _Lines]:
        if not self._draws_bars:
            lines = _Lines(self._console, name, total, unit)
            yield lines
            lines.print()
            return
        columns = (
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=20),
            progress.MofNCompleteColumn(),
            _Rate(),
            progress.TimeRemainingColumn(compact=True),
            progress.TextColumn("{task.fields[now]}", style="dim"),
        )
        with progress.Progress(*columns, console=self._console) as bars:
            yield _Bar(bars, name, total, unit)

    def note(self, text: str) -> None:
        self._console.print(text, style="dim", markup=False)

    def warn(self, text: str) -> None:
        self._console.print(f"warning: {text}", style="yellow", markup=False)
