"""`preview.png`, `preview-2.png`, …: the first images of the first classes of a run, a row per class with its name;
contact sheets."""

from collections.abc import Mapping

import numpy as np
from numpy import ndarray
from PIL import Image

from dmgd.files import write_bytes
from dmgd.images import encode, to_image
from dmgd.runs.captions import caption
from dmgd.runs.directory import PREVIEW, RunDirectory

ROWS, COLUMNS, PAGES, CELL, GAP = 25, 10, 4, 64, 4
NAMES = 176  # pixels, left of the images
OLD_ROWS = 20  # of the one page without names that versions before had


def write_preview(run: RunDirectory) -> None:
    """Write the pages of the run's preview; the same images give the same bytes. Raises ArtifactError if an image is
    missing."""
    for name, classes in preview_pages(run).items():
        sheet = contact_sheet(images_of(run, classes))
        write_bytes(run.path / name, encode(np.concatenate([_names(run, classes, sheet), sheet], axis=1)))


def preview_pages(run: RunDirectory) -> dict[str, range]:
    """The names of the preview's files, each with the indices of the classes that it shows: at most 4 × 25."""
    count = min(len(run.classes), ROWS * PAGES)
    starts = range(0, count, ROWS)
    names = [PREVIEW, *(f"{PREVIEW.removesuffix('.png')}-{page}.png" for page in range(2, len(starts) + 1))]
    return {name: range(start, min(start + ROWS, count)) for name, start in zip(names, starts, strict=True)}


def images_of(run: RunDirectory, classes: range) -> dict[tuple[int, int], ndarray]:
    """The first ten images of these classes, by row and column. Raises ArtifactError if one is missing."""
    shown = [r for r in run.records() if r.class_index in classes and r.image_index < COLUMNS]
    return {(r.class_index - classes.start, r.image_index): run.pixels(r) for r in shown}


def contact_sheet(images: Mapping[tuple[int, int], ndarray]) -> ndarray:
    """uint8 (h, w, c): the images, uint8 (h, w, c), by row and column."""
    pitch = CELL + GAP
    height, width = (1 + max(place[axis] for place in images) for axis in (0, 1))
    channels = next(iter(images.values())).shape[2]
    sheet = np.full((height * pitch + GAP, width * pitch + GAP, channels), 255, np.uint8)
    for (row, column), pixels in images.items():
        top, left = GAP + row * pitch, GAP + column * pitch
        sheet[top : top + CELL, left : left + CELL] = _cell(pixels)
    return sheet


def _names(run: RunDirectory, classes: range, sheet: ndarray) -> ndarray:
    """The names of the classes, uint8 (h, w, c), to be put left of their contact sheet."""
    names = np.full((sheet.shape[0], NAMES, sheet.shape[2]), 255, np.uint8)
    for row, index in enumerate(classes):
        top = GAP + row * (CELL + GAP)
        names[top : top + CELL] = caption(index, run.classes[index], NAMES, CELL)[:, :, None]
    return names


def _cell(pixels: ndarray) -> ndarray:
    """The image resized to a cell: small ones by nearest neighbour, large ones by averaging."""
    is_small = pixels.shape[0] <= CELL
    resized = to_image(pixels).resize((CELL, CELL), Image.Resampling.NEAREST if is_small else Image.Resampling.BOX)
    return np.array(resized).reshape(CELL, CELL, -1)
