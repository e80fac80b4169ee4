"""The finished parts of a labelling that is not: so that one that was killed goes on, and ends with the same bytes.

    unfinished/00000.safetensors …    the coded logits of some images or views, in order; in the metadata what was asked
                                      of the labelling, the number of the first row, and the errors up to the last

A part that is damaged or does not follow the one before, and all after it, are as if they were not there.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dmgd.evaluation.checkpoint import Minutes
from dmgd.files import canonical_json, sha256_bytes, write_bytes
from dmgd.runs.prior_folder import require_same

UNFINISHED = "unfinished"


@dataclass
class Labelled:
    """The coded logits of the first rows, in `parts`, and by temperature the largest and the summed error."""

    parts: list[dict[str, ndarray]]
    errors: dict[str, list[float]]

    @property
    def rows(self) -> int:
        return sum(len(part["logits"]) for part in self.parts)

    def whole(self) -> dict[str, ndarray]:
        """The parts as one, contiguous, as they must be to be saved."""
        joined = {name: np.concatenate([part[name] for part in self.parts]) for name in self.parts[0]}
        return {name: np.ascontiguousarray(one) for name, one in joined.items()}


class LabelParts:
    """The parts in the folder `out` of the labelling that `asked` describes; a further one is written every minute."""

    def __init__(self, out: Path, asked: dict[str, Any]):
        self._folder, self._out, self._asked = out / UNFINISHED, out, asked
        self._minutes, self._written, self._count = Minutes(), 0, 0

    @property
    def begun(self) -> bool:
        return self._path(0).is_file()

    def read(self, temperatures: Sequence[float]) -> Labelled:
        """What is there. Raises MismatchError, listing the differences, if something else was asked for."""
        found = Labelled([], {f"{t:g}": [0.0, 0.0] for t in temperatures})
        while (path := self._path(self._count)).is_file():
            try:
                with safe_open(path, "numpy") as file:
                    known = {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
                    part = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
                if (known["first"], known["sha256"]) != (found.rows, _digest(part)):
                    break
            except (SafetensorError, KeyError, ValueError, OSError):
                break
            require_same(self._out, known["asked"], self._asked)
            found = Labelled([*found.parts, part], known["errors"])
            self._count += 1
        self._written = len(found.parts)
        return found

    def keep(self, labelled: Labelled) -> None:
        """Write what is new of it, if a minute is over."""
        if not self._minutes.is_over():
            return
        new = Labelled(labelled.parts[self._written :], {}).whole()
        first = labelled.rows - len(new["logits"])
        known = {"asked": self._asked, "first": first, "errors": labelled.errors, "sha256": _digest(new)}
        write_bytes(self._path(self._count), save(new, {name: json.dumps(one) for name, one in known.items()}))
        self._written, self._count = len(labelled.parts), self._count + 1

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:05d}.safetensors"


def _digest(part: dict[str, ndarray]) -> str:
    shapes = canonical_json({name: [str(one.dtype), list(one.shape)] for name, one in part.items()})
    return sha256_bytes(shapes.encode() + b"".join(part[name].tobytes() for name in sorted(part)))
