"""Kills `dmgd` commands at random moments, repeats them, and compares the results with undisturbed ones.

    python tools/kill_often.py --kills 300 --seed 1

The moments lie between the installation of the signal handlers and the end of the command; the signals are SIGKILL,
SIGTERM (to the process or to its group) and SIGINT (to the group, as from a terminal). After each: SIGTERM and SIGINT
gave one line and exit code 143 or 130; no process is left; the repeated command succeeds, and its output, cache and
temporary folder then have exactly the files of an undisturbed run, with equal bytes but for the times of `evaluate` and
`bench`. Exit code 1 if anything differs.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

DMGD = Path(sys.executable).parent / "dmgd"
MARK = "DMGD_KILL_OFTEN"  # the environment variable that marks all processes of a trial
CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
FIT = "fit-stats --source folder:{base}/photos --prior digits --k 2 --workers 2 --out {trial}/out/stats"
DISTIL = "distill --source digits --ipc 2 --method dit --steps 3 --stats {base}/stats"
COMMANDS = {
    "fit-stats": FIT,
    "fit-stats without cache": FIT + " --no-cache",
    "distill": f"{DISTIL} --batch-size 4 --out {{trial}}/out",
    "export": "export {base}/run --format webdataset --shard-images 5 --out {trial}/out",
    "evaluate": "evaluate {base}/run --against random --repeats 1 --epochs 2 --json --report {trial}/out",
    "train-teacher": "train-teacher --source digits --network convnet-2-w16 --epochs 2 --out {trial}/out",
    "relabel": "relabel {base}/run --teacher {base}/teacher --views 500 --out {trial}/out",
    "bench": "bench --source digits --methods mgd3,random,full --ipc 1 --seeds 2 --epochs 2 --json --out {trial}/out",
}

TIMED = ("report.json", "bench.json", "teacher.json", "scores", "sets")  # files with times, and folders of such


class Trial:
    """One command in a folder of its own, with its own cache and temporary folder."""

    def __init__(self, base: Path, command: str, number: object) -> None:
        self.folder = base / f"trial-{number}"
        self.command = [str(DMGD), *command.format(base=base, trial=self.folder).split()]
        own = {"TMPDIR": "tmp", "XDG_CACHE_HOME": "cache", "HOME": "home"}
        self.environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", MARK: str(self.folder)}
        for variable, folder in own.items():
            (self.folder / folder).mkdir(parents=True)
            self.environment[variable] = str(self.folder / folder)

    def start(self) -> subprocess.Popen:
        """The running command, as soon as it handles signals."""
        with (self.folder / "stdout").open("w") as stdout, (self.folder / "stderr").open("w") as stderr:
            process = subprocess.Popen(
                self.command,
                stdout=stdout,
                stderr=stderr,
                env=self.environment,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # nohup and & ignore it
            )
        while process.poll() is None and not handles_sigterm(process.pid):
            time.sleep(0.001)
        return process

    def result(self) -> dict[str, object]:
        """Every file and folder, and a digest of its content without times."""
        found: dict[str, object] = {}
        for path in sorted(self.folder.rglob("*")):
            data = path.read_bytes() if path.is_file() else b""
            if path.suffix == ".html" or path.stem == "table" or path == self.folder / "stderr":
                data = b""  # times
            elif path == self.folder / "stdout" or path.name in TIMED or path.parent.name in TIMED:
                data = re.sub(rb'("\w*seconds"): (?:[\d.e-]+|\{[^}]*\})|"(?:checksum|date)": "[^"]*"', rb"\1", data)
                data = data.replace(os.fsencode(self.folder), b"")
            if data not in (b"blat", b"") or path.parent.name != "tmp":  # Python's own test of the temporary folder
                found[str(path.relative_to(self.folder))] = hashlib.sha256(data).hexdigest()
        return found

    def said(self) -> list[str]:
        return (self.folder / "stderr").read_text().splitlines()

    def processes(self) -> list[int]:
        """The processes of this trial that are running."""
        return [int(path.name) for path in Path("/proc").glob("[0-9]*") if self._owns(path)]

    def _owns(self, process: Path) -> bool:
        try:
            return f"{MARK}={self.folder}\0".encode() in (process / "environ").read_bytes()
        except OSError:
            return False


def handles_sigterm(pid: int) -> bool:
    try:
        caught = re.search(r"SigCgt:\t(\w+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return True
    return bool(caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def undisturbed(base: Path, name: str, command: str) -> dict:
    """The result of the command, the seconds it takes, and the beginnings of the lines that it prints on stderr."""
    trial = Trial(base, command, f"whole-{name}".replace(" ", "-"))
    process = trial.start()
    started = time.perf_counter()
    if process.wait():
        sys.exit(f"failed: {trial.command}\n" + "\n".join(trial.said()))
    seconds = time.perf_counter() - started
    return {"result": trial.result(), "seconds": seconds, "lines": {beginning(line) for line in trial.said()}}


def beginning(line: str) -> str:
    return re.split(r"[\d:/]", line)[0]


def killed(base: Path, name: str, number: int, seed: int, whole: dict) -> tuple[str, list[str]]:
    """Kill the command once and repeat it. Returns what was done, and the problems found."""
    rng = random.Random(f"{seed} {number}")
    sent, to_group = rng.choice([*CODES]), rng.random() < 0.5
    moment = rng.uniform(0, whole["seconds"])
    trial, problems = Trial(base, COMMANDS[name], number), []
    process = trial.start()
    time.sleep(moment)
    try:
        to_group = sent == signal.SIGINT or (sent == signal.SIGTERM and to_group)
        (os.killpg if to_group else os.kill)(process.pid, sent)
    except ProcessLookupError:
        pass  # it was done
    try:
        code = process.wait(60)
    except subprocess.TimeoutExpired:
        code = None
        process.kill()
        process.wait()
    said = trial.said()
    # What the signal did.
    if code not in (0, CODES[sent]):
        problems.append(f"exit code {code}")
    if sent != signal.SIGKILL:
        others = [line for line in said if beginning(line) not in whole["lines"]]
        if len(others) != (code != 0) or (others and not others[0].startswith(("interrupted; ", "terminated; "))):
            problems.append(f"said {others}")
    deadline = time.monotonic() + 5
    while (left := trial.processes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    if left:
        problems.append(f"processes left: {left}")
    leftover = sorted(name for name in trial.result() if ".dmgd-" in name) if sent != signal.SIGKILL else []
    # What the repeated command makes of it.
    process = trial.start()
    if code := process.wait():
        problems.append(f"the repeated command ended with {code}: {trial.said()}")
    result = trial.result()
    names = result.keys() | whole["result"].keys()
    if differing := sorted(path for path in names if result.get(path) != whole["result"].get(path)):
        problems.append(f"differing after the repeated command: {differing}")
    shutil.rmtree(trial.folder)
    done = f"{name} {number}: {sent.name} after {moment:.3f} s"
    return done + (f", leaving {leftover} until then" if leftover else ""), problems


def make_inputs(base: Path) -> None:
    """A folder of images, statistics, a run and a teacher."""
    rng = np.random.default_rng(0)
    for index in range(260):  # more than one chunk for each worker
        folder = base / "photos" / ("test" if index < 4 else "train") / str(index % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12), dtype=np.uint8)).save(folder / f"{index}.png")
    teacher = COMMANDS["train-teacher"].replace("{trial}/out", "{base}/teacher")
    for command in ("fit-stats --source digits --k 2 --out {base}/stats", DISTIL + " --out {base}/run", teacher):
        subprocess.run([DMGD, *command.format(base=base).split()], check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--first", type=int, default=0, help="number of the first kill, to repeat some of them")
    parser.add_argument("--jobs", type=int, default=2, help="commands at a time")
    options = parser.parse_args()
    failed, started = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        base = Path(folder)
        make_inputs(base)
        names = list(COMMANDS)
        wholes = dict(zip(names, pool.map(lambda name: undisturbed(base, name, COMMANDS[name]), names), strict=True))

        def kill(number: int) -> tuple[str, list[str]]:
            name = names[number % len(names)]
            return killed(base, name, number, options.seed, wholes[name])

        for done, problems in pool.map(kill, range(options.first, options.first + options.kills)):
            failed += bool(problems)
            print(f"{done}: {'FAILED ' + json.dumps(problems) if problems else 'equal'}", flush=True)
    print(f"{options.kills} kills in {time.monotonic() - started:.0f} s, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
