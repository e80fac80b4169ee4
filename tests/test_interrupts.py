"""Ctrl-C and SIGTERM end a command with one line, at any moment; no process outlives it."""

import functools
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from PIL import Image

from dmgd.distribution.engine import in_order

DMGD = Path(sys.executable).parent / "dmgd"
LISTEN = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a suite in the background ignores Ctrl-C

# Each calls `main` with a stand-in for the commands, which sends the signal at a delicate moment.
START = """
import signal, sys, time, types
class Sender:
    def find_spec(self, name, path, target=None):
        if name == "dmgd_cli.app":
            try: signal.raise_signal(signal.SIG)
            except BaseException as error: raise ImportError("numpy is broken") from error
sys.meta_path.insert(0, Sender())
"""
IN_AN_IMPORT = """
import pathlib, signal, sys, time, types
sys.path.insert(0, sys.argv.pop())
pathlib.Path(sys.path[0], "delicate.py").write_text('''
import signal
try: signal.raise_signal(signal.SIG)
except BaseException: pass
''')
work = types.ModuleType("dmgd.work")
exec("def run():\\n import delicate, time\\n assert not hasattr(delicate, 'broken')\\n time.sleep(20)", vars(work))
sys.modules["dmgd_cli.app"] = types.SimpleNamespace(main=work.run)
"""
IN_A_DESTRUCTOR = """
import signal, sys, time, types
class Sender:
    def __del__(self):
        signal.raise_signal(signal.SIG)
def run():
    Sender()
    time.sleep(20)
sys.modules["dmgd_cli.app"] = types.SimpleNamespace(main=run)
"""
CHANGED = """
import signal, sys, time, types
def run():
    try: signal.raise_signal(signal.SIG)
    except BaseException as error: raise RuntimeError("a worker died") from error
sys.modules["dmgd_cli.app"] = types.SimpleNamespace(main=run)
"""

AS_AN_ERROR = """
import signal
from dmgd.errors import DmgdError
from dmgd_cli import app
class Damaged:
    def __call__(self, **options):
        try: signal.raise_signal(signal.SIG)
        except BaseException: raise DmgdError("the weights are damaged") from None
app.make_app = Damaged
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("moment", [START, IN_AN_IMPORT, IN_A_DESTRUCTOR, CHANGED, AS_AN_ERROR])
def test_one_line_and_the_exit_code_at_any_moment(moment, sent, tmp_path):
    script = moment.replace("SIG)", f"{sent.name})") + "from dmgd_cli.__main__ import main; main()"
    command = [sys.executable, "-c", script, "distill", "--ipc", "1"]
    command += [tmp_path] if moment is IN_AN_IMPORT else []
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=LISTEN, timeout=15, check=False)
    what, code = ("interrupted", 130) if sent is signal.SIGINT else ("terminated", 143)
    then = "finished work is kept, the same command continues"
    assert done.stderr == f"{what}; {then}: dmgd distill --ipc 1\n"
    assert done.returncode == code


@pytest.mark.parametrize("arguments", [["verify", "run"], ["fit-stats", "--no-cache"]])
def test_no_promise_is_made_where_nothing_is_kept(arguments):
    script = CHANGED.replace("SIG)", "SIGINT)") + "from dmgd_cli.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, preexec_fn=LISTEN)
    assert done.stderr.startswith("interrupted; the same command starts over: dmgd ")


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(1600):
        folder = tmp_path / "photos" / "train" / f"class {index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png", compress_level=0)
    return tmp_path / "photos"


def own_processes(mark):
    """The processes that have the environment variable MARK=mark, and the multiprocessing helpers among them."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"MARK={mark}\0".encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_bytes()
        except OSError:
            pass
    return found


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda sent: sent.name)
def test_workers_end_with_their_parent_and_print_nothing(photos, tmp_path, sent):
    """To SIGINT and SIGTERM, the whole process group is subject, as with Ctrl-C and with `timeout`."""
    script = f"""
import sys, time, types
def run():
    from dmgd.sources.decode import decoded_chunks
    from dmgd.sources.open import open_source
    for chunk in decoded_chunks(open_source("folder:{photos}").images("train"), 8, 3, workers=2):
        print("chunk", flush=True)
        time.sleep(0.5)
if __name__ == "__main__":
    sys.modules["dmgd_cli.app"] = types.SimpleNamespace(main=run)
    from dmgd_cli.__main__ import main
    main()
"""
    (tmp_path / "script.py").write_text(script)
    mark = str(tmp_path)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MARK": mark},
        start_new_session=True,
        preexec_fn=LISTEN,
    )
    process.stdout.readline()
    assert len([line for line in own_processes(mark).values() if b"spawn_main" in line]) == 2
    if sent is signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, sent)
    said = process.communicate(timeout=20)[1]  # ends when the last process closes its end of the pipe
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[sent]
    assert len(said.splitlines()) == 1 or (sent is signal.SIGKILL and "Traceback" not in said)  # semaphores are freed
    ends = time.monotonic() + 5
    while own_processes(mark) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not own_processes(mark)


def test_a_pool_cancels_its_own_futures(monkeypatch):
    """Else one that is just being marked as broken prints a traceback."""
    begun, monitor, cancelling = [], Event(), []
    cancel = Future.cancel

    def recorded_cancel(future):
        cancelling.append(sys._getframe(1).f_code.co_filename)
        return cancel(future)

    monkeypatch.setattr(Future, "cancel", recorded_cancel)

    def work(task):
        begun.append(task)
        return task if task == 0 else monitor.wait(10)

    with ThreadPoolExecutor(1) as pool:
        results = in_order(pool, work, range(9), ahead=4)
        assert next(results) == 0
        results.close()
        monitor.set()
    assert len(begun) <= 2
    assert cancelling
    assert all("concurrent" in file for file in cancelling)
