"""The folder of a prior that is being trained, or was.

    training.json   what was asked for, the plan, and, when it is complete, the result
    checkpoint.pt   the state of an unfinished training
    dmgd.json       the description with which the prior is loaded; with it
    transformer/, scheduler/, vae/, samples.png, README.md

A process may be killed at any time: `training.json` becomes complete last.
"""

from pathlib import Path
from typing import Any

from dmgd.errors import MismatchError, UsageError
from dmgd.files import is_temporary, read_sealed, write_sealed
from dmgd.guard import GUARD
from dmgd.runs.manifest import differences

FORMAT = 1
RECORD, CHECKPOINT, SAMPLES, CARD = "training.json", "checkpoint.pt", "samples.png", "README.md"


def require_own(path: Path) -> None:
    """Raise UsageError if the folder is neither empty nor that of a training."""
    found = [other.name for other in (path.iterdir() if path.is_dir() else ())]
    others = [name for name in found if name != GUARD and not is_temporary(name)]
    if others and RECORD not in others:
        raise UsageError(
            f"{path} exists and is no training's (it holds {min(others)}); choose a new or empty --out folder"
        )


def read_record(path: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """The record of the training in the folder; None if there is none.

    Raises MismatchError, listing the differences, if something else was `asked` for there, ArtifactError if the record
    is damaged.
    """
    if not (path / RECORD).is_file():
        return None
    gone = UsageError(f"{path / RECORD} is no longer there")
    record = read_sealed(path / RECORD, FORMAT, ("asked", "plan"), missing=gone, remedy="choose another --out")
    require_same(path, record["asked"], asked)
    return record


def require_same(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise MismatchError, listing the differences, if they are not the same."""
    if differing := differences(found, wanted):
        raise MismatchError(
            f"{path} contains a training with other settings: {'; '.join(differing)}; choose another --out, or repeat "
            "the settings of that training to continue it"
        )


def write_record(path: Path, record: dict[str, Any]) -> None:
    write_sealed(path / RECORD, {"format": FORMAT, **record})
