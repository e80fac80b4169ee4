"""A teacher's soft labels for the images of a run.

A teacher folder has `soft_labels.safetensors` with the tensor `logits` (N, C), a row per image and a column per class,
in the run's order, and in the header's metadata `keys`, the N image keys (`c0003-i00007`) as a JSON list.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy import ndarray
from safetensors import SafetensorError, safe_open

from dmgd.errors import ArtifactError, MismatchError

FILE = "soft_labels.safetensors"


def read_soft_labels(folder: Path, keys: list[str], num_classes: int) -> Mapping[str, ndarray]:
    """The logits (num_classes,), float32, of each of the images `keys`.

    Raises ArtifactError if the file is missing or damaged, MismatchError if it does not fit the run.
    """
    path = folder / FILE
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist; a teacher folder has its soft labels there")
    try:
        with safe_open(path, "numpy") as file:
            listed = [str(key) for key in json.loads((file.metadata() or {})["keys"])]
            logits = np.asarray(file.get_tensor("logits"), dtype=np.float32)
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError, OSError) as error:
        raise ArtifactError(f"{path} has no logits with keys ({error}); see docs/export.md for the format") from error
    if logits.shape != (len(listed), num_classes):
        raise MismatchError(
            f"{path} has logits of shape {logits.shape} for {len(listed)} keys; the run has {num_classes} classes"
        )
    if not (finite := np.isfinite(logits).all(1)).all():
        raise ArtifactError(
            f"{path} has NaN or infinite logits for {(~finite).sum()} of {len(listed)} images, first "
            f"{listed[finite.argmin()]}; make them again with a teacher whose outputs are finite"
        )
    found = dict(zip(listed, logits, strict=True))
    if missing := [key for key in keys if key not in found]:
        raise MismatchError(f"{path} lacks {len(missing)} of the run's {len(keys)} images, first {missing[0]}")
    return found
