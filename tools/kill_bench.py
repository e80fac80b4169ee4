"""Kills one `dmgd bench` again and again, and compares what it ends with to one that nothing has disturbed.

    python tools/kill_bench.py --kills 5 --seed 1 [--whole FOLDER] [options of dmgd bench]

SIGKILL comes at random moments after the estimate, on average after an equal share of the time that the whole takes. At
the end everything in bench.json but times must be equal, no finished training or batch of images may have been written
a second time, and another repetition must change no byte. `--whole` is the folder of an undisturbed bench with the same
options, which is made without it. Exit code 1 if anything differs.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

DMGD = Path(sys.executable).parent / "dmgd"
OPTIONS = ("--source", "digits")
FINISHED = ("cache/dmgd/scores/*.json", "bench/runs/*/batches/*.json", "bench/sets/*.json")


def start(folder: Path, options: list[str]) -> subprocess.Popen:
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    with (folder / "stdout").open("w") as stdout, (folder / "stderr").open("w") as stderr:
        command = [str(DMGD), "bench", *options, "--out", str(folder / "bench")]
        return subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment, start_new_session=True)


def finish(folder: Path, options: list[str]) -> float:
    """The seconds that the command takes. Exits if it fails."""
    started = time.perf_counter()
    if code := start(folder, options).wait():
        sys.exit(f"dmgd bench ended with {code}:\n{(folder / 'stderr').read_text()}")
    return time.perf_counter() - started


def finished(folder: Path) -> dict[str, tuple[int, int]]:
    """Which file every finished piece of work is: its inode and its time. One that is written again is another."""
    paths = [path for pattern in FINISHED for path in folder.glob(pattern)]
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def timeless(value: Any) -> Any:
    """JSON without times, and without the settings, among which is the date."""
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if key not in ("seconds", "settings")}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def result(bench: Path) -> Any:
    return timeless(json.loads((bench / "bench.json").read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--whole", type=Path, help="an undisturbed bench with the same options")
    parser.add_argument("--seconds", type=float, help="what an undisturbed one takes, with --whole")
    known, options = parser.parse_known_args()
    options, rng, problems = options or [*OPTIONS], random.Random(known.seed), []
    with tempfile.TemporaryDirectory() as parent:
        whole, seconds = known.whole, known.seconds or 60.0
        if not whole:
            (Path(parent) / "whole").mkdir()
            seconds = finish(Path(parent) / "whole", options)
            whole = Path(parent) / "whole" / "bench"
            print(f"undisturbed: {seconds:.0f} s", flush=True)
        folder, before = Path(parent) / "killed", dict[str, tuple[int, int]]()
        folder.mkdir()
        for _ in range(known.kills):
            process, moment = start(folder, options), rng.uniform(0.1, 2) * seconds / (known.kills + 1)
            while process.poll() is None and "about " not in (folder / "stderr").read_text():
                time.sleep(0.05)
            time.sleep(moment)
            process.kill()
            ended, now = process.wait(), finished(folder)
            again = [name for name, file in before.items() if now.get(name) != file]
            problems += [f"done twice: {name}" for name in again]
            print(f"killed after {moment:.1f} s ({ended}): {len(now)} pieces of work, {len(again)} twice", flush=True)
            before = now
        seconds = finish(folder, options)
        problems += [f"done twice: {name}" for name, file in before.items() if finished(folder).get(name) != file]
        if result(folder / "bench") != result(whole):
            problems.append("the result differs from that of the undisturbed bench")
        files = {path: path.read_bytes() for path in (folder / "bench").rglob("*") if path.is_file()}
        said = (folder / "stdout").read_text()
        finish(folder, options)
        changed = [str(path) for path, data in files.items() if path.read_bytes() != data]
        problems += [f"another repetition changed {path}" for path in changed]
        if (folder / "stdout").read_text() != said:
            problems.append("another repetition printed another table")
    print("\n".join(problems) or f"equal after {known.kills} kills; the last attempt took {seconds:.0f} s")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
