"""The folder of a teacher that `dmgd train-teacher` has trained.

    teacher.safetensors   the weights
    teacher.json          what it is: network, input, classes in order, accuracy, digest, what it was trained with
    checkpoint.pt         the state of an unfinished training

The description is sealed and written last: a folder without it holds no teacher.
"""

from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from dmgd.classes.info import ClassInfo
from dmgd.errors import ArtifactError, UsageError
from dmgd.files import file_problem, is_temporary, misfit, read_sealed, sha256_bytes, write_bytes, write_sealed
from dmgd.guard import GUARD

FORMAT = 1
DESCRIPTION, WEIGHTS, CHECKPOINT = "teacher.json", "teacher.safetensors", "checkpoint.pt"
_REMEDY = "train it again with dmgd train-teacher"
_SHAPE = {
    "network": str,
    "norm": str,
    "size": int,
    "channels": int,
    "mean": [float],
    "std": [float],
    "classes": [{"name": str, "wnid": str | None}],
    "top1": float | int,
    "sha256": str,
    "asked": {},
}


def require_own(folder: Path) -> None:
    """Raise UsageError if the folder is neither empty nor a teacher's."""
    names = [path.name for path in (folder.iterdir() if folder.is_dir() else ())]
    own = (GUARD, DESCRIPTION, WEIGHTS, CHECKPOINT)
    others = [name for name in names if name not in own and not is_temporary(name)]
    if others:
        raise UsageError(f"{folder} exists and is no teacher's (it holds {min(others)}); choose a new --out folder")


def is_teacher_folder(path: Path) -> bool:
    return (path / DESCRIPTION).is_file()


def write_teacher(folder: Path, network: nn.Module, description: dict[str, Any]) -> dict[str, Any]:
    """Write the network and its description, which is returned with the digest of the weights."""
    weights = save({name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()})
    write_bytes(folder / WEIGHTS, weights)
    described = {"format": FORMAT, **description, "sha256": sha256_bytes(weights)}
    write_sealed(folder / DESCRIPTION, described)
    return described


def read_description(folder: Path) -> dict[str, Any]:
    """The description of the teacher in the folder. Raises ArtifactError if it or the weights were changed."""
    missing = UsageError(f"{folder} holds no teacher (no {DESCRIPTION})")
    described = read_sealed(folder / DESCRIPTION, FORMAT, missing=missing, remedy=_REMEDY)
    if problem := misfit(described, _SHAPE):
        raise ArtifactError(f"{folder / DESCRIPTION} does not describe a teacher ({problem}); {_REMEDY}")
    if problem := file_problem(folder, WEIGHTS, described["sha256"]):
        raise ArtifactError(f"the teacher {folder} is damaged ({problem}); {_REMEDY}")
    return described


def classes_of(described: dict[str, Any]) -> tuple[ClassInfo, ...]:
    """The teacher's classes, in the order of its outputs."""
    return tuple(ClassInfo.from_json(fields) for fields in described["classes"])
