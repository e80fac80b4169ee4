"""The image codec: image files ↔ uint8 arrays (h, w, c), c = 1 (grey) or 3 (RGB). No torch: workers import this."""

import io
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from PIL import ExifTags, Image, UnidentifiedImageError

from dmgd.errors import DmgdError, unknown_choice
from dmgd.files import open_regular

if TYPE_CHECKING:  # both are slow to import, and sources are opened and refused without them
    from numpy import ndarray
    from torch import Tensor

IMAGE_SUFFIXES = tuple(
    ".jpg .jpeg .jpe .jfif .png .bmp .gif .webp .tif .tiff .ppm .pgm .jp2 .avif".split()  # noqa: SIM905
)
MAX_ASPECT = 100
MAX_BYTES = 1 << 30  # of an image file

# Pillow's options for each format.
FORMATS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "webp": {"format": "WEBP", "lossless": True, "exact": True},
}
LOSSLESS = ("png", "webp")


@dataclass(frozen=True)
class FilePart:
    """An image file within a larger file: the `size` bytes from `offset` on."""

    path: Path
    offset: int
    size: int


def encode(pixels: "ndarray", image_format: str = "png") -> bytes:
    """The bytes of an image file of uint8 `pixels`; deterministic."""
    buffer = io.BytesIO()
    to_image(pixels).save(buffer, **FORMATS[image_format])
    return buffer.getvalue()


def decode(data: bytes) -> "ndarray":
    """The uint8 pixels of an image file written by `encode`. Raises OSError for other bytes."""
    return pixels_of(Image.open(io.BytesIO(data)))


def pixels_of(image: Image.Image) -> "ndarray":
    """The uint8 pixels of a grey ("L") or colour ("RGB") image."""
    import numpy as np

    pixels = np.array(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def to_image(pixels: "ndarray") -> Image.Image:
    return Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)


def channels_of(image: Image.Image) -> int:
    """1 for a grey image, 3 for any other."""
    return 1 if image.mode in ("1", "L", "F", "LA") or image.mode.startswith("I") else 3


def measured(image: "bytes | Path | FilePart | Image.Image") -> tuple[int, int] | None:
    """The shorter side in pixels and the channels of an image, from its header; None if that cannot be read."""
    if isinstance(image, Image.Image):
        return min(image.size), channels_of(image)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `read_image` says which images cannot be used
            with (
                open_regular(image) if isinstance(image, Path) else io.BytesIO(image_bytes(image)) as file,
                Image.open(file) as opened,
            ):
                return min(opened.size), channels_of(opened)
    except Exception:  # as in `read_image`
        return None


def stored(image: "bytes | Path | FilePart | Image.Image") -> tuple[int, int]:
    """The pixels of an image that can be read, from its header, and the bytes of its file; if it is decoded already, of
    the PNG file that it would be."""
    if isinstance(image, Image.Image):
        buffer = io.BytesIO()
        image.save(buffer, **FORMATS["png"])
        return image.width * image.height, buffer.tell()
    data = image_bytes(image) if isinstance(image, FilePart) else image
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with io.BytesIO(data) if isinstance(data, bytes) else open_regular(data) as file:
            with Image.open(file) as opened:
                pixels = opened.width * opened.height
            return pixels, len(data) if isinstance(data, bytes) else data.stat().st_size


def check_image_format(name: str) -> None:
    """Raise UsageError for an image format that is not one of FORMATS."""
    if name not in FORMATS:
        raise unknown_choice("image format", name, tuple(FORMATS))


class BadImage(DmgdError):
    """An image that cannot be used; the message says why."""


def is_image_file(path: Path) -> bool:
    """Whether the file is called an image or, whatever it is called, begins as one."""
    if path.name.lower().endswith(IMAGE_SUFFIXES):
        return True
    try:
        with open_regular(path) as file:
            return is_image(file)
    except OSError:
        return False


def is_image(file: IO[bytes]) -> bool:
    """Whether the open file begins as an image in a format that can be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(file):
                return True
        except Exception:  # the decoders raise a dozen types
            return False


def read_image(image: "bytes | Path | FilePart | Image.Image") -> Image.Image:
    """The decoded image, upright, grey ("L") or colour ("RGB").

    Raises BadImage if it is truncated, empty, not an image, a decompression bomb, or has floating-point pixels.
    """
    if isinstance(image, Image.Image):
        return image
    try:
        if not (data := image_bytes(image)):
            raise BadImage("the file is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow says of metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as opened:
                opened.load()
                return _in_8_bits(_upright(opened))
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        raise BadImage("cannot identify the format of the file") from error
    except Exception as error:  # the decoders raise a dozen types for a damaged file
        reason = getattr(error, "strerror", None) or str(error)
        raise BadImage(next(iter(reason.splitlines()), type(error).__name__)) from error


def image_bytes(image: "bytes | Path | FilePart") -> bytes:
    """The bytes of an image file. Raises OSError if they cannot be read, BadImage for too many."""
    if isinstance(image, bytes):
        return image
    with open_regular(image if isinstance(image, Path) else image.path) as file:
        if isinstance(image, FilePart):
            file.seek(image.offset)
        size = os.fstat(file.fileno()).st_size if isinstance(image, Path) else image.size
        if size > MAX_BYTES:
            raise BadImage(f"the file has {size:,} bytes, more than {MAX_BYTES:,}")
        return file.read(size)


# The transposition that undoes each EXIF orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_METADATA = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")  # where Pillow looks for an orientation


def _upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation says; as stored if its EXIF cannot be read.

    Pillow's `exif_transpose` also writes the metadata anew, which fails for other entries that are malformed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            turn = _UPRIGHT.get(int(image.getexif().get(ExifTags.Base.Orientation, 1)))
        except Exception:  # the parser raises a dozen types
            turn = None
    if turn is None:
        return image
    turned = image.transpose(turn)
    for key in _METADATA:  # it must not be turned again
        turned.info.pop(key, None)
    return turned


def _in_8_bits(image: Image.Image) -> Image.Image:
    """16-bit grey by its high byte (Pillow's convert would clip it), everything else by Pillow."""
    width, height = image.size
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadImage(f"{width}×{height} pixels: more than {MAX_ASPECT} times longer than wide")
    if image.mode == "F":
        raise BadImage("floating-point pixels have no agreed range; save the image with 8 or 16 bits")
    if image.mode.startswith("I"):
        import numpy as np

        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode in ("1", "LA") else "RGB")


def square_pixels(image: Image.Image, size: int, channels: int) -> "ndarray":
    """The centre of `image`, uint8 (size, size, channels), grey (`channels` 1) or RGB (3).

    EXIF orientation is applied. The shorter side is halved by box averaging while it is at least twice `size`, then
    resized to `size` by bicubic interpolation, then the centre is cropped.
    Source: `center_crop_arr` of guided-diffusion and facebookresearch/DiT.
    """
    import numpy as np

    image = _upright(image).convert("L" if channels == 1 else "RGB")
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    if min(image.size) != size:
        scale = size / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.array(image.crop((left, top, left + size, top + size))).reshape(size, size, channels)


def to_square(image: Image.Image, size: int, channels: int) -> "Tensor":
    """`square_pixels` as a uint8 tensor (size, size, channels)."""
    import torch

    return torch.from_numpy(square_pixels(image, size, channels))


def readable(
    images: Iterable[tuple["bytes | Path | FilePart | Image.Image", int]],
) -> Iterator[tuple[Image.Image, int]]:
    """The (image, label) pairs that can be decoded, decoded."""
    for image, label in images:
        try:
            yield read_image(image), label
        except BadImage:
            continue
