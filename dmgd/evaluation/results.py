"""What `bench` measures: trainings on sets, each of a method, a size and a seed. Standard library and arrays only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dmgd.evaluation.planned_set import OWN, row_name
from dmgd.evaluation.protocols import Protocol
from dmgd.evaluation.train import Training


@dataclass(frozen=True)
class SetFacts:
    """One set: the images that `method` chose or made with this `seed`, `ipc` stored ones of each class (None: all of
    them). With `tiles` above 1 they are mosaics of tiles × tiles parts, and `images` counts the parts.

    `pixels` of all stored images, `image_bytes` of their files, `label_bytes` of stored soft labels (0: none), which
    `labels` names, see `PlannedSet`.
    `seconds` by stage: "statistics", "sampling", "labelling"; those that it took when they were done, not repeated.
    """

    method: str
    ipc: int | None
    seed: int
    images: int
    pixels: int
    image_bytes: int
    label_bytes: int
    seconds: Mapping[str, float]
    tiles: int = 1
    labels: str = OWN

    @property
    def row(self) -> str:
        """What the table calls the sets of this method, stored like this."""
        return row_name(self.method, self.tiles, self.labels)


@dataclass(frozen=True)
class Result:
    """One training on one set. `repeat` counts the trainings on the same set and protocol; `protocol` is resolved and
    names the network; `teacher` is that of soft labels, with its accuracy: {"name", "top1"}."""

    facts: SetFacts
    protocol: Protocol
    repeat: int
    training: Training
    teacher: Mapping[str, Any] | None = None

    @property
    def is_augmented(self) -> bool:
        return bool(set(self.protocol.augmentation) - {"normalise"})
