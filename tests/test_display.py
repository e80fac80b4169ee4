"""Progress on a terminal and elsewhere: one readable line at 80 columns, the time that is left, the time taken."""

import os
import pty
import subprocess
import sys

import pytest
from rich.console import Console

from dmgd import display
from dmgd.display import Display, duration

SCRIPT = """
from dmgd.display import Display
with Display().task("distil", None, "[/steps]") as task:
    task.describe("[red]English springer, English springer spaniel … cassette player, images 0–9 of 10")
    for _ in range(3):
        task.advance(4000)
"""


def on_a_terminal(**environment):
    """What the script shows on a terminal of 80 columns."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stderr=follower, env={**os.environ, "COLUMNS": "80", **environment}
    )
    os.close(follower)
    shown = b""
    try:
        while part := os.read(leader, 65536):
            shown += part
    except OSError:  # Linux, at the end
        pass
    os.close(leader)
    assert process.wait() == 0
    return shown.decode()


def test_a_dumb_terminal_gets_plain_lines():
    assert on_a_terminal(TERM="dumb").startswith("distil: 12000 [/steps], 0 s")


def test_a_finished_bar_has_its_total_and_the_time_it_took():
    """And neither is broken into lines or taken for markup."""
    shown = on_a_terminal(TERM="xterm", NO_COLOR="1")
    assert "distil ━━━━━━━━━━━━ 12000/12000" in shown
    assert "00:00" in shown.partition("12000/12000")[2]
    assert shown.count("\n") == 1


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass as a test says; plain lines."""
    now = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(display, "Console", lambda **options: Console(**options, force_terminal=False))
    return now


def said_by(clock, capsys, *advances):
    with Display().task("distil", 100, "steps") as task:
        for amount in advances:
            clock[0] += 4
            task.advance(amount)
    return capsys.readouterr().err.splitlines()


def test_the_time_that_is_left_is_said_after_two_steps(clock, capsys):
    first, *_, last = said_by(clock, capsys, 1, 1, 98)
    assert first.startswith("distil: 2/100 steps, 8 s")
    assert first.endswith("7 min left")
    assert last == "distil: 100/100 steps, 12 s, 8.3 steps/s"


def test_what_an_earlier_run_has_done_does_not_count_as_fast(clock, capsys):
    assert said_by(clock, capsys, 80, 1)[0].endswith("76 s left")


def test_what_is_soon_over_says_one_line(clock, capsys):
    assert len(said_by(clock, capsys, 50, 50)) == 1


def test_durations_are_words():
    assert [duration(seconds) for seconds in (4.6, 720, 12240)] == ["5 s", "12 min", "3.4 h"]
