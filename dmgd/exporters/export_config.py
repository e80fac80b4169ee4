"""The settings of an export."""

from dataclasses import dataclass, field
from pathlib import Path

from dmgd.config import check_settings, setting
from dmgd.exporters.example import Limits
from dmgd.images import check_image_format


@dataclass(frozen=True)
class ExportConfig:
    """How `export` stores a run: its images as "png", "webp" or "jpg", in shards within the `limits`, and with `tiles`
    above 1 as mosaics, tiles × tiles of them shrunk in one, see dmgd.mosaics.

    `labels` is a folder of soft labels, see dmgd.exporters.soft_labels, of mosaics those of the parts;
    `evaluation` is a JSON of `dmgd evaluate`, whose scores are added to the card.
    """

    image_format: str = "png"
    limits: Limits = field(default_factory=Limits)
    labels: Path | str | None = None
    evaluation: Path | str | None = None
    tiles: int = setting(1, at_least=1)

    def __post_init__(self) -> None:
        check_settings(self)
        check_image_format(self.image_format)
