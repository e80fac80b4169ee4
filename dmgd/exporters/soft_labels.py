"""A teacher's soft labels for the images of a run.

    soft_labels.safetensors   the tensor `logits` (N, C), a row per image and a column per class in the run's order, and
                              in the header's metadata `keys`, the N image keys (`c0003-i00007`) as a JSON list
    soft_labels.json          of `dmgd relabel` only: what they are labels of, by which teacher and with which settings

With the second file the logits may be in fewer bytes (`dmgd.exporters.logits`) and, with views, of several augmented
views of every image: (N, V, C), beside the numbers of the augmentation, `views.NAME.i` (N, V, …).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dmgd.classes.info import ClassInfo
from dmgd.errors import ArtifactError, MismatchError, UsageError
from dmgd.exporters.logits import NAMES, decode
from dmgd.files import canonical_json, file_problem, misfit, read_sealed, sha256_bytes, write_bytes, write_sealed

FORMAT = 1
FILE, INDEX = "soft_labels.safetensors", "soft_labels.json"
VIEWS = "views."
_REMEDY = "make the labels again with dmgd relabel"
_SHAPE = {
    "set": {"digest": str, "images": int, "image_bytes": int},
    "classes": [{"name": str, "wnid": str | None}],
    "teacher": {"name": str, "sha256": str, "top1": float | int},
    "asked": {"views": int, "bits": int, "top_k": int | None, "tiles": int | None},
    "size": int,
    "augmentation": [str],
    "bytes": int,
    "sha256": str,
}


@dataclass(frozen=True)
class StoredLabels:
    """The labels that `dmgd relabel` wrote to `folder`, with their `index`, a row for each of the images `keys`."""

    folder: Path
    index: dict[str, Any]
    keys: list[str]
    tensors: Mapping[str, ndarray]

    @property
    def views(self) -> int:
        """How many views each image has; 0: the labels are of the whole image."""
        return self.index["asked"]["views"]

    @property
    def tiles(self) -> int:
        """Above 1 they are of the parts of mosaics of tiles × tiles."""
        return self.index["asked"].get("tiles", 1)

    @property
    def recipe(self) -> dict[str, Any]:
        """All that they were made with but the set and the seed of the views."""
        asked = {name: value for name, value in self.index["asked"].items() if name not in ("set", "seed")}
        return {**asked, "size": self.index["size"], "augmentation": self.index["augmentation"]}

    @cached_property
    def classes(self) -> tuple[ClassInfo, ...]:
        """The class of each column."""
        return tuple(ClassInfo.from_json(fields) for fields in self.index["classes"])

    @property
    def coded(self) -> dict[str, ndarray]:
        """The arrays that stand for the logits."""
        return {name: self.tensors[name] for name in NAMES if name in self.tensors}

    @property
    def numbers(self) -> dict[str, ndarray]:
        """Those of the views, by "NAME.i"."""
        return {name.removeprefix(VIEWS): one for name, one in self.tensors.items() if name.startswith(VIEWS)}

    def described(self) -> str:
        """Whose labels they are, and the bytes that they take, in words."""
        teacher, asked, own = self.index["teacher"], self.index["asked"], self.index["set"]
        each = "each image" if self.tiles == 1 else "each part of the mosaics"
        of = f"{self.views} views of {each} ({'+'.join(self.index['augmentation'])})" if self.views else each
        how = f"the {asked['top_k']} largest, " if asked["top_k"] else ""
        return (
            f"the logits of {of} by {teacher['name']} ({teacher['top1']:.1f} % top-1), {how}{asked['bits']} bits, in "
            f"`{FILE}`: {self.index['bytes']:,} bytes beside {own['image_bytes']:,} bytes of images. "
            "`dmgd evaluate FOLDER --labels stored` trains on them."
        )

    def require_of(self, name: str, digest: str, keys: int, tiles: int) -> "StoredLabels":
        """The labels themselves. Raises MismatchError if they are not of the set `name`, of so many images, or parts of
        mosaics of tiles × tiles, that has this digest."""
        own = self.index["set"]
        if own["digest"] != digest:
            less = f", of {own['images']} images and not {keys}" if own["images"] != keys else ""
            kind, remedy = "", "dmgd relabel"
            if tiles != self.tiles:
                kind = f" in mosaics of {tiles}×{tiles}" if tiles > 1 else ", which has no mosaics"
                remedy += f" --tiles {tiles}" if tiles > 1 else ""
            raise MismatchError(
                f"{self.folder} has the labels of another set than {name}{kind}{less}; make labels of it with {remedy}"
            )
        return self


@dataclass(frozen=True)
class ExportedLabels:
    """The soft labels of an export: the `logits` (classes,) by key that are beside each image, where there is one label
    of each; the `files` by name that are added as they are; what identifies them, and what they are in words."""

    logits: Mapping[str, ndarray] | None
    files: dict[str, bytes]
    digest: str
    described: str


def labels_to_export(
    folder: Path, name: str, images: list[tuple[str, str]], keys: list[str], num_classes: int, tiles: int
) -> ExportedLabels:
    """The labels in `folder` for the run `name`, whose `images`, or parts of mosaics of tiles × tiles, are as
    `set_digest` takes them: labels of `relabel`, or a file of logits alone. Raises what `open_labels`,
    `StoredLabels.require_of` and `read_soft_labels` raise; UsageError for such a file and mosaics."""
    if not has_index(folder):
        if tiles > 1:
            raise UsageError(
                f"{folder} has no {INDEX}, which says whether its labels are of the parts of mosaics; make labels of "
                f"them with dmgd relabel --tiles {tiles}"
            )
        logits = read_soft_labels(folder, keys, num_classes)
        digest = sha256_bytes(b"".join(logits[key].tobytes() for key in sorted(logits)))
        size = (folder / FILE).stat().st_size
        return ExportedLabels(logits, {}, digest, f"a teacher's logits of each image, {size:,} bytes.")
    stored = open_labels(folder).require_of(name, set_digest(images), len(keys), tiles)
    own = None if stored.views else read_soft_labels(folder, keys, num_classes)
    files = {file: (folder / file).read_bytes() for file in (FILE, INDEX)}
    return ExportedLabels(own, files, stored.index["sha256"], stored.described())


def set_digest(images: Iterable[tuple[str, str]]) -> str:
    """What labels are of: the SHA-256 of each image's class identity and the SHA-256 of its pixels, in order."""
    return sha256_bytes(canonical_json([list(one) for one in images]).encode())


def has_index(folder: Path) -> bool:
    """Whether the folder has labels of `dmgd relabel`."""
    return (folder / INDEX).is_file()


def write_labels(folder: Path, keys: list[str], tensors: dict[str, ndarray], index: dict[str, Any]) -> dict[str, Any]:
    """Write the labels, and return their index, with the bytes and the digest of the file."""
    stored = save({name: np.ascontiguousarray(one) for name, one in tensors.items()}, {"keys": json.dumps(keys)})
    write_bytes(folder / FILE, stored)
    whole = {"format": FORMAT, **index, "bytes": len(stored), "sha256": sha256_bytes(stored)}
    write_sealed(folder / INDEX, whole)
    return whole


def read_index(folder: Path) -> dict[str, Any]:
    """The index of labels of `dmgd relabel`. Raises UsageError if there is none, ArtifactError if it was changed."""
    missing = UsageError(f"{folder} has no soft labels (no {INDEX}); make them with dmgd relabel")
    index = read_sealed(folder / INDEX, FORMAT, missing=missing, remedy=_REMEDY)
    if problem := misfit(index, _SHAPE):
        raise ArtifactError(f"{folder / INDEX} does not describe soft labels ({problem}); {_REMEDY}")
    return index


def open_labels(folder: Path) -> StoredLabels:
    """The labels in the folder. Raises UsageError if there are none, ArtifactError if they were changed or rows are
    missing."""
    index = read_index(folder)
    if problem := file_problem(folder, FILE, index["sha256"]):
        raise ArtifactError(f"the labels {folder} are damaged ({problem}); {_REMEDY}")
    keys, tensors = _read(folder / FILE)
    rows = {len(keys), *(len(one) for one in tensors.values())}
    if rows != {images := index["set"]["images"]}:
        raise ArtifactError(f"{folder} has labels of {min(rows)} of its {images} images; {_REMEDY}")
    return StoredLabels(folder, index, keys, tensors)


def read_soft_labels(folder: Path, keys: list[str], num_classes: int) -> Mapping[str, ndarray]:
    """The logits (num_classes,), float32, of each of the images `keys`.

    Raises ArtifactError if the file is missing or damaged, MismatchError if it does not fit the run.
    """
    path = folder / FILE
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist; a teacher folder has its soft labels there")
    listed, tensors = _read(path)
    logits = decode(tensors, num_classes)
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


def _read(path: Path) -> tuple[list[str], dict[str, ndarray]]:
    """The keys and all tensors of a file. Raises ArtifactError unless it has both."""
    try:
        with safe_open(path, "numpy") as file:
            listed = [str(key) for key in json.loads((file.metadata() or {})["keys"])]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        if "logits" not in tensors:
            raise KeyError("logits")
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError, OSError) as error:
        raise ArtifactError(
            f"{path} has no logits with keys ({error}); see docs/soft-labels.md for the format"
        ) from error
    return listed, tensors
