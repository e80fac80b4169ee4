"""Reading the set to evaluate: a run, or what other formats and tools hold."""

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dmgd.artifacts.run import MANIFEST, RunDirectory
from dmgd.errors import ArtifactError, UsageError
from dmgd.evaluation.imageset import channels_of
from dmgd.records import ClassInfo


@dataclass(frozen=True)
class Labelled:
    """Images as they were found. `labels` are indices into `classes`, which are as the files say, `source_name` the
    dataset that they were distilled from, where the files say so."""

    name: str
    images: list[Image.Image]
    labels: list[int]
    classes: tuple[ClassInfo, ...]
    source_name: str | None = None

    def check(self) -> "Labelled":
        """The same. Raises ArtifactError if there is no image, or if sizes or channels differ."""
        if not self.images:
            raise ArtifactError(f"{self.name} has no images")
        for what, kinds in (
            ("sizes", {f"{image.width}×{image.height}" for image in self.images}),
            ("channels", {"grey" if channels_of(image) == 1 else "RGB" for image in self.images}),
        ):
            if len(kinds) > 1:
                raise ArtifactError(
                    f"{self.name} has images of mixed {what} ({', '.join(sorted(kinds)[:5])}); "
                    "bring them all to one before evaluating"
                )
        return self


def read_labelled(path: Path) -> Labelled:
    """The images and labels at `path`. Raises UsageError if nothing known is there."""
    if (path / MANIFEST).is_file():
        return read_run(RunDirectory.open(path))
    raise UsageError(f"{path} is not a run (it has no {MANIFEST}); make one with dmgd distill --out")


def read_run(run: RunDirectory) -> Labelled:
    """A finished run's images. Raises ArtifactError for an unfinished or damaged one."""
    run.require_complete()
    records = run.records()
    return Labelled(
        name=run.path.name,
        images=[Image.open(io.BytesIO(run.image_bytes(record))) for record in records],
        labels=[record.class_index for record in records],
        classes=run.classes,
        source_name=run.manifest["statistics"]["source"]["name"],
    )
