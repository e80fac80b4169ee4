"""`weights.json` of a run: how much of its class each image stands for, see `dmgd.matching.coresets.weights`.

It is computed when all images are there, from the latents of the real images, and is no part of what made the images: a
run without it, such as one of an earlier version, is complete. Repeating its `dmgd distill` command adds it.
"""

from collections.abc import Sequence
from pathlib import Path

from dmgd.errors import ArtifactError, DmgdError
from dmgd.files import canonical_json, misfit, read_sealed, sha256_bytes, write_sealed

FORMAT = 1
WEIGHTS = "weights.json"
TOLERANCE = 1e-3  # of the mean of a class, as weights are rounded
_REMEDY = "repeat the dmgd distill command, which computes it again"


class _Missing(DmgdError):
    pass


def write_weights(run: Path, weights: Sequence[Sequence[float]]) -> None:
    """Write the weights of the images of each class, in order."""
    write_sealed(run / WEIGHTS, {"format": FORMAT, "weights": [[round(one, 6) for one in own] for own in weights]})


def read_weights(run: Path, classes: int, ipc: int) -> list[list[float]] | None:
    """The weights of the `ipc` images of each of the classes; None if the run has none. Raises ArtifactError if they
    were changed, or are those of other images."""
    try:
        kept = read_sealed(run / WEIGHTS, FORMAT, ("weights",), missing=_Missing(), remedy=_REMEDY)
    except _Missing:
        return None
    weights = kept["weights"]
    problem = misfit(weights, [[float | int]], "weights")
    if not problem and [len(own) for own in weights] != [ipc] * classes:
        problem = f"they are not of {ipc} images of {classes} classes"
    problem = problem or next(filter(None, map(_problem, weights)), None)
    if problem:
        raise ArtifactError(f"{run / WEIGHTS} has no weights of this run ({problem}); {_REMEDY}")
    return weights


def weights_digest(weights: Sequence[float | None]) -> str | None:
    """The SHA-256 of the weights of all images of a set, in order; None if it has none."""
    known = [float(one) for one in weights if one is not None]
    return sha256_bytes(canonical_json(known).encode()) if known else None


def _problem(weights: Sequence[float]) -> str | None:
    """Why these are not the weights of all images of a class, in a few words; None if they can be."""
    mean = sum(weights) / max(1, len(weights))
    if min(weights, default=0) < 0 or not abs(mean - 1) <= TOLERANCE:
        return f"weights of a class have the mean 1 and are not negative: here {mean:.4g}, from {min(weights):.4g} on"
    return None
