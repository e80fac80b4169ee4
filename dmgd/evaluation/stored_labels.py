"""Training on soft labels that are stored: which set they are of, what they say of an image, and in which protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from numpy import ndarray
from torch import Tensor

from dmgd.classes.info import ClassInfo
from dmgd.classes.matching import candidates
from dmgd.errors import ArtifactError, MismatchError, UsageError, listed
from dmgd.evaluation.inputs import RawSet
from dmgd.evaluation.protocols import Protocol
from dmgd.evaluation.views import Views, stored_views
from dmgd.exporters.logits import decode
from dmgd.exporters.soft_labels import StoredLabels, open_labels


@dataclass(frozen=True)
class SoftLabels:
    """The labels of a set's images, in its order: the arrays of `dmgd.exporters.logits`, whose `columns` are those of
    the set's classes; and the views that they are of (None: of the images themselves). `digest` is of all of it."""

    coded: Mapping[str, ndarray]
    columns: tuple[int, ...]
    views: Views | None
    digest: str

    def view_of(self, epoch: int) -> int | None:
        """The number of the views that an epoch, counted from 0, is trained on."""
        return epoch % self.views.count if self.views else None

    def logits(self, chosen: Int64[Tensor, " b"], view: int | None) -> Float[Tensor, "b k"]:
        """The logits of the images at `chosen`, or of this view of them; on the device of `chosen`."""
        rows: Any = chosen.cpu().numpy() if view is None else (chosen.cpu().numpy(), view)
        logits = decode({name: one[rows] for name, one in self.coded.items()}, len(self.columns))
        return torch.from_numpy(logits[:, self.columns]).to(chosen.device)

    def protocol(self, protocol: Protocol) -> Protocol:
        """The protocol with the loss of soft labels, and with views in place of its augmentation."""
        augmentation = self.views.augmentation if self.views else protocol.augmentation
        return replace(protocol, loss="soft", augmentation=augmentation)


def soft_labels(stored: StoredLabels, classes: Sequence[ClassInfo]) -> SoftLabels:
    """The labels with a column for each of the classes, in their order. Raises MismatchError if one is missing,
    ArtifactError if the file lacks numbers of the views."""
    rows = candidates(stored.classes, classes)
    if missing := [info.identity for info, found in zip(classes, rows, strict=True) if len(found) != 1]:
        raise MismatchError(f"the labels {stored.folder} lack {len(missing)} classes: {listed(missing)}")
    columns = tuple(found[0] for found in rows)
    views, index = None, stored.index
    if stored.views:
        try:
            views = stored_views(stored.numbers, stored.views, index["augmentation"], index["size"])
        except KeyError as error:
            raise ArtifactError(f"the labels {stored.folder} lack {error} of their views; make them again") from error
    return SoftLabels(stored.coded, columns, views, f"{index['sha256']} {columns}")


def with_labels(sets: Sequence[RawSet], folders: Sequence[str]) -> list[RawSet]:
    """The sets, those with labels of `dmgd relabel` that have some in one of the `folders`.

    Raises MismatchError for labels of another set, UsageError for a set that has two, and what `open_labels` raises.
    """
    found = list(sets)
    for folder in folders:
        stored = open_labels(Path(folder).expanduser())
        at = next((i for i, one in enumerate(found) if one.digest == stored.index["set"]["digest"]), 0)
        stored.require_of(found[at].name, found[at].digest, len(found[at].images), found[at].tiles)
        if earlier := found[at].soft:
            raise UsageError(f"{found[at].name} has the labels {earlier.folder} and {folder}; give one of them")
        found[at] = replace(found[at], soft=stored)
    return found


def views_size(sets: Sequence[RawSet], size: int | None) -> int | None:
    """The image size of the views that the sets have labels of, or else `size`. Raises MismatchError if they differ."""
    for stored in (one.soft for one in sets if one.soft and one.soft.views):
        own = stored.index["size"]
        if size not in (None, own):
            raise MismatchError(
                f"{stored.folder} has labels of views of {own} pixels, not {size}; give --size {own}, or make labels "
                f"with dmgd relabel --size {size}"
            )
        size = own
    return size


def described_labels(sets: Sequence[RawSet]) -> list[dict[str, Any]]:
    """For JSON: the labels of each set that has some."""
    return [
        {
            "set": one.name,
            "teacher": one.soft.index["teacher"],
            **{name: one.soft.index["asked"][name] for name in ("views", "bits", "top_k")},
            "bytes": one.soft.index["bytes"],
            "image_bytes": one.soft.index["set"]["image_bytes"],
        }
        for one in sets
        if one.soft
    ]
