"""Progress: bars on a terminal or in a notebook with ipywidgets, plain lines otherwise; on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from threading import Lock

from rich import progress
from rich.console import Console
from rich.table import Column
from rich.text import Text

from dmgd.errors import visible

PLAIN_INTERVAL = 10.0


class _Rate(progress.ProgressColumn):
    """Units a second, as "12.3 images/s"."""

    def render(self, task: progress.Task) -> Text:
        speed = (task.finished_speed or task.speed) if task.fields["unit"] != "s" else None  # time passes anyway
        return Text(f"{speed:.1f} {task.fields['unit']}/s" if speed else "", style="progress.data.speed")


class _Bar:
    def __init__(self, bars: progress.Progress, name: str, total: int | None, unit: str):
        self._bars, self._id = bars, bars.add_task(name, total=total, unit=unit, now="")

    def advance(self, amount: int = 1) -> None:
        self._bars.advance(self._id, amount)

    def describe(self, text: str) -> None:
        self._bars.update(self._id, now=visible(text))

    def close(self) -> None:
        """What was done is all there was, where that was not known before."""
        (task,) = self._bars.tasks
        self._bars.update(self._id, now="", total=task.completed if task.total is None else task.total)


class _Lines:
    """A line as soon as the time that is left is known, if that is long; every ten seconds; and at the end."""

    def __init__(self, console: Console, name: str, total: int | None, unit: str):
        self._console, self._name, self._total, self._unit = console, name, total, unit
        self._done, self._now, self._advances = 0, "", 0
        self._started = self._printed = self._first = time.monotonic()
        self._done_first = 0
        self._advancing = Lock()  # several threads may

    def advance(self, amount: int = 1) -> None:
        with self._advancing:
            self._done, self._advances = self._done + amount, self._advances + 1
            if self._advances == 1:  # the rate is measured from here: it may be what an earlier run has done
                self._first, self._done_first = time.monotonic(), self._done
            is_news = self._advances == 2 and self._left() >= PLAIN_INTERVAL
            if is_news or time.monotonic() - self._printed >= PLAIN_INTERVAL:
                self.print(self._now, self._left())

    def describe(self, text: str) -> None:
        self._now = visible(text)

    def _left(self) -> float:
        """The seconds that are left; 0 if that is not known."""
        done, seconds = self._done - self._done_first, time.monotonic() - self._first
        return seconds * (self._total - self._done) / done if self._total and done > 0 else 0

    def print(self, now: str = "", left: float = 0) -> None:
        self._printed = time.monotonic()
        seconds = self._printed - self._started
        of = f"/{self._total}" if self._total is not None else ""
        rate = (
            f", {self._done / seconds:.1f} {self._unit}/s" if seconds > 0 and self._done and self._unit != "s" else ""
        )
        tail = (f", {duration(left)} left" if left > 0 else "") + (f", {now}" if now else "")
        self._console.print(
            f"{self._name}: {self._done}{of} {self._unit}, {duration(seconds)}{rate}{tail}", markup=False
        )


def duration(seconds: float) -> str:
    """The time in words: "45 s", "12 min", "3.4 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


class Display:
    """Shows progress on stderr."""

    def __init__(self) -> None:
        self._console = Console(
            stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=not sys.stderr.isatty()
        )
        in_notebook = self._console.is_jupyter and find_spec("ipywidgets") is not None
        is_drawable = self._console.is_terminal and not self._console.is_dumb_terminal
        self._draws_bars = is_drawable or in_notebook

    @contextmanager
    def task(self, name: str, total: int | None, unit: str) -> Iterator[_Bar | _Lines]:
        name = visible(name)
        if not self._draws_bars:
            lines = _Lines(self._console, name, total, unit)
            yield lines
            lines.print()
            return
        # Everything in one line of 80 columns: what is being done now has the space that is left.
        columns = (
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=12),
            progress.MofNCompleteColumn(table_column=Column(no_wrap=True)),
            _Rate(table_column=Column(no_wrap=True)),
            progress.TimeRemainingColumn(compact=True, elapsed_when_finished=True, table_column=Column(no_wrap=True)),
            progress.TextColumn(
                "{task.fields[now]}",
                style="dim",
                markup=False,
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
        )
        with progress.Progress(*columns, console=self._console, expand=True) as bars:
            bar = _Bar(bars, name, total, unit)
            yield bar
            bar.close()

    def note(self, text: str) -> None:
        self._console.print(visible(text), style="dim")

    def warn(self, text: str) -> None:
        self._console.print(visible(f"warning: {text}"), style="yellow")
