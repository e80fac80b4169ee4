"""The batches of a run: which images are sampled together."""

from dataclasses import dataclass

from dmgd.generation.config import DistillConfig
from dmgd.matching.selections import Selection

CHOSEN = 100  # real images that are stored together


@dataclass(frozen=True)
class Batch:
    """The images `images` of the classes `classes`, sampled or stored as one batch: a grid, row by row a class."""

    classes: range
    images: range

    @property
    def name(self) -> str:
        return f"c{self.classes[0]:04d}-{self.classes[-1]:04d}.i{self.images[0]:05d}-{self.images[-1]:05d}"

    def __len__(self) -> int:
        return len(self.classes) * len(self.images)

    def indices(self) -> list[tuple[int, int]]:
        """(class index, image index) of every image, in batch order."""
        return [(c, i) for c in self.classes for i in self.images]


def batches_of(num_classes: int, config: DistillConfig) -> list[Batch]:
    """The batches of a run, in the order in which they are made: class chunk by class chunk, images rising.

    Greedy matching makes one image of each class at a time, joint matching all of them at once, even if the network
    sees them in several parts; images that know nothing of each other are made as many at a time as the batch size.
    """
    everything = CHOSEN if isinstance(config.method, Selection) else num_classes * config.ipc
    batch_size = config.batch_size or everything
    images = {"greedy": 1, "joint": config.ipc, "independent": min(config.ipc, batch_size)}[
        config.method.matching_order
    ]
    classes = min(num_classes, max(1, batch_size // images))
    return [
        Batch(range(c, min(c + classes, num_classes)), range(i, min(i + images, config.ipc)))
        for c in range(0, num_classes, classes)
        for i in range(0, config.ipc, images)
    ]
