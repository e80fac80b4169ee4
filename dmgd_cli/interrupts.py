"""Ctrl-C and SIGTERM: both end a command with one line on stderr and exit code 130 or 143, whatever it was doing.

The signal is raised as an exception in the main thread, so that temporary files are removed and processes ended on the
way. Only small modules are imported here.
"""

import os
import signal
import sys
from contextlib import suppress
from shlex import join
from types import FrameType

SIGNALS = (signal.SIGALRM, signal.SIGINT, signal.SIGTERM)  # SIGALRM repeats one of the others
CONTINUING = (
    "train-prior",
    "train-teacher",
    "relabel",
    "fit-stats",
    "distill",
    "evaluate",
    "bench",
)  # the commands that find the work of an earlier attempt
AGAIN = 0.05  # seconds
DELICATE = "delicate"

_received: signal.Signals | None = None  # the first signal


class Interrupted(BaseException):
    """Raised in the main thread by a signal. Not a KeyboardInterrupt, which typer and others treat as they like."""


def listen() -> None:
    """Raise Interrupted in the main thread at the signals, except for those that are ignored, as under nohup."""
    sys.unraisablehook = _raise_again
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def stop_listening() -> None:
    """Ignore the signals: what remains is Python's own end, which prints tracebacks when it is disturbed."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def received() -> signal.Signals | None:
    """The first signal, if there was one. Whatever error follows may be what a library has made of it."""
    return _received


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise Interrupted, but not in an import: libraries take any exception there for a missing module."""
    global _received
    if number != signal.SIGALRM:
        _received = _received or signal.Signals(number)
    modules = _modules(frame)
    if DELICATE not in modules:
        raise Interrupted
    if any(name.startswith("dmgd.") for name in modules[: modules.index(DELICATE)]):  # at work: once that is done
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
    else:  # starting: there is nothing to remove, and the imports of torch and others take seconds
        say_interrupted()
        os._exit(128 + (_received or number))


def _modules(frame: FrameType | None) -> list[str]:
    """The module of every function that is running, from `main` inwards; DELICATE for one where nothing can be raised:
    the import system's, and the hook for dropped exceptions."""
    names: list[str] = []
    while frame:
        code = frame.f_code
        delicate = "importlib" in code.co_filename or code is _raise_again.__code__
        names.append(DELICATE if delicate else frame.f_globals.get("__name__", ""))
        frame = frame.f_back
    return names[::-1]


def _raise_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Python has dropped an exception, as in a destructor; if it was the signal's, raise that again a little later."""
    if not isinstance(unraisable.exc_value, Interrupted):
        sys.__unraisablehook__(unraisable)
    elif signal.getsignal(signal.SIGALRM) == _interrupt:
        signal.setitimer(signal.ITIMER_REAL, AGAIN)


def say_interrupted() -> None:
    """Print the line that says what happened and what the same command would do."""
    command, rest = "".join(sys.argv[1:2]), sys.argv[2:]
    kept = command in CONTINUING and "--no-cache" not in rest
    what = "interrupted" if _received == signal.SIGINT else "terminated"
    then = "finished work is kept, the same command continues" if kept else "the same command starts over"
    line = f"{what}; {then}: {join(['dmgd', *sys.argv[1:]])}\n"
    with suppress(OSError):  # nobody reads it any more
        os.write(2, line.encode(errors="backslashreplace"))
