"""Features of image sets, kept in the cache: to compute a source's takes far longer than all else about a probe.

    features/<digest>.npy     the features (n, d), of everything that they depend on
    features/<digest>.json    the SHA-256 of that file, and a checksum of itself

A file that is damaged is as if it were not there.
"""

from collections.abc import Callable
from contextlib import suppress

import numpy as np
from numpy import ndarray
from platformdirs import user_cache_path

from dmgd.errors import ArtifactError
from dmgd.evaluation.features import Features
from dmgd.evaluation.imageset import ImageSet
from dmgd.files import canonical_json, file_problem, read_sealed, sha256_bytes, sha256_file, write_sealed, written_whole
from dmgd.progress import SILENT, Progress
from dmgd.statistics.cache import warn_of_cache

FORMAT = 1


def kept_rows(
    features: Features,
    data: ImageSet,
    on_images: Callable[[int], None] = lambda count: None,
    progress: Progress = SILENT,
) -> ndarray:
    """The features (n, d) of the images, from the cache if they are there; else they are computed, and kept unless it
    is not known what they depend on. `on_images` is called with the number of further images that are done."""
    if features.identity is None:
        return features.rows(data, on_images)
    folder = user_cache_path("dmgd") / "features"
    key = sha256_bytes(canonical_json([FORMAT, *features.identity, data.digest]).encode())
    rows_path, record_path = folder / f"{key}.npy", folder / f"{key}.json"
    with suppress(OSError, ArtifactError, ValueError):
        record = read_sealed(record_path, FORMAT, ["sha256"], missing=ArtifactError("none"), remedy="computed again")
        if not file_problem(folder, rows_path.name, record["sha256"]):
            kept = np.load(rows_path, allow_pickle=False)
            on_images(len(kept))
            return kept
    rows = features.rows(data, on_images)
    try:
        with written_whole(rows_path) as temporary, temporary.open("wb") as file:
            np.save(file, rows, allow_pickle=False)
        write_sealed(record_path, {"format": FORMAT, "sha256": sha256_file(rows_path)})
    except OSError as error:
        warn_of_cache(error, progress)
    return rows
