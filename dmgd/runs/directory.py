"""The run directory: distilled images, their records and what made them.

    preview.png, preview-2.png …  the first images at a glance, 25 classes on a page
    run.json                      specs, configuration, plan, classes, digests, versions, status
    images/<class>-<name>/<i>.png
    batches/<batch>.safetensors   the latents of the batch's images, float32
    batches/<batch>.json          the records of its images, written last: the batch is complete if it exists
    weights.json                  what each image stands for, where that is known

A process may be killed at any time: batches without a record file are sampled again. Only the holder of the folder
guard writes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray
from safetensors.numpy import load_file, save

from dmgd.classes.info import ClassInfo
from dmgd.errors import ArtifactError, MismatchError, UsageError, visible
from dmgd.files import (
    file_problem,
    is_temporary,
    open_regular,
    read_sealed,
    remove_temporaries,
    safe_name,
    sha256_bytes,
    write_bytes,
    write_sealed,
)
from dmgd.generation.batches import Batch
from dmgd.generation.config import DistillConfig
from dmgd.guard import GUARD, guarded
from dmgd.html import png_url, table
from dmgd.images import decode, encode
from dmgd.mosaics import shrunk
from dmgd.runs.columns import features, metadata
from dmgd.runs.manifest import comparable, differences, grows, specs_of
from dmgd.runs.record import ImageRecord
from dmgd.runs.weights import read_weights
from dmgd.specs import PriorSpec, SourceSpec

if TYPE_CHECKING:  # torch is slow to import, and not needed to read images
    from datasets import Dataset
    from torch import Tensor

FORMAT = 4
MANIFEST = "run.json"
PREVIEW = "preview.png"


@dataclass(frozen=True)
class RunDirectory:
    """A run on disk. `manifest` is the content of run.json."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    @contextmanager
    def writer(cls, path: Path, manifest: dict[str, Any]) -> "Iterator[RunDirectory]":
        """The run at `path`, new, continued or growing, with the folder guard held.

        A greedy run grows: with a larger number of images per class, it keeps its images. Raises UsageError if `path`
        contains something else, MismatchError, listing the differences, if it contains another run, ArtifactError if
        another process is writing there.
        """
        wanted = {"format": FORMAT, **manifest}
        with guarded(path):
            require_own(path)
            remove_temporaries(path)
            if (path / MANIFEST).is_file():
                run = cls.open(path)._continued(wanted)
            else:
                run = cls(path, {**wanted, "status": "running"})
                write_sealed(path / MANIFEST, run.manifest)
            yield run

    def _continued(self, wanted: dict[str, Any]) -> "RunDirectory":
        """The run with the manifest `wanted`. Raises MismatchError unless it is the same run or one it can grow to."""
        found = {key: value for key, value in self.manifest.items() if key != "status"}
        differing = differences(comparable(found), comparable(wanted))  # data and weights may have moved
        if differing and not grows(found, wanted):
            points, more_points = (one["statistics"].get("k") for one in (found, wanted))
            if points != more_points and grows({**wanted, "config": found["config"]}, wanted):
                raise MismatchError(
                    f"{self.path} was made with {points} support points per class, the default for its number of "
                    f"images; for more images it is {more_points}. Choose another --out and start with --k "
                    f"{more_points}: such a run can grow"
                )
            # The plan follows from the rest: it is listed only if nothing else differs.
            shown = [line for line in differing if not line.startswith("plan.")] or differing
            raise MismatchError(
                f"{self.path} contains a run with other settings: {'; '.join(shown)}; "
                "choose another --out, or repeat the settings of that run to continue it"
            )
        run = RunDirectory(self.path, {**wanted, "status": "running" if differing else self.manifest["status"]})
        if differences(self.manifest, run.manifest):
            write_sealed(self.path / MANIFEST, run.manifest)
        return run

    @classmethod
    def open(cls, path: Path | str) -> "RunDirectory":
        """The run at `path`. Raises UsageError if there is none, ArtifactError for damage or another format."""
        path = Path(path)
        missing = UsageError(f"{path} is not a run (it has no {MANIFEST}); make one with dmgd distill --out")
        return cls(
            path, read_sealed(path / MANIFEST, FORMAT, ("specs", "plan"), missing=missing, remedy="distil it again")
        )

    @property
    def config(self) -> DistillConfig:
        return DistillConfig.from_json(self.manifest["config"])

    @property
    def specs(self) -> tuple[SourceSpec, PriorSpec]:
        return specs_of(self.manifest)

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        return tuple(ClassInfo.from_json(fields) for fields in self.manifest["classes"])

    @property
    def indices(self) -> set[tuple[int, int]]:
        """(class index, image index) of every image that belongs to the run."""
        return {(c, i) for c in range(len(self.classes)) for i in range(self.config.ipc)}

    @property
    def complete(self) -> bool:
        return self.manifest["status"] == "complete"

    def complete_records(self) -> list[ImageRecord]:
        """The records of all images, with their weights. Raises ArtifactError for an unfinished run, and for weights
        that were changed."""
        records = self.records()
        if not self.complete or sorted((r.class_index, r.image_index) for r in records) != sorted(self.indices):
            raise ArtifactError(f"{self.path} is unfinished; repeat its dmgd distill command to continue it")
        if weights := read_weights(self.path, len(self.classes), self.config.ipc):
            return [replace(r, weight=weights[r.class_index][r.image_index]) for r in records]
        return records

    def to_dataset(self) -> "Dataset":
        """The run as a Hugging Face dataset with the columns of a Parquet export; images are read from the run on
        access. Raises ArtifactError for an unfinished run."""
        from datasets import Dataset

        classes = self.classes
        rows = [
            {
                "image": str((self.path / record.path).absolute()),
                "label": record.class_index,
                **metadata(record, classes[record.class_index], record.sha256),
            }
            for record in self.complete_records()
        ]
        return Dataset.from_list(rows, features=features(classes))

    def __repr__(self) -> str:
        config, classes = self.config, self.manifest["classes"]
        images = f"{len(classes) * config.ipc} images of {len(classes)} classes"
        unfinished = "" if self.complete else ", unfinished"
        source, method = self.specs[0].name, config.method.name
        return visible(f"RunDirectory('{self.path}', {source}, {images}, {method}, ipc {config.ipc}{unfinished})")

    def _repr_html_(self) -> str:
        """The preview and the settings, for notebooks."""
        source, prior = self.specs
        config, preview = self.manifest["config"], self.path / PREVIEW
        settings = {"source": source.name, "prior": prior.name, "ipc": config["ipc"], "seed": config["seed"]}
        settings |= self.manifest["plan"]["method"]
        picture = f'<img alt="preview" src="{png_url(preview.read_bytes())}">' if preview.is_file() else ""
        return picture + table([repr(self), ""], [row for row in settings.items() if row[1] is not None])

    def has(self, batch: Batch) -> bool:
        return self._record_path(batch).is_file()

    def damage(self, batch: Batch) -> Path | None:
        """The first file of a finished batch that is missing or was changed, or None."""
        try:
            records, latents_sha256 = self.read_batch(batch.name)
        except ArtifactError:
            return self._record_path(batch)
        digests = {record.path: record.sha256 for record in records}
        digests[str(self._latent_path(batch).relative_to(self.path))] = latents_sha256
        return next((self.path / name for name, sha in digests.items() if file_problem(self.path, name, sha)), None)

    def write_batch(self, batch: Batch, images: ndarray, latents: "Tensor", measured: list[dict[str, Any]]) -> None:
        """Write a batch: uint8 `images` (b, h, w, c), `latents` (b, …) and per image the `measured` fields seed,
        other_class and ot_cost of its record. The records are written last."""
        records, classes = [], self.classes
        for (c, i), pixels, record in zip(batch.indices(), images, measured, strict=True):
            data, path = encode(pixels), image_path(classes, c, i)
            write_bytes(self.path / path, data)
            fields = {**record, "sha256": sha256_bytes(data), "pixels_sha256": sha256_bytes(pixels.tobytes())}
            records.append(ImageRecord(class_index=c, image_index=i, path=path, **fields))
        stored = save({"latents": np.ascontiguousarray(latents.cpu().numpy())})
        write_bytes(self._latent_path(batch), stored)
        listed = [record.to_json() for record in records]
        content = {"format": FORMAT, "images": listed, "latents_sha256": sha256_bytes(stored)}
        write_sealed(self._record_path(batch), content)

    def latents(self, batch: Batch) -> "Tensor":
        """The latents of a finished batch, in batch order."""
        import torch

        return torch.from_numpy(load_file(self._latent_path(batch))["latents"])

    def finish(self) -> "RunDirectory":
        """The run, marked as complete."""
        run = RunDirectory(self.path, {**self.manifest, "status": "complete"})
        if not self.complete:
            write_sealed(self.path / MANIFEST, run.manifest)
        return run

    def records(self) -> list[ImageRecord]:
        """The records of all finished images, sorted by class and image index."""
        found = [record for name in self.batch_names() for record in self.read_batch(name)[0]]
        return sorted(found, key=lambda record: (record.class_index, record.image_index))

    def labelled_as(self, records: Sequence[ImageRecord], tiles: int) -> list[tuple[str, str]]:
        """The class identity and the SHA-256 of the pixels of each image, which tell what soft labels are of; in
        mosaics of tiles × tiles, of each part."""
        classes = self.classes

        def pixels(record: ImageRecord) -> str:
            if tiles == 1:
                return record.pixels_sha256
            return sha256_bytes(shrunk(self.pixels(record), tiles).tobytes())

        return [(classes[record.class_index].identity, pixels(record)) for record in records]

    def pixels(self, record: ImageRecord) -> ndarray:
        """The uint8 pixels (h, w, c) of one image. Raises ArtifactError if the file is missing or was changed."""
        return decode(self.image_bytes(record))

    def image_bytes(self, record: ImageRecord) -> bytes:
        """The bytes of one image's file, verified. Raises ArtifactError if it is missing or was changed."""
        try:
            with open_regular(self.path / record.path) as file:
                data = file.read()
        except OSError as error:
            raise ArtifactError(f"{self.path / record.path} is missing from the run ({error.strerror})") from error
        if sha256_bytes(data) != record.sha256:
            raise ArtifactError(f"{self.path / record.path} was changed after it was made (its checksum differs)")
        return data

    def batch_names(self) -> list[str]:
        if not (self.path / MANIFEST).is_file():
            raise UsageError(f"{self.path} is no longer there; open the run where it is now")
        return sorted(file.stem for file in (self.path / "batches").glob("*.json"))

    def read_batch(self, name: str) -> tuple[list[ImageRecord], str]:
        """The records of a finished batch, and the SHA-256 of its latents' file."""
        file = self.path / "batches" / f"{name}.json"
        remedy = "remove it and repeat the dmgd distill command, which regenerates it"
        content = read_sealed(file, FORMAT, missing=ArtifactError(f"{file} is missing; {remedy}"), remedy=remedy)
        records = [ImageRecord.from_json(fields) for fields in content["images"]]
        classes = self.classes
        for record in records:
            if record.path != image_path(classes, record.class_index, record.image_index):
                raise ArtifactError(f"{file} was forged: {record.path!r} is not the path of {record.key}; {remedy}")
        return records, content["latents_sha256"]

    def _record_path(self, batch: Batch) -> Path:
        return self.path / "batches" / f"{batch.name}.json"

    def _latent_path(self, batch: Batch) -> Path:
        return self.path / "batches" / f"{batch.name}.safetensors"


open_run = RunDirectory.open


def image_path(classes: Sequence[ClassInfo], class_index: int, image_index: int) -> str:
    """The path of an image, relative to the run directory."""
    return f"images/{class_index:04d}-{safe_name(classes[class_index].identity)}/{image_index:05d}.png"


def require_own(path: Path) -> None:
    """Raise UsageError if the folder is neither empty nor a run."""
    others = [
        other.name
        for other in (path.iterdir() if path.is_dir() else ())
        if other.name != GUARD and not is_temporary(other.name)
    ]
    if others and MANIFEST not in others:
        raise UsageError(f"{path} exists and is not a run (it holds {min(others)}); choose a new or empty --out folder")
