"""Shared by several tests: a run made without sampling, and the digests of a folder."""

import hashlib
import json

import numpy as np
import torch

from dmgd.classes.info import ClassInfo
from dmgd.files import SEAL, write_sealed
from dmgd.generation.batches import Batch
from dmgd.generation.config import DistillConfig
from dmgd.matching.methods import DMGD
from dmgd.runs.directory import RunDirectory
from dmgd.runs.preview import write_preview
from dmgd.specs import PriorSpec, SourceSpec


def make_run(path, names=("cat", "dog"), ipc=3, size=8, channels=3, seed=0):
    """A run of `ipc` random images for each class name."""
    rng = np.random.default_rng(seed)
    classes = [ClassInfo(name, prior_index=i) for i, name in enumerate(names)]
    manifest = {
        "specs": {"source": SourceSpec("digits").to_json(), "prior": PriorSpec("digits").to_json()},
        "config": DistillConfig(ipc=ipc).to_json(),
        "plan": {"method": DMGD(guidance_scale=1.5).to_json()},
        "classes": [info.to_json() for info in classes],
        "prior": {"id": "digits", "revision": None, "digest": "0" * 64, "numerics": "diffusers"},
        "statistics": {"source": {"name": "made", "variant": "for tests", "licence": "CC0"}, "sha256": "1" * 64},
        "device": "cpu",
        "versions": {"dmgd": "0.1.0"},
    }
    batch = Batch(range(len(names)), range(ipc))
    pixels = rng.integers(0, 256, (len(batch), size, size, channels), dtype=np.uint8)
    measured = [{"seed": int(rng.integers(2**48)), "other_class": 1, "ot_cost": 0.25} for _ in batch.indices()]
    with RunDirectory.writer(path, manifest) as run:
        run.write_batch(batch, pixels, torch.zeros(len(batch), 1, 2, 2), measured)
        write_preview(run)
        return run.finish()


def forge(path, change):
    """Change the content of a JSON file and renew its checksum, as only somebody could who means to."""
    content = json.loads(path.read_text())
    del content[SEAL]
    change(content)
    write_sealed(path, content)


def rows(*indices):
    """The classes in these rows of a prior's table."""
    return [ClassInfo(f"row {index}", prior_index=index) for index in indices]


def tree(folder):
    """The digest of every file under `folder`, by its path there."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
