"""The record that a run keeps of each image."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ImageRecord:
    """The record of one distilled image.

    `path` is relative to the run directory. `other_class` is the index of y* (None without soft labels), `ot_cost` the
    last transport cost during sampling (None without distribution matching). Of a real image, `source_index` is its
    position in the source's training split and `source_name` its name there; of a crop of one, `source_crop` is its box
    in pixels, "left top right bottom". `sha256` is of the file's bytes, `pixels_sha256` of the decoded uint8 array, row
    by row. `weight` is the share of its class that the image stands for times the number of its images, see
    `dmgd.runs.weights`; None where that is not known.
    """

    class_index: int
    image_index: int
    seed: int
    other_class: int | None
    ot_cost: float | None
    path: str
    sha256: str
    pixels_sha256: str
    source_index: int | None = None
    source_name: str | None = None
    source_crop: str | None = None
    weight: float | None = None

    @property
    def key(self) -> str:
        """The name of the image in every export, for example `c0003-i00007`."""
        return image_key(self.class_index, self.image_index)

    def to_json(self) -> dict[str, Any]:
        """What is recorded when the image is made: its weight depends on the others of its class."""
        return {name: value for name, value in asdict(self).items() if name != "weight"}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "ImageRecord":
        return cls(**fields)


def image_key(class_index: int, image_index: int) -> str:
    """The name in every export of an image of a run."""
    return f"c{class_index:04d}-i{image_index:05d}"


def mosaic_key(class_index: int, index: int) -> str:
    """The name of a mosaic, the one with this `index` among those of its class."""
    return f"c{class_index:04d}-m{index:05d}"
