"""A Ray cluster of this machine alone. A process of its own keeps it: it starts while the command does other things, is
out of reach of the command's signals, and ends with the command, however that ends.
"""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

from dmgd.errors import DmgdError

# Settings of Ray, also of its workers: nothing is sent to its makers, and a warning is answered as Ray will in future.
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class LocalCluster:
    """A cluster that starts as this is made."""

    def __init__(self) -> None:
        self._keeper = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,  # closed with this process
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=SETTINGS | os.environ,
            start_new_session=True,
            text=True,
        )

    def address(self) -> str:
        """Its address, once it is there. Raises DmgdError if it could not start."""
        assert self._keeper.stdout
        said = self._keeper.stdout.readline().strip()
        if not said or said.startswith("error"):
            raise DmgdError(f"Ray cannot start on this machine ({said or 'it died'}); see its logs in /tmp/ray")
        return said

    def end(self) -> None:
        """Return when its processes are killed."""
        self._keeper.communicate()


def keep() -> None:
    """Start a cluster, print its address, and kill it when the standard input ends."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints is not the answer
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    class Head(Node):
        def start_api_server(self, *arguments: Any, **more: Any) -> None:
            """Not the dashboard's, which takes a second."""

    threading.Thread(target=_end_with_the_command).start()
    try:
        parameters = RayParams(include_dashboard=False, no_monitor=True)
        node = Head(parameters, head=True, shutdown_at_exit=False, spawn_reaper=True)
        print(node.gcs_address, file=answer, flush=True)
    except Exception as error:
        print("error:", " ".join(str(error).split())[:200], file=answer, flush=True)
    threading.Event().wait()  # the cluster lives as long as the thread that started it


def _end_with_the_command() -> None:
    import psutil  # Ray's

    sys.stdin.read()
    for process in psutil.Process().children(recursive=True):  # parents first, so that there are no new ones
        with suppress(psutil.NoSuchProcess):
            process.kill()
    os._exit(0)


if __name__ == "__main__":
    keep()
