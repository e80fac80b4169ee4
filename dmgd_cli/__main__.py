"""Where `dmgd` starts: signals are handled before anything large is imported."""

import sys

from dmgd_cli import interrupts


def main() -> None:
    """The console script. Exit codes: those of `dmgd_cli.app.main`, 130 interrupted, 143 terminated."""
    code = None
    try:
        try:
            interrupts.listen()
            from dmgd_cli.app import main as run

            run()
        except SystemExit as ended:
            code = ended.code
        finally:
            interrupts.stop_listening()
    except BaseException:
        if not interrupts.received():
            raise
    if signal := interrupts.received():
        interrupts.say_interrupted()
        code = 128 + signal.value
    sys.exit(code)


if __name__ == "__main__":
    main()
