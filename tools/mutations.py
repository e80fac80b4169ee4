"""Mutations of files: bits, ranges, JSON values, names, and special files in their place."""

import json
import os
import random
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    other = path.parent / os.fsdecode(rng.choice([one for one in NAMES if os.fsdecode(one) != path.name]))
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


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value in a JSON document."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from places_in(inner)
