"""The sets that `bench` compares, and what they are called. Standard library only."""

import re
from dataclasses import dataclass, replace

from dmgd.errors import UsageError
from dmgd.files import canonical_json, safe_name, sha256_bytes
from dmgd.generation.config import DistillConfig, short_name
from dmgd.matching.method import Method
from dmgd.matching.methods import METHODS

FULL = "full"
REAL = ("random", "kmeans-real", "herding", FULL)
OWN = "own"  # labels: those of the protocol, hard ones or the teacher's
_STORED = re.compile(r"soft(?:-([1-9]\d*))?")


@dataclass(frozen=True)
class PlannedSet:
    """A set to compare: `ipc` stored images of each class (None: all), made by a method or chosen by a selection, which
    is called `method`, with this seed. With `tiles` above 1 each is a mosaic of tiles × tiles parts, see dmgd.mosaics:
    a set of more images in the same pixels. `labels` other than OWN are a teacher's, which are stored: "soft" of each
    image, or "soft-N" of N views of each."""

    method: str
    by: Method | str
    ipc: int | None
    seed: int
    tiles: int = 1
    labels: str = OWN

    @property
    def row(self) -> str:
        """What the table calls it."""
        return row_name(self.method, self.tiles, self.labels)

    @property
    def images(self) -> "PlannedSet":
        """The same images, whatever their labels."""
        return replace(self, labels=OWN)

    @property
    def parts(self) -> int | None:
        """The images of each class that are made or chosen, and trained on."""
        return None if self.ipc is None else self.ipc * self.tiles**2

    def __str__(self) -> str:
        return f"{self.row}, all images" if self.ipc is None else f"{self.row}, IPC {self.ipc}, seed {self.seed}"

    @property
    def distillation(self) -> DistillConfig | None:
        """How the set is distilled; None for real images."""
        return DistillConfig(self.parts or 1, self.seed, self.by) if isinstance(self.by, Method) else None

    def name(self, source: str) -> str:
        """The name of its images: that of a run, with a digest of the settings where they are not the method's usual
        ones. All images are the same for all seeds; mosaics are those of the run that has as many images."""
        if self.ipc is None:
            return f"{short_name(source)}-{FULL}"
        made_by = self.by if isinstance(self.by, str) else self.by.name
        if isinstance(self.by, Method) and self.by != METHODS[made_by]():
            made_by += f"-{sha256_bytes(canonical_json(self.by.to_json()).encode())[:12]}"
        return f"{short_name(source)}-ipc{self.parts}-{safe_name(made_by)}-seed{self.seed}"


def in_mosaics(name: str, tiles: int, between: str = " ") -> str:
    """What the sets of a method are called in mosaics, such as "dmgd 2×2"."""
    return name if tiles == 1 else f"{name}{between}{tiles}×{tiles}"


def row_name(method: str, tiles: int, labels: str) -> str:
    """What the sets of a method are called, stored like this, such as "dmgd 2×2 soft-100"."""
    return in_mosaics(method, tiles) + ("" if labels == OWN else f" {labels}")


def views_of(labels: str) -> int | None:
    """How many views of each image have stored labels; 0: the images themselves have, None: there are no stored ones.
    Raises UsageError for unknown labels."""
    if labels == OWN:
        return None
    if not (found := _STORED.fullmatch(labels)):
        raise UsageError(f"labels are {OWN}, soft, or soft-N of N views of each image, not {labels!r}")
    return int(found[1] or 0)
