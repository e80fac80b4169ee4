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
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 30  # after which a command hangs
MEMORY = 3 << 30  # that a command may add to the parent's
GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
LAYOUTS = ("webdataset", "parquet", "imagefolder", "tensors")
SMALL = "--source folder:{base}/photos --prior digits"
DISTIL = f"distill {SMALL} --ipc 2 --method dit --steps 2 --stats {{base}}/stats/stats.safetensors"
FIT = "fit-stats --prior digits --k 1 --workers 0 --max-bad 0.4 --json --out {case}/out/stats --source"
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
    return json.loads(re.sub(r'"\w*seconds": [\d.e-]+', '"seconds": 0', stdout))


def statistics(case: Path, stdout: str) -> Any:
    from dmgd.statistics.file import Statistics

    return Statistics.load(case / "out" / "stats").digest


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


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
    return json.loads((case / "target" / "lock.json").read_text())


KINDS = {
    "image folder": Kind("photos", f"{FIT} folder:{{target}}", counted, counts=True),
    "tar shards": Kind("shards", f"{FIT} wds:{{target}}", counted, counts=True),
    "Parquet": Kind("parquet", f"{FIT} hf:{{target}}", counted, counts=True),
    "saved dataset": Kind("saved", f"{FIT} hf:{{target}}", counted, counts=True),
    "class map, JSON": Kind("maps", f"{FIT} folder:{{base}}/named --class-map {{target}}/map.json"),
    "class map, CSV": Kind("maps", f"{FIT} folder:{{base}}/named --class-map {{target}}/map.csv"),
    "latent cache": Kind("cache", f"{FIT} folder:{{base}}/photos", statistics),
    "statistics": Kind("stats", DISTIL.replace("{base}/stats", "{target}") + " --out {case}/out", None),
    "run, verify": Kind("run", "verify {target}", everything_read),
    "run, export": Kind("run", "export {target} --out {case}/out", lambda case, _: digests(case / "out")),
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
    "prior, .pt": Kind("pt", f"{WITH_PRIOR} --prior {{target}}/tiny.pt --vae {{base}}/prior/vae"),
    "prior, .safetensors": Kind("st", f"{WITH_PRIOR} --prior {{target}}/tiny.safetensors --vae {{base}}/prior/vae"),
}


# The originals.


def make_originals(base: Path) -> None:
    import numpy as np
    import torch
    from datasets import ClassLabel, Dataset, Features
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
        dataset.save_to_disk(base / "saved" / split) if split == "train" else None
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
    blocks = {"down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}
    AutoencoderKL(**blocks, block_out_channels=(32,), latent_channels=4).save_pretrained(base / "prior" / "vae")
    DDPMScheduler().save_pretrained(base / "prior" / "scheduler")
    (base / "prior" / "dmgd.json").write_text(json.dumps({"id": "mutated", "classes": ["0", "1"]}))
    for folder, suffix in (("pt", "pt"), ("st", "safetensors")):
        shutil.copy(GOLDEN / f"dit_tiny_original.{suffix}", base / folder / f"tiny.{suffix}")
        described = {"id": "tiny", "num_heads": 4, "guided_channels": 3, "classes": [*map(str, range(10))]}
        (base / folder / "tiny.dmgd.json").write_text(json.dumps(described))
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
    shutil.rmtree(base / "case")


# The mutations.

JSON_VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 2, 1.5, 10**6, 10**30, -0.0, 1e308, float("nan"), float("inf"), -float("inf"), "",
    "0", "nan", "../victim/precious", "/dev/zero", "\0", "\ud800", "[/x]", "[red]", "\x1b[31m", "a" * 5000, "1" * 5000,
    [], {}, [None], [[]], {"": None},
]  # fmt: skip
NAMES = [
    b"new", b".hidden", b"caf\xe9", b"line\nbreak", b"[red]", b"[bold]", b"\x1b[31mred", b"a" * 200, b"-rf", b"*",
    b"%s", b"index.json", b"run.json", b"metadata.jsonl", b"x.png", b"train-00009.tar", b"9.parquet", b"\xc2\xb2",
    b"x.jpg",
]  # fmt: skip
CHUNKS = [b"\0", b"\xff", b"NaN", b"-1", b"\0" * 512, b"\n", b'"', b"../", b"\xc3\x28", b"9" * 20, b"\x1b[31m"]


def mutate(target: Path, rng: random.Random) -> tuple[str, bool]:
    """Change one thing below `target`. Returns what, and whether files were added, removed or renamed."""
    files = sorted(path for path in target.rglob("*") if path.is_file())
    path = rng.choice(files)
    name, structured = path.relative_to(target), path.suffix in (".json", ".safetensors")
    if rng.random() < 0.25:
        return f"{rename(path, rng)} {name}", True
    if structured and rng.random() < 0.6:
        data = path.read_bytes()
        if path.suffix == ".json":
            changed, what = mutated_json(data, rng)
        else:
            size = struct.unpack("<Q", data[:8])[0]
            header, what = mutated_json(data[8 : 8 + size], rng)
            changed = struct.pack("<Q", len(header)) + header + data[8 + size :]
    else:
        changed, what = mutated_bytes(path.read_bytes(), rng)
    path.write_bytes(changed)
    return f"{what} in {name}", False


def rename(path: Path, rng: random.Random) -> str:
    other = path.parent / os.fsdecode(rng.choice(NAMES))
    match rng.choice(["remove", "rename", "copy", "add", "link", "loop", "zero", "fifo", "folder", "nest", "move up"]):
        case "remove":
            path.unlink()
            return "remove"
        case "rename":
            path.replace(other)
            return f"rename to {other.name!r}"
        case "copy":
            shutil.copyfile(path, other)
            return f"copy to {other.name!r}"
        case "add":
            other.write_bytes(rng.choice(CHUNKS))
            return f"add {other.name!r} beside"
        case "link":
            path.unlink()
            path.symlink_to("../" * rng.randint(1, 4) + "victim/precious")
            return "link instead of"
        case "loop":
            (path.parent / "loop").symlink_to(path.parent, target_is_directory=True)
            return "loop beside"
        case "zero":
            path.unlink()
            path.symlink_to("/dev/zero")
            return "link to /dev/zero instead of"
        case "fifo":
            path.unlink()
            os.mkfifo(path)
            return "FIFO instead of"
        case "folder":
            path.unlink()
            path.mkdir()
            return "folder instead of"
        case "nest":
            shutil.copytree(path.parent, path.parent / "nested" / "deep") if len(path.parts) else None
            return "copy of its folder inside that of"
        case _:
            path.replace(path.parent.parent / path.name)
            return "move up"


def mutated_bytes(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    start = rng.randrange(len(data) + 1)
    end = min(len(data), start + rng.choice([1, 4, 30, 512, 4096]))
    match rng.choice(["flip", "flip", "cut", "delete", "repeat", "insert", "overwrite", "empty", "zeros"]):
        case "flip":
            bits = bytearray(data or b"\0")
            for _ in range(rng.choice([1, 1, 1, 8])):
                bits[rng.randrange(len(bits))] ^= 1 << rng.randrange(8)
            return bytes(bits), "flipped bits"
        case "cut":
            return data[:start], f"cut at {start}"
        case "delete":
            return data[:start] + data[end:], f"{start}:{end} deleted"
        case "repeat":
            return data[:end] + data[start:], f"{start}:{end} repeated"
        case "insert":
            chunk = rng.choice(CHUNKS)
            return data[:start] + chunk + data[start:], f"{chunk[:9]!r} inserted at {start}"
        case "overwrite":
            chunk = rng.choice(CHUNKS)
            return data[:start] + chunk + data[start + len(chunk) :], f"{chunk[:9]!r} written at {start}"
        case "zeros":
            return data[:start] + bytes(end - start) + data[end:], f"{start}:{end} set to zero"
        case _:
            return b"", "everything removed"


def mutated_json(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """The document with one value, key or type changed; in a safetensors header, within its metadata, too."""
    value = json.loads(data)
    if rng.random() < 0.03:
        return b"[" * 100_000 + b"]" * 100_000, "deep JSON"
    places = list(places_in(value))
    parent, key = rng.choice(places) if places else ([value], 0)
    inner = parent[key]
    if isinstance(inner, str) and inner.startswith(("{", "[")) and rng.random() < 0.9:
        parent[key], what = mutated_json(inner.encode(), rng)
        parent[key] = parent[key].decode(errors="surrogateescape")
        return json.dumps(value).encode(), f"{key}: {what}"
    match rng.choice(["set", "set", "set", "remove", "add", "type", "number", "swap"]):
        case "remove":
            del parent[key]
            return json.dumps(value).encode(), f"{key!r} removed"
        case "add":
            inner = rng.choice(JSON_VALUES)
            parent.insert(key, inner) if isinstance(parent, list) else parent.update({f"{key}2": inner})
            return json.dumps(value).encode(), f"{str(inner)[:40]!r} added beside {key!r}"
        case "type":
            parent[key] = rng.choice([str(inner), [inner], {"value": inner}, [inner, inner]])
        case "number" if isinstance(inner, int | float):
            parent[key] = inner + rng.choice([1, -1, 0.5, 1000])
        case "swap":
            other, at = rng.choice(places)
            parent[key], other[at] = json.loads(json.dumps([other[at], inner]))
        case _:
            parent[key] = rng.choice(JSON_VALUES)
    return json.dumps(value).encode(), f"{key!r} set to {str(parent[key])[:40]!r}"


def places_in(value: Any) -> Any:
    """(container, key) of every value in a JSON document."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from places_in(inner)


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
    texts = {name: (case / name).read_text(errors="replace") for name in ("stdout", "stderr") if (case / name).exists()}
    return {"stdout": "", "stderr": "", **outcome, **texts}


def forked(case: Path, command: str, cache: Path, read: Callable[[Path, str], Any] | None = None) -> dict[str, Any]:
    os.waitpid(start(case, command, cache, read), 0)
    return outcome_of(case)


def judge(outcome: dict[str, Any], kind: Kind, whole: str, what: str, moved: bool, hung: bool) -> str:
    """ "refused", "equal", "other data", or a failure, which begins with FAILED."""
    said = outcome["stdout"] + outcome["stderr"]
    if hung:
        return "FAILED hang"
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
        cache = target if self.kind.original == "cache" else base / "cache"
        command = self.kind.command.format(base=base, case=self.case, target=target)
        self.pid, self.deadline = start(self.case, command, cache, self.kind.read), time.monotonic() + SECONDS

    def ended(self) -> bool:
        if time.monotonic() > self.deadline:
            os.killpg(self.pid, signal.SIGKILL)
            self.hung = True
        return os.waitpid(self.pid, 0 if self.hung else os.WNOHANG)[0] != 0

    def verdict(self, whole: str) -> str:
        verdict = judge(outcome_of(self.case), self.kind, whole, self.what, self.moved, self.hung)
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
        cache = case / "target" if kind.original == "cache" else base / "cache"

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
    return wholes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", type=int, help="number of the one mutation to repeat")
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"}
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
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
                if verdict.startswith("FAILED") or options.only is not None:
                    print(f"--seed {options.seed} --only {one.number}: {one.name}, {one.what}: {verdict}", flush=True)
            time.sleep(0.002)
    for (name, verdict), count in sorted(counts.items()):
        print(f"{count:6}  {name}: {verdict}")
    failed = sum(count for (_, verdict), count in counts.items() if verdict.startswith("FAILED"))
    print(f"{sum(counts.values())} mutations, {failed} failures")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
