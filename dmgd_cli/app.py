"""The `dmgd` command: subcommands, `--version`, and the handling of errors."""

import logging
import os
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from dmgd import __version__
from dmgd.errors import DmgdError, is_out_of_memory, one_line, visible
from dmgd_cli import (
    bench,
    distill,
    evaluate,
    export,
    fit_stats,
    interrupts,
    options,
    relabel,
    train_prior,
    train_teacher,
    verify,
)
from dmgd_cli.method_options import with_method_options

COMMANDS: dict[str, Callable[..., None]] = {
    "train-prior": train_prior.command,
    "fit-stats": fit_stats.command,
    "distill": distill.command,
    "export": export.command,
    "evaluate": evaluate.command,
    "bench": bench.command,
    "train-teacher": train_teacher.command,
    "relabel": relabel.command,
    "verify": verify.command,
}


def make_app() -> typer.Typer:
    """The Typer app, with options for everything that is registered now."""
    app = typer.Typer(
        name="dmgd",
        help="Distil a labelled image dataset into a few synthetic images per class, without training.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, command in COMMANDS.items():
        app.command(name, cls=options.Command)(with_method_options(command))
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dmgd {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command in sys.argv. Exit codes: 0 done, 1 failed or mismatch, 2 wrong usage."""
    for stream in (sys.stdout, sys.stderr):  # never fail for a character that the encoding lacks
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.setLogRecordFactory(_visible_record)
    try:
        make_app()(standalone_mode=True)
    except DmgdError as error:
        _print_error(f"error: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of stdout has exited, as in `dmgd … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        path = f" ({error.filename})" if error.filename else ""
        _print_error(f"error: {error.strerror or error}{path}; fix the cause and repeat the command")
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = f" ({one_line(str(error))[:100]})" if str(error) else ""
        _print_error(
            f"error: memory ran out{reason}; end what else needs it, or take smaller images or another --device, and "
            "repeat the command"
        )
        sys.exit(1)


def _visible_record(*arguments: Any, **more: Any) -> logging.LogRecord:
    """What libraries tell their logs, such as addresses that they try again, is shown like everything else."""
    record = logging.LogRecord(*arguments, **more)
    record.msg, record.args = "\n".join(map(visible, record.getMessage().splitlines())), ()
    return record


def _print_error(text: str) -> None:
    if not interrupts.received():  # else it is what a library has made of the signal
        print(one_line(text), file=sys.stderr)
