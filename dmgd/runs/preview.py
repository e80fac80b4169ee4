"""`preview.png`: the first images of the first classes of a run, one row per class; contact sheets."""

from collections.abc import Mapping

import numpy as np
from numpy import ndarray
from PIL import Image

from dmgd.files import write_bytes
from dmgd.images import encode, to_image
from dmgd.runs.directory import PREVIEW, RunDirectory

ROWS, COLUMNS, CELL, GAP = 20, 10, 64, 4


def write_preview(run: RunDirectory) -> None:
    """Write the run's preview; the same images give the same bytes."""
    write_bytes(run.path / PREVIEW, encode(preview_pixels(run)))


def preview_pixels(run: RunDirectory) -> ndarray:
    """uint8 (h, w, c): at most 20 × 10 images of 64 × 64 pixels. Raises ArtifactError if one is missing."""
    shown = [r for r in run.records() if r.class_index < ROWS and r.image_index < COLUMNS]
    return contact_sheet({(r.class_index, r.image_index): run.pixels(r) for r in shown})


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


def _cell(pixels: ndarray) -> ndarray:
    """The image resized to a cell: small ones by nearest neighbour, large ones by averaging."""
    is_small = pixels.shape[0] <= CELL
    resized = to_image(pixels).resize((CELL, CELL), Image.Resampling.NEAREST if is_small else Image.Resampling.BOX)
    return np.array(resized).reshape(CELL, CELL, -1)
