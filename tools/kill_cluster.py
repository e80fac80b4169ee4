"""Kills workers, nodes and drivers of `dmgd … --ray` at random moments, and compares the results with serial ones.

    python tools/kill_cluster.py --kills 30 --seed 1

Starts a Ray cluster of three nodes of one core each. A trial is a command with 1, 2 or 3 workers in which one to three
deaths happen: of a worker's process, of a whole node, after which another joins, or of the command itself, which is
then repeated. In the end its output and its cache have exactly the files of an undisturbed run without Ray, with equal
bytes but for the times of `evaluate`, and no process of the command and no worker is left. A trial depends on the seed
and its number alone; --first repeats it. Exit code 1 if anything differs.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from kill_often import CODES, Trial, make_inputs, undisturbed
from PIL import Image
from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}
SLOWLY = "--source digits --stats {base}/stats --batch-size 5 --out {trial}/out"
COMMANDS = {
    "fit-stats": "fit-stats --source folder:{base}/many --prior digits --k 20 --out {trial}/out/stats",
    "distill": f"distill --ipc 20 --method dit --steps 50 {SLOWLY}",
    "distill greedily": f"distill --ipc 6 --order greedy --steps 50 {SLOWLY}",
    "evaluate": "evaluate {base}/run --against random --repeats 3 --epochs 60 --json",
}
IMAGES = 5000  # three parts of the cache
PATIENCE = 300  # seconds


class Killer:
    """A cluster, and what can die in it."""

    def __init__(self) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        self.nodes = [self.cluster.add_node(**NODE) for _ in range(2)]
        self.seen: set[Path] = set()

    def workers(self) -> list[int]:
        """The processes of dmgd's actors in this cluster, also of nodes that are gone."""
        mark = f"--gcs-address={self.cluster.address}\0".encode()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                if is_actor(process) and mark in Path("/proc", parent, "cmdline").read_bytes():
                    self.seen.add(process)
            except OSError:
                pass
        return sorted(int(process.name) for process in self.seen if is_actor(process))

    def kill_worker(self, rng: random.Random) -> bool:
        """Kill a worker, if there is one."""
        if not (workers := self.workers()):
            return False
        try:
            os.kill(rng.choice(workers), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def kill_node(self, rng: random.Random) -> bool:
        """Kill a node with all that runs on it, but not the one that the command is connected to; start another."""
        self.cluster.remove_node(self.nodes.pop(rng.randrange(len(self.nodes))), allow_graceful=False)
        self.nodes.append(self.cluster.add_node(wait=False, **NODE))
        return True


def is_actor(process: Path) -> bool:
    try:
        return (process / "cmdline").read_bytes().startswith(b"ray::Actor")
    except OSError:
        return False


def killed(base: Path, killer: Killer, number: int, seed: int, wholes: dict[str, dict]) -> tuple[str, int, list[str]]:
    """A trial: what was done in words, the number of deaths, and the problems found."""
    rng = random.Random(f"{seed} {number}")
    name = list(COMMANDS)[number % len(COMMANDS)]
    workers = rng.randint(1, 3)
    trial = Trial(base, f"{COMMANDS[name]} --ray {killer.cluster.address} --workers {workers}", number)
    process, done, problems = trial.start(), [], []
    for _ in range(rng.randint(1, 3)):
        what, pause = rng.choice(["worker", "worker", "node", "command"]), rng.uniform(0, 5)
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and not killer.workers() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(pause)
        if process.poll() is not None:
            break
        if what == "command":
            sent = rng.choice([*CODES])
            process.send_signal(sent)
            code = process.wait(PATIENCE)
            if code not in (0, CODES[sent]):
                problems.append(f"exit code {code} after {sent.name}: {trial.said()[-3:]}")
            done.append(sent.name)
            process = trial.start()
        elif (killer.kill_worker if what == "worker" else killer.kill_node)(rng):
            done.append(f"{what} dies")
    try:
        if code := process.wait(PATIENCE):
            problems.append(f"exit code {code}: {trial.said()[-3:]}")
    except subprocess.TimeoutExpired:
        problems.append(f"not done after {PATIENCE} s: {trial.said()[-3:]}")
        process.kill()
        process.wait()
    deadline = time.monotonic() + 15
    while (left := trial.processes() + killer.workers()) and time.monotonic() < deadline:
        time.sleep(0.1)
    if left:
        problems.append(f"processes left: {left}")
    result, whole = trial.result(), wholes[name]["result"]
    if differing := sorted(path for path in result.keys() | whole.keys() if result.get(path) != whole.get(path)):
        problems.append(f"differing: {differing}")
    shutil.rmtree(trial.folder)
    return f"{name} {number}, {workers} workers: {', '.join(done) or 'nothing'}", len(done), problems


def make_many(base: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(IMAGES):
        folder = base / "many" / "train" / str(index % 4)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12), dtype=np.uint8)).save(folder / f"{index}.png", compress_level=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=30, help="deaths at least")
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    started, deaths, failed, number = time.monotonic(), 0, 0, options.first
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        make_inputs(base)
        make_many(base)
        wholes = {name: undisturbed(base, name, command) for name, command in COMMANDS.items()}
        killer = Killer()
        try:
            while deaths < options.kills:
                done, died, problems = killed(base, killer, number, options.seed, wholes)
                deaths, failed, number = deaths + died, failed + bool(problems), number + 1
                print(f"{done}: {f'FAILED {problems}' if problems else 'equal'}", flush=True)
        finally:
            killer.cluster.shutdown()
    print(f"seed {options.seed}: {deaths} deaths in {time.monotonic() - started:.0f} s, {failed} trials failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
