"""Kills `dmgd distill` and `dmgd export` with SIGKILL at random times, and compares the final results.

    python tools/kill_often.py --seed 1

The times are between the creation of the output folder and the end. Each time the command is repeated; the folder must
then have exactly the files and bytes of an uninterrupted run. Exit code 1 if any differ.
"""

import argparse
import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DMGD = Path(sys.executable).parent / "dmgd"
SETTINGS = ["--source", "digits", "--ipc", "12", "--method", "dmgd-paper", "--steps", "10", "--window", "0", "9"]


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def working_time(command: list, out: Path) -> float:
    """Run `command` uninterrupted. Returns the seconds from the creation of `out` to the end."""
    process = started(command, out)
    begun = time.perf_counter()
    if process.wait():
        sys.exit(f"failed: {command}")
    return time.perf_counter() - begun


def started(command: list, out: Path) -> subprocess.Popen:
    """The running command, as soon as `out` has appeared."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not out.exists() and process.poll() is None:
        time.sleep(0.0005)
    return process


def killed(command: list, out: Path, seconds: float) -> bool:
    """Start `command` and kill it `seconds` after `out` has appeared. Returns whether it was still running."""
    process = started(command, out)
    time.sleep(seconds)
    at_work = process.poll() is None
    process.kill()
    process.wait()
    return at_work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=20, help="for distil, and again for export")
    options = parser.parse_args()
    rng, differing = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stats = folder / "stats.safetensors"
        subprocess.run([DMGD, "fit-stats", "--source", "digits", "--out", stats], check=True, capture_output=True)

        def distill(out: str) -> list:
            return [DMGD, "distill", *SETTINGS, "--stats", stats, "--out", folder / out]

        def export(out: str) -> list:
            return [DMGD, "export", folder / "whole", "--format", "imagefolder", "--out", folder / out]

        for what, command, whole in (("distill", distill, "whole"), ("export", export, "exported")):
            seconds = working_time(command(whole), folder / whole)
            for trial in range(options.kills):
                moment = rng.uniform(0, seconds)
                at_work = killed(command("trial"), folder / "trial", moment)
                subprocess.run(command("trial"), check=True, capture_output=True)
                equal = tree(folder / "trial") == tree(folder / whole)
                differing += not equal
                state = "at work" if at_work else "already done"
                result = "equal" if equal else "DIFFERS"
                print(f"{what} {trial}: seed {options.seed}, killed {state} after {moment:.3f} s: {result}", flush=True)
                shutil.rmtree(folder / "trial")
    print("all equal" if not differing else f"{differing} differ")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
