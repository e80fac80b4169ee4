"""The lock file: a small file to commit, which records what a distilled set must look like.

Per class it has one digest over the pixels of its images, and a sketch: the mean of their 4×4 thumbnails. Equal digests
mean equal pixels. Another processor may round a few pixels differently; then the sketches must agree within the lock
file's own `tolerance`, in grey levels of 255.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from PIL import Image

from dmgd.errors import ArtifactError
from dmgd.files import misfit, read_json
from dmgd.runs.manifest import differences, with_teacher

FORMAT = 1
OF_THE_MACHINE = ("batch_size", "compile")
SKETCH = 4
TOLERANCE = 0.5
_OF_A_CLASS = {"name": str, "wnid": str | None, "images": int, "pixels_sha256": str, "sketch": [int | float]}
_SHAPE = {"tolerance": int | float, "config": dict, "prior": str, "classes": [_OF_A_CLASS]}


def make_lock(manifest: dict[str, Any], images: Iterable[tuple[int, ndarray]], tiles: int = 1) -> dict[str, Any]:
    """The lock file's content for a manifest and (class index, uint8 pixels (h, w, c)) of every image, in order; with
    `tiles` above 1 they are parts of mosaics."""
    spec, identity = manifest["specs"]["prior"], manifest["prior"]
    names = {  # without local paths
        "source": manifest["statistics"]["source"]["name"],
        "prior": spec["name"] if identity["revision"] else identity["id"],
        "precision": spec["precision"],
        **({"tiles": tiles} if tiles > 1 else {}),
    }
    config = with_teacher(manifest, lambda name: manifest["plan"]["teacher"]["sha256"])["config"]
    digests = [hashlib.sha256() for _ in manifest["classes"]]
    sketches: list[list[ndarray]] = [[] for _ in manifest["classes"]]
    for c, pixels in images:
        digests[c].update(pixels.tobytes())
        sketches[c].append(sketch(pixels))
    return {
        "format": FORMAT,
        "tolerance": TOLERANCE,
        "config": {key: value for key, value in config.items() if key not in OF_THE_MACHINE} | names,
        "prior": identity["digest"],
        "versions": manifest["versions"],
        "classes": [
            {
                "name": info["name"],
                "wnid": info["wnid"],
                "images": len(own),
                "pixels_sha256": digest.hexdigest(),
                "sketch": np.mean(own, axis=0).round(2).tolist() if own else [],
            }
            for info, digest, own in zip(manifest["classes"], digests, sketches, strict=True)
        ],
    }


def sketch(pixels: ndarray) -> ndarray:
    """The 4×4 thumbnail (16 · c,) of uint8 pixels (h, w, c), by box averaging, channel by channel."""
    channels = [Image.fromarray(channel.astype(np.float32)) for channel in np.moveaxis(pixels, -1, 0)]
    return np.concatenate([np.array(c.resize((SKETCH, SKETCH), Image.Resampling.BOX)).ravel() for c in channels])


def read_lock(path: Path) -> dict[str, Any]:
    """The content of the lock file. Raises ArtifactError if it is missing, damaged or has another format."""
    remedy = "make it with --write-lock"
    missing = ArtifactError(f"the lock file {path} does not exist; {remedy}")
    lock = read_json(path, FORMAT, ("classes", "tolerance"), missing=missing, remedy=remedy)
    if problem := misfit(lock, _SHAPE):
        raise ArtifactError(f"{path} is damaged ({problem}); {remedy}")
    return lock


def compare_locks(locked: dict[str, Any], found: dict[str, Any]) -> tuple[list[str], str]:
    """The differences between a lock file and that of the set found, and in which sense the pixels are equal."""
    # The prior's name is for readers: its digest says which it is.
    wanted, own = ({"config": {**one["config"], "prior": None}, "prior": one["prior"]} for one in (locked, found))
    problems = differences(wanted, own)
    inexact = 0
    if len(locked["classes"]) != len(found["classes"]):
        problems.append(f"classes: {len(locked['classes'])} locked, {len(found['classes'])} found")
    for index, (wanted, own) in enumerate(zip(locked["classes"], found["classes"], strict=False)):
        name = f"class {index} ({wanted['name']})"
        identity = ("name", "wnid", "images")
        if [wanted[key] for key in identity] != [own[key] for key in identity]:
            problems.append(f"{name}: {wanted['images']} images locked, {own['images']} of {own['name']!r} found")
        elif wanted["pixels_sha256"] != own["pixels_sha256"]:
            inexact += 1
            distance = _distance(wanted["sketch"], own["sketch"])
            if not distance <= locked["tolerance"]:
                problems.append(f"{name}: its images differ, their mean by {distance:.2f} of 255 grey levels")
    if not inexact:
        return problems, "equal pixels"
    return problems, f"{inexact} classes within {locked['tolerance']} of 255 grey levels in the mean, the others equal"


def _distance(one: list[float], other: list[float]) -> float:
    if len(one) != len(other):
        return float("inf")
    return float(np.abs(np.subtract(one, other)).max(initial=0))
