"""Where `dmgd` starts: Ctrl-C and SIGTERM are handled before anything large is imported.

Either ends the command with one line on stderr and exit code 130 or 143, whatever it was doing. Temporary files are
removed and processes ended on the way, since the signal is raised as an exception.
"""

import os
import signal
import sys
from contextlib import suppress
from shlex import join
from types import FrameType

CONTINUING = ("fit-stats", "distill")  # the commands that find the work of an earlier attempt
AGAIN = 0.05  # seconds

_received: signal.Signals | None = None  # the first signal


class Interrupted(BaseException):
    """Raised in the main thread by a signal. Not a KeyboardInterrupt, which typer and others treat as they like."""


def main() -> None:
    """The console script. Exit codes: those of `dmgd_cli.app.main`, 130 interrupted, 143 terminated."""
    sys.unraisablehook = _raise_again
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)
    code: str | int | None = 0
    try:
        from dmgd_cli.app import main as run

        run()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        if not _received:  # a library may have made any exception of the signal
            raise
    finally:
        # The rest is Python's own end, which prints tracebacks when it is disturbed.
        for number in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    if _received:
        _say_interrupted()
        code = 128 + _received
    sys.exit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise Interrupted, but not in an import: libraries take any exception there for a missing module."""
    global _received
    if number != signal.SIGALRM:
        _received = _received or signal.Signals(number)
    names = _modules(frame)
    if "importlib" not in names:
        raise Interrupted
    if any(name.startswith("dmgd.") for name in names[: names.index("importlib")]):  # at work: once the import is done
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
    else:  # starting: there is nothing to remove, and the imports of torch and others take seconds
        _say_interrupted()
        os._exit(128 + (_received or number))


def _modules(frame: FrameType | None) -> list[str]:
    """The module of every function that is running, from `main` inwards; "importlib" for the import system's."""
    names: list[str] = []
    while frame:
        importing = "importlib" in frame.f_code.co_filename
        names.append("importlib" if importing else frame.f_globals.get("__name__", ""))
        frame = frame.f_back
    return names[::-1]


def _raise_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Python has dropped an exception, as in a destructor; if it was the signal's, raise that again a little later."""
    if not isinstance(unraisable.exc_value, Interrupted):
        sys.__unraisablehook__(unraisable)
    elif signal.getsignal(signal.SIGALRM) == _interrupt:
        signal.setitimer(signal.ITIMER_REAL, AGAIN)


def _say_interrupted() -> None:
    command, rest = "".join(sys.argv[1:2]), sys.argv[2:]
    kept = command in CONTINUING and "--no-cache" not in rest
    what = "interrupted" if _received == signal.SIGINT else "terminated"
    then = "finished work is kept, the same command continues" if kept else "the same command starts over"
    line = f"{what}; {then}: {join(['dmgd', *sys.argv[1:]])}\n"
    with suppress(OSError):  # nobody reads it any more
        os.write(2, line.encode(errors="backslashreplace"))


if __name__ == "__main__":
    main()
