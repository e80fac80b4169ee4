"""The check of a run on disk against its records."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy import ndarray

from dmgd.errors import ArtifactError
from dmgd.files import file_problem, sha256_bytes
from dmgd.guard import GUARD
from dmgd.images import decode
from dmgd.runs.directory import MANIFEST, PREVIEW, RunDirectory
from dmgd.runs.preview import NAMES, OLD_ROWS, contact_sheet, images_of, preview_pages
from dmgd.runs.record import ImageRecord
from dmgd.runs.weights import WEIGHTS, read_weights


def run_problems(run: RunDirectory) -> Iterator[str]:
    """One line per difference from the run's records, beginning with the file: checksums of files and pixels, missing
    and extra images and files, labels, weights."""
    if not run.complete:
        yield f"{MANIFEST}: the run is unfinished"
    expected = {MANIFEST, GUARD, WEIGHTS, *preview_pages(run)}
    seen = set()
    for name in run.batch_names():
        expected |= {f"batches/{name}.json", f"batches/{name}.safetensors"}
        try:
            records, latents_sha256 = run.read_batch(name)
        except ArtifactError as error:
            yield f"batches/{name}.json: {error}"
            continue
        if problem := file_problem(run.path, f"batches/{name}.safetensors", latents_sha256):
            yield problem
        for record in records:
            if record.path in expected:
                yield f"{record.path}: is recorded twice"
            expected.add(record.path)
            seen.add((record.class_index, record.image_index))
            yield from _image_problems(run, record)
    yield from (f"class {c}: image {i} has no record" for c, i in sorted(run.indices - seen))
    yield from (f"class {c}: image {i} is not part of the run" for c, i in sorted(seen - run.indices))
    yield from _preview_problems(run)
    try:
        read_weights(run.path, len(run.classes), run.config.ipc)
    except ArtifactError as error:
        yield f"{WEIGHTS}: {error}"
    found = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()}
    yield from (f"{path}: is not part of the run" for path in sorted(found - expected))


def _preview_problems(run: RunDirectory) -> Iterator[str]:
    """The pages of the preview that are missing, or do not show the run's images. The names beside the images are not
    compared: another version of Pillow draws them with other pixels. The one page without names that earlier versions
    wrote is as good."""
    pages = preview_pages(run)
    there = [name for name in pages if (run.path / name).is_file()]
    with suppress(ArtifactError):  # a missing or changed image is reported above
        if PREVIEW in there and _shows(run.path / PREVIEW, images_of(run, range(OLD_ROWS)), left=0):
            return
        for name in there:
            if not _shows(run.path / name, images_of(run, pages[name]), left=NAMES):
                yield f"{name}: does not show the run's images"
    if run.complete:
        yield from (f"{name}: is missing" for name in pages if name not in there)


def _shows(path: Path, images: Mapping[tuple[int, int], ndarray], left: int) -> bool:
    """Whether the file is a contact sheet of these images from this column on; its bytes depend on the compressor."""
    try:
        return not images or np.array_equal(decode(path.read_bytes())[:, left:], contact_sheet(images))
    except (OSError, SyntaxError, ValueError):  # what Pillow raises for damaged files
        return False


def _image_problems(run: RunDirectory, record: ImageRecord) -> Iterator[str]:
    if problem := file_problem(run.path, record.path, record.sha256):
        yield problem
    elif sha256_bytes(run.pixels(record).tobytes()) != record.pixels_sha256:
        yield f"{record.path}: its pixels are not those of its record"
