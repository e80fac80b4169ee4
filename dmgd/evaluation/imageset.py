"""A labelled set of images as one uint8 tensor: what networks are trained and tested on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from dmgd.classes.info import ClassInfo
from dmgd.errors import ArtifactError


@dataclass(frozen=True)
class ImageSet:
    """`images` with their `labels`, indices into `classes`. `name` is what tables call the set."""

    name: str
    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    classes: tuple[ClassInfo, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> list[int]:
        """Images of each class."""
        return torch.bincount(self.labels, minlength=len(self.classes)).tolist()

    @property
    def ipc(self) -> int:
        """Images per class, of the largest class."""
        return max(self.counts)

    def select(self, indices: Int64[Tensor, " m"] | Sequence[int], name: str) -> "ImageSet":
        """The images at `indices`, in that order, as a set of another name."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return replace(self, name=name, images=self.images[chosen], labels=self.labels[chosen])

    def check(self) -> "ImageSet":
        """The set itself. Raises ArtifactError unless it has at least two classes and an image of each."""
        if len(self.classes) < 2:
            raise ArtifactError(f"{self.name} has {len(self.classes)} class; a classifier needs at least two")
        empty = [info.name for info, count in zip(self.classes, self.counts, strict=True) if count == 0]
        if empty:
            listed = ", ".join(empty[:10]) + (", …" if len(empty) > 10 else "")
            raise ArtifactError(
                f"{self.name} has no image of {len(empty)} of the {len(self.classes)} classes: {listed}; "
                "add images, or evaluate on a source with only the classes that it has"
            )
        return self


def stack_images(
    name: str, pixels: Iterable[UInt8[Tensor, "h w c"]], labels: Sequence[int], classes: tuple[ClassInfo, ...]
) -> ImageSet:
    """The set of equally large images. Raises ArtifactError if there is none."""
    tensors = list(pixels)
    if not tensors:
        raise ArtifactError(f"{name} has no images")
    images = torch.stack(tensors).permute(0, 3, 1, 2).contiguous()
    return ImageSet(name, images, torch.tensor(labels, dtype=torch.int64), classes)
