"""Images as small pictures in the page: strips of a class's images, and a sheet of all images of the map."""

import base64
import io
import math
from collections.abc import Sequence

from numpy import ndarray
from PIL import Image

from dmgd.images import to_image

SMALL = 32  # pixels: images up to this size are shown pixel by pixel
GAP = 0.08  # between images, of their size


def strip(images: Sequence[ndarray], columns: int, size: int) -> bytes:
    """An image file of the images (h, w, c) in rows of `columns`, at most `size` pixels each, with transparent gaps."""
    cells = [_cell(pixels, size) for pixels in images]
    side = cells[0].width
    gap = max(1, round(GAP * side))
    across, down = min(columns, len(cells)), math.ceil(len(cells) / columns)
    sheet = Image.new("RGBA", (across * (side + gap) - gap, down * (side + gap) - gap))
    for i, cell in enumerate(cells):
        sheet.paste(cell.convert("RGBA"), ((i % columns) * (side + gap), (i // columns) * (side + gap)))
    return _bytes(sheet, is_small(images[0]))


def sheet(images: Sequence[ndarray], columns: int, size: int) -> bytes:
    """An image file of the images without gaps, for pictures that the page cuts out of it."""
    cells = [to_image(pixels).convert("RGB") for pixels in images]
    side = min(size, cells[0].width)
    whole = Image.new("RGB", (columns * side, math.ceil(len(cells) / columns) * side))
    for i, cell in enumerate(cells):
        resized = cell if cell.width == side else cell.resize((side, side), Image.Resampling.BOX)
        whole.paste(resized, ((i % columns) * side, (i // columns) * side))
    return _bytes(whole, is_small(images[0]))


def is_small(pixels: ndarray) -> bool:
    """Whether the image (h, w, c) is shown pixel by pixel."""
    return pixels.shape[0] <= SMALL


def picture_url(data: bytes) -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _cell(pixels: ndarray, size: int) -> Image.Image:
    """The image; large ones reduced. The page enlarges small ones."""
    image = to_image(pixels)
    return image if image.width <= max(size, SMALL) else image.resize((size, size), Image.Resampling.LANCZOS)


def _bytes(image: Image.Image, is_exact: bool) -> bytes:
    """PNG where every pixel counts, otherwise WebP."""
    buffer = io.BytesIO()
    if is_exact:
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "WEBP", quality=80, method=4)
    return buffer.getvalue()
