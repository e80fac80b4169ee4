"""Mutates the files that `dmgd` reads, and judges what its commands make of them.

    python tools/mutate.py --seed 1 --minutes 2

Every mutation damages one file or JSON value, or adds, removes, renames or replaces a file, of one of the KINDS of
data, and runs a command on it in a forked process. Right are: one line and exit code 1 or 2, or the result of the
undamaged data. Failures, printed with the number that repeats them (--only NUMBER): a traceback, a hang, an exit
without a line, escape sequences from file names, a changed file elsewhere, or success with a changed result: another
result than before where checksums protect the data, fewer images without a warning in plain sources. Data without
checksums may be other data after a mutation. Exit code 1 for any failure.
"""

import argparse
import collections
import contextlib
import faulthandler
import gc
import hashlib
import importlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutations import mutate

sys.path.append(str(Path(__file__).parents[1] / "tests"))

SECONDS = 30  # after which a command hangs
MEMORY = 3 << 30  # that a command may add to the parent's
GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
LAYOUTS = ("webdataset", "parquet", "imagefolder", "tensors")
SMALL = "--source folder:{base}/photos --prior digits"
DISTIL = f"distill {SMALL} --ipc 2 --method dit --steps 2 --stats {{base}}/stats/stats.safetensors"
FIT = "fit-stats --prior digits --k 1 --workers 0 --max-bad 0.4 --json --out {case}/out/stats --no-cache --source"
PROBE = "evaluate {target} --network probe --repeats 1 --against random --json"
WITH_PRIOR = "distill --source folder:{base}/photos --ipc 1 --method dit --steps 2 --out {case}/out"


@dataclass(frozen=True)
class Kind:
    """A kind of data: the `original` in the base folder, and the `command` that reads the mutated copy, {target}.

    `read(case)` gives what the command read, to be compared: None for data that may become other data. `counts`: a
    smaller result is right if there is a warning or if files were removed or renamed.
    """

    original: str
    command: str
    read: Callable[[Path, str], Any] | None = None
    counts: bool = False


def counted(case: Path, stdout: str) -> Any:
    return {row["class"]: row["images"] for row in json.loads(stdout)["classes"]}


def evaluated(case: Path, stdout: str) -> Any:
    """The evaluation without its times, and without its command, which names the case's folder."""
    return json.loads(re.sub(r'"(\w*seconds|date|command)": ([\d.e-]+|"(\\.|[^"\\])*")', r'"\1": 0', stdout))


def statistics(case: Path, stdout: str) -> Any:
    from dmgd.statistics.file import Statistics

    return Statistics.load(case / "out" / "stats").digest


def content(path: Path) -> bytes:
    """The bytes of a file; of JSON its value, however it is laid out."""
    data = path.read_bytes()
    with contextlib.suppress(ValueError, RecursionError):
        return json.dumps(json.loads(data), sort_keys=True).encode() if path.suffix == ".json" else data
    return data


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(content(path)).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def written(case: Path, stdout: str) -> Any:
    return digests(case / "out")


def own_files(case: Path, stdout: str) -> Any:
    """The files of the continued run that the undamaged one has, too."""
    names = digests(case.parent / "run")
    return {name: digest for name, digest in digests(case / "target").items() if name in names}


def everything_read(case: Path, stdout: str) -> Any:
    """All that a reader of the run or export gets."""
    from dmgd.exporters.distilled import DistilledSet

    found = DistilledSet.open(case / "target")
    records = [record.to_json() for record in found.run.records()] if found.run else found.index
    pixels = [(c, i, hashlib.sha256(array.tobytes()).hexdigest()) for c, i, array in found.images()]
    return [found.manifest, records, pixels]


def lock_read(case: Path, stdout: str) -> Any:
    """What must be equal however images are compared."""
    classes = json.loads((case / "target" / "lock.json").read_text())["classes"]
    return [(one["name"], one["images"]) for one in classes]


KINDS = {
    "image folder": Kind("photos", f"{FIT} folder:{{target}}", counted, counts=True),
    "tar shards": Kind("shards", f"{FIT} wds:{{target}}", counted, counts=True),
    "Parquet": Kind("parquet", f"{FIT} hf:{{target}}", counted, counts=True),
    "saved dataset": Kind("saved", f"{FIT} hf:{{target}}", counted, counts=True),
    "class map, JSON": Kind("maps", f"{FIT} folder:{{base}}/named --class-map {{target}}/map.json"),
    "class map, CSV": Kind("maps", f"{FIT} folder:{{base}}/named --class-map {{target}}/map.csv"),
    "latent cache": Kind("cached", f"{FIT.replace('--no-cache ', '')} folder:{{base}}/photos", statistics),
    "statistics": Kind("stats", DISTIL.replace("{base}/stats", "{target}") + " --out {case}/out", written),
    "run, verify": Kind("run", "verify {target}", everything_read),
    "run, export": Kind("run", "export {target} --out {case}/out", written),
    "run, evaluate": Kind("run", PROBE, evaluated),
    "run, continue": Kind("run", f"{DISTIL} --out {{target}}", own_files),
    **{f"{layout}, verify": Kind(f"as-{layout}", "verify {target}", everything_read) for layout in LAYOUTS},
    **{
        f"{layout}, evaluate": Kind(f"as-{layout}", f"{PROBE} --source folder:{{base}}/photos", evaluated)
        for layout in LAYOUTS
    },
    "lock file": Kind("lock", "verify {base}/run --lock {target}/lock.json", lock_read),
    "results": Kind("results", "export {base}/run --evaluation {target}/results.json --out {case}/out"),
    "soft labels": Kind("soft", "export {base}/run --soft-labels {target} --format parquet --out {case}/out"),
    "prior, folder": Kind("prior", f"{WITH_PRIOR} --prior {{target}}"),
    "prior, shards": Kind("sharded", f"{WITH_PRIOR} --prior {{target}} --vae {{base}}/prior/vae"),
    "prior, pipeline": Kind("sd3", f"{WITH_PRIOR} --prior {{target}}"),
    "prior, .pt": Kind("pt", f"{WITH_PRIOR} --prior {{target}}/tiny.pt --vae {{base}}/prior/vae"),
    "prior, .safetensors": Kind("st", f"{WITH_PRIOR} --prior {{target}}/tiny.safetensors --vae {{base}}/prior/vae"),
}


# The originals.


def make_originals(base: Path) -> None:
    import numpy as np
    import torch
    from datasets import ClassLabel, Dataset, DatasetDict, Features
    from datasets import Image as ImageFeature
    from diffusers import AutoencoderKL, DDPMScheduler, DiTTransformer2DModel
    from PIL import Image
    from safetensors.numpy import save_file
    from webdataset import ShardWriter

    rng, rows = np.random.default_rng(0), []
    for index in range(20):
        split, label = "test" if index < 4 else "train", index % 2
        pixels = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        for root, name in (("photos", str(label)), ("named", f"class {label}")):
            folder = base / root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{index}.{'png' if index % 3 else 'jpg'}")
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        rows.append((split, label, buffer.getvalue()))
    datasets = DatasetDict()
    (base / "shards").mkdir()
    (base / "parquet").mkdir()
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["0", "1"])})
    for split in ("train", "test"):
        own = [(label, data) for where, label, data in rows if where == split]
        with ShardWriter(f"{base}/shards/{split}-%03d.tar", maxcount=8, verbose=0, mtime=0) as shards:
            for number, (label, data) in enumerate(own):
                shards.write({"__key__": f"{number:04d}", "png": data, "cls": label})
        columns = {"image": [{"bytes": data, "path": None} for _, data in own], "label": [label for label, _ in own]}
        dataset = Dataset.from_dict(columns, features=features)
        dataset.to_parquet(base / "parquet" / f"{split}-00000-of-00001.parquet")
        datasets[split] = dataset
    datasets.save_to_disk(base / "saved")
    for folder in ("maps", "lock", "results", "soft", "pt", "st", "victim"):
        (base / folder).mkdir()
    (base / "victim" / "precious").write_text("dear")
    (base / "maps" / "map.json").write_text(json.dumps({"class 0": "0", "class 1": "1"}))
    (base / "maps" / "map.csv").write_text("class 0,0\nclass 1,1\n")
    # A prior with autoencoder and scheduler, and original checkpoints.
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 1, "attention_head_dim": 8, "num_layers": 1, "sample_size": 8, "patch_size": 4}
    network = DiTTransformer2DModel(**sizes, in_channels=4, out_channels=8, num_embeds_ada_norm=2)
    network.save_pretrained(base / "prior" / "transformer")
    network.save_pretrained(base / "sharded", max_shard_size="4KB")
    (base / "sharded" / "model_index.json").write_text(json.dumps({"id2label": {"0": "0", "1": "1"}}))
    blocks = {"down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}
    AutoencoderKL(**blocks, block_out_channels=(32,), latent_channels=4).save_pretrained(base / "prior" / "vae")
    DDPMScheduler().save_pretrained(base / "prior" / "scheduler")
    (base / "prior" / "dmgd.json").write_text(json.dumps({"id": "mutated", "classes": ["0", "1"]}))
    shutil.copy(GOLDEN / "dit_tiny_original.safetensors", base / "st" / "tiny.safetensors")
    state = torch.load(GOLDEN / "dit_tiny_original.pt", weights_only=True)
    state = state.get("ema", state)
    torch.save({"ema": state, "args": argparse.Namespace(model="DiT-XL/2")}, base / "pt" / "tiny.pt")
    for folder in ("pt", "st"):
        described = {
            "id": "tiny",
            "prior_type": "dit",
            "num_heads": 4,
            "guided_channels": 3,
            "classes": [*map(str, range(10))],
        }
        (base / folder / "tiny.dmgd.json").write_text(json.dumps(described))
    from tiny_pipelines import make_pipeline

    make_pipeline("sd3", base / "sd3")
    # What the commands make of these.
    (base / "case").mkdir()
    for command in (
        f"fit-stats {SMALL} --k 1 --out {{base}}/stats/stats.safetensors",
        f"{DISTIL} --out {{base}}/run",
        *(f"export {{base}}/run --format {layout} --out {{base}}/as-{layout}" for layout in LAYOUTS),
        "verify {base}/run --write-lock {base}/lock/lock.json",
    ):
        outcome = forked(base / "case", command.format(base=base), cache=base / "cache")
        if outcome["code"] != 0:
            sys.exit(f"{command}: {outcome}")
    trained = f"evaluate {base}/run --epochs 1 --repeats 1 --against random --json"
    results = forked(base / "case", trained, cache=base / "cache")["stdout"]
    (base / "results" / "results.json").write_text(results)
    keys = [f"c{c:04d}-i{i:05d}" for c in range(2) for i in range(2)]
    logits = {"logits": rng.normal(size=(4, 2)).astype(np.float32)}
    save_file(logits, base / "soft" / "soft_labels.safetensors", {"keys": json.dumps(keys)})
    without = f"{FIT.replace('--no-cache ', '')} folder:{base}/photos"
    forked(base / "case", without.format(case=base / "case"), cache=base / "cached")
    shutil.rmtree(base / "case")


# Running and judging.


def start(case: Path, command: str, cache: Path, read: Callable[[Path, str], Any] | None = None) -> int:
    """The process id of a fork that runs the command and writes what came of it to case/outcome.json."""
    pid = os.fork()
    if pid:
        return pid
    os.setpgid(0, 0)
    outcome: dict[str, Any] = {"code": None, "traceback": "", "result": None}
    try:
        for variable, folder in (("TMPDIR", case / "tmp"), ("HOME", case / "home"), ("XDG_CACHE_HOME", cache)):
            folder.mkdir(exist_ok=True)
            os.environ[variable] = str(folder)
        tempfile.tempdir = None
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        for stream, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(case / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), stream)
        faulthandler.dump_traceback_later(0.9 * SECONDS, file=(case / "where").open("w"))
        sys.argv = ["dmgd", *command.split(" ")]
        sys.stdout, sys.stderr = (os.fdopen(n, "w", encoding="utf-8", buffering=1, closefd=False) for n in (1, 2))
        from dmgd_cli.app import main

        try:
            main()
            outcome["code"] = 0
        except SystemExit as ended:
            outcome["code"] = ended.code or 0
        if outcome["code"] == 0 and read:
            outcome["result"] = json.dumps(read(case, (case / "stdout").read_text()), sort_keys=True, default=str)
    except BaseException:
        outcome["traceback"] = traceback.format_exc()
    finally:
        (case / "outcome.json").write_text(json.dumps(outcome))
        os._exit(0)


def outcome_of(case: Path) -> dict[str, Any]:
    """What the fork wrote, and what it printed."""
    path = case / "outcome.json"
    outcome = json.loads(path.read_text()) if path.is_file() else {"code": None, "traceback": "it died"}
    names = [name for name in ("stdout", "stderr", "where") if (case / name).exists()]
    texts = {name: (case / name).read_text(errors="replace") for name in names}
    return {"stdout": "", "stderr": "", "where": "", **outcome, **texts}


def forked(case: Path, command: str, cache: Path, read: Callable[[Path, str], Any] | None = None) -> dict[str, Any]:
    os.waitpid(start(case, command, cache, read), 0)
    return outcome_of(case)


def judge(outcome: dict[str, Any], kind: Kind, whole: str, moved: bool, hung: bool) -> str:
    """ "refused", "equal", "other data", or a failure, which begins with FAILED."""
    said = outcome["stdout"] + outcome["stderr"]
    if hung:
        return f"FAILED hang: {outcome['where']}"
    if outcome["traceback"] or "Traceback (most recent" in said or "Exception ignored" in said:
        last = (outcome["traceback"] or said).strip().splitlines()
        return f"FAILED traceback: {last[-1][:150]} | {next((x.strip() for x in last[::-1] if '/dmgd' in x), '')}"
    if "\x1b" in said:
        return "FAILED escape sequence"
    if outcome["code"] not in (0, 1, 2):
        return f"FAILED exit code {outcome['code']}"
    if outcome["code"]:
        lines = [line for line in outcome["stderr"].splitlines() if line.startswith("error: ")]
        one_line = len(lines) == 1 and outcome["stderr"].splitlines()[-1] == lines[0]
        return (
            "refused"
            if one_line or (outcome["stdout"] and not outcome["stderr"])
            else f"FAILED not one line: {said[-300:]!r}"
        )
    if not kind.read or outcome["result"] == whole:
        return "equal" if kind.read else "other data"
    if kind.counts and (moved or "warning: " in said or outcome["result"].count(",") < whole.count(",")):
        return "other data"
    return f"FAILED changed result without a word: {outcome['result'][:200]}"


class Running:
    """A mutated copy and the command that reads it. The same seed and number give the same mutation."""

    def __init__(self, base: Path, seed: int, number: int) -> None:
        rng = random.Random(f"{seed} {number}")
        self.number, self.name = number, rng.choice([*KINDS])
        self.kind, self.case, self.hung = KINDS[self.name], base / f"case-{number}", False
        target = self.case / "target"
        self.case.mkdir()
        shutil.copytree(base / self.kind.original, target, symlinks=True)
        self.what, self.moved = mutate(target, rng)
        shutil.copytree(base / "victim", self.case / "victim")
        cache = target if self.kind.original == "cached" else base / "cache"
        command = self.kind.command.format(base=base, case=self.case, target=target)
        self.pid, self.deadline = start(self.case, command, cache, self.kind.read), time.monotonic() + SECONDS

    def ended(self) -> bool:
        if time.monotonic() > self.deadline:
            os.killpg(self.pid, signal.SIGKILL)
            self.hung = True
        pid, self.status = os.waitpid(self.pid, 0 if self.hung else os.WNOHANG)
        return pid != 0

    def verdict(self, whole: str) -> str:
        verdict = judge(outcome_of(self.case), self.kind, whole, self.moved, self.hung)
        if os.WIFSIGNALED(self.status) and not self.hung:
            verdict = f"FAILED crash: {signal.Signals(os.WTERMSIG(self.status)).name}"
        if digests(self.case / "victim") != digests(self.case.parent / "victim"):
            verdict = "FAILED another file was changed"
        shutil.rmtree(self.case)
        return verdict


def warm_up(base: Path) -> dict[str, str]:
    """The results of the undamaged data, by kind. All modules that the commands need are imported on the way, but
    nothing is run: a process with threads must not be forked."""
    wholes = {}
    for name, kind in KINDS.items():
        case = base / "whole"
        case.mkdir()
        shutil.copytree(base / kind.original, case / "target")
        command = kind.command.format(base=base, case=case, target=case / "target")
        cache = case / "target" if kind.original == "cached" else base / "cache"

        def read(case: Path, stdout: str, kind: Kind = kind) -> Any:
            (case / "modules").write_text("\n".join(sys.modules))
            return kind.read(case, stdout) if kind.read else None

        outcome = forked(case, command, cache, read)
        if outcome["code"] != 0:
            sys.exit(f"{name}: the undamaged data fail: {outcome}")
        wholes[name] = outcome["result"]
        for module in sorted({*(case / "modules").read_text().splitlines()} - {*sys.modules, "__mp_main__"}):
            with contextlib.suppress(Exception):  # those made at run time
                importlib.import_module(module)
        shutil.rmtree(case)
    gc.freeze()  # a fork then copies less
    return wholes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", type=int, help="number of the one mutation to repeat")
    parser.add_argument("--kind", help="mutate only the kinds of data whose names begin with this")
    options = parser.parse_args()
    for name in [name for name in KINDS if not name.startswith(options.kind or "")]:
        del KINDS[name]
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"}
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        base = Path(folder)
        if pid := os.fork():
            if os.waitpid(pid, 0)[1]:
                sys.exit("the originals could not be made")
        else:
            make_originals(base)
            os._exit(0)
        wholes, running, number = warm_up(base), [], options.only or 0
        print(f"{len(KINDS)} kinds, seed {options.seed}", flush=True)
        ends = time.monotonic() + 60 * options.minutes
        while running or time.monotonic() < ends:
            while len(running) < options.jobs and time.monotonic() < ends:
                running.append(Running(base, options.seed, number))
                number += 1
                ends = 0 if options.only is not None else ends
            for one in [one for one in running if one.ended()]:
                running.remove(one)
                verdict = one.verdict(wholes[one.name])
                counts[one.name, verdict.split(":")[0]] += 1
                of_kind = f" --kind {options.kind!r}" if options.kind else ""
                line = f"--seed {options.seed}{of_kind} --only {one.number}: {one.name}, {one.what}: {verdict}"
                if verdict.startswith("FAILED"):
                    failures.append(line)
                if verdict.startswith("FAILED") or options.only is not None:
                    print(line, flush=True)
            time.sleep(0.002)
    for (name, verdict), count in sorted(counts.items()):
        print(f"{count:6}  {name}: {verdict}")
    print(*failures, f"{sum(counts.values())} mutations, {len(failures)} failures", sep="\n")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
