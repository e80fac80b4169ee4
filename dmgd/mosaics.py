"""Mosaics: stored images whose `tiles` × `tiles` parts are images of a set at 1/`tiles` of their side, row by row. Four
times the images in the pixels of one (IDC, arXiv:2205.14959).

Images are uint8 arrays (h, w, c), and the images of a class are the parts of its mosaics in their order.
"""

from collections.abc import Sequence

import numpy as np
from numpy import ndarray

from dmgd.errors import UsageError
from dmgd.images import encode


def shrunk(pixels: ndarray, tiles: int) -> ndarray:
    """The image (h / tiles, w / tiles, c) by box averaging: the mean of every tiles × tiles pixels, rounded to the
    nearest integer, halves up. Integers only: the same everywhere."""
    height, width, channels = pixels.shape
    boxes = pixels.reshape(height // tiles, tiles, width // tiles, tiles, channels)
    area = tiles * tiles
    return ((boxes.sum((1, 3), dtype=np.uint32) + area // 2) // area).astype(np.uint8)


def stitched(parts: Sequence[ndarray], tiles: int) -> ndarray:
    """The mosaic of tiles × tiles parts of equal size, row by row."""
    rows = [np.concatenate(parts[first : first + tiles], axis=1) for first in range(0, len(parts), tiles)]
    return np.concatenate(rows, axis=0)


def split(mosaic: ndarray, tiles: int) -> list[ndarray]:
    """The parts of a mosaic, row by row. Raises ValueError if its sides are no multiples of `tiles`."""
    height, width = mosaic.shape[0] // tiles, mosaic.shape[1] // tiles
    if mosaic.shape[:2] != (height * tiles, width * tiles):
        raise ValueError(f"an image of {mosaic.shape[1]}×{mosaic.shape[0]} pixels is no mosaic of {tiles}×{tiles}")
    corners = ((y * height, x * width) for y in range(tiles) for x in range(tiles))
    return [np.ascontiguousarray(mosaic[top : top + height, left : left + width]) for top, left in corners]


def require_mosaics(name: str, counts: dict[str, int], size: tuple[int, int], tiles: int) -> None:
    """Raise UsageError unless the images of the set `name`, `counts` by class and of `size` (width, height), fill
    mosaics."""
    each = tiles * tiles
    for of, count in counts.items():
        if count % each:
            fitting = " or ".join(str(n) for n in (count // each * each, (count // each + 1) * each) if n)
            raise UsageError(
                f"{name} has {count} images of {of}, which do not fill mosaics of {tiles}×{tiles}; {fitting} of each "
                "class would do"
            )
    if size[0] % tiles or size[1] % tiles:
        raise UsageError(
            f"{name} has images of {size[0]}×{size[1]} pixels, which have no {tiles}×{tiles} parts of whole pixels; "
            f"choose tiles by which {size[0]} can be divided"
        )


def stored_sizes(images: Sequence[ndarray], tiles: int) -> list[tuple[int, int]]:
    """(pixels, bytes of its PNG file) of every stored image of a set, whose `images` are in order, class by class: of
    mosaics of `tiles` × `tiles`, or with 1 of the images themselves."""
    each, parts = tiles * tiles, [shrunk(pixels, tiles) for pixels in images]
    stored = (stitched(parts[first : first + each], tiles) for first in range(0, len(parts), each))
    return [(one.shape[0] * one.shape[1], len(encode(one))) for one in stored]


def counted(images: int, tiles: int) -> str:
    """A number of images as text: "400", or where they are parts of mosaics "400 parts in 100 images"."""
    return str(images) if tiles == 1 else f"{images} parts in {-(-images // tiles**2)} images"
