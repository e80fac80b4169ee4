"""The batches of a run: which images are sampled together."""

from dataclasses import dataclass

from dmgd.config import DistillConfig


@dataclass(frozen=True)
class Unit:
    """The images `images` of the classes `classes`, sampled as one batch: a grid, row by row a class."""

    classes: range
    images: range

    @property
    def name(self) -> str:
        return f"c{self.classes[0]:04d}-{self.classes[-1]:04d}.i{self.images[0]:05d}-{self.images[-1]:05d}"

    def __len__(self) -> int:
        return len(self.classes) * len(self.images)

    def cells(self) -> list[tuple[int, int]]:
        """(class index, image index) of every image, in batch order."""
        return [(c, i) for c in self.classes for i in self.images]


def plan_units(num_classes: int, config: DistillConfig) -> list[Unit]:
    """The batches of a run, in the order in which they are made: class chunk by class chunk, images rising.

    Greedy matching makes one image of each class at a time, joint matching all of them at once, even if the network
    sees them in several parts; images that know nothing of each other are made as many at a time as the batch size.
    """
    batch_size = config.batch_size or num_classes * config.ipc
    images = {"greedy": 1, "joint": config.ipc, "independent": min(config.ipc, batch_size)}[config.method.order]
    classes = min(num_classes, max(1, batch_size // images))
    return [
        Unit(range(c, min(c + classes, num_classes)), range(i, min(i + images, config.ipc)))
        for c in range(0, num_classes, classes)
        for i in range(0, config.ipc, images)
    ]
