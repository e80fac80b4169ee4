"""Malformed metadata of images: the pixels are read, and turned as a sound orientation says."""

import io
import struct

import pytest
from PIL import Image, ImageOps
from source_stand_ins import Picture, as_folder

from dmgd.images import read_image, square_pixels
from dmgd.sources.decode import decode_chunk
from dmgd.sources.open import open_source


def jpeg_with(exif: bytes) -> bytes:
    image = Image.new("RGB", (12, 8), "white")
    image.paste("black", (0, 0, 6, 8))  # black on the left
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, exif=b"Exif\0\0" + exif)
    return buffer.getvalue()


def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")


ORIENTATION = entry(0x0112, 3, 1, struct.pack("<H", 6))
NOWHERE = entry(0x011A, 5, 1, struct.pack("<I", 0xFFFFFF0))
RATIONAL = entry(0x011A, 10, 1, struct.pack("<I", 38)) + b"\0" * 4 + struct.pack("<ii", -1, 0)
WRONG_TYPE = entry(0x0201, 5, 1, struct.pack("<I", 38)) + b"\0" * 4 + struct.pack("<II", 1, 1)
HEAD = b"II*\0" + struct.pack("<I", 8)


@pytest.mark.parametrize(
    ("exif", "size"),
    [
        (b"not a TIFF file", (12, 8)),
        (b"", (12, 8)),
        (HEAD + struct.pack("<H", 1) + ORIENTATION, (8, 12)),
        (HEAD + struct.pack("<H", 2) + ORIENTATION + NOWHERE + b"\0" * 4, (8, 12)),
        (HEAD + struct.pack("<H", 2) + ORIENTATION + RATIONAL, (8, 12)),
        (HEAD + struct.pack("<H", 2) + ORIENTATION + WRONG_TYPE, (8, 12)),
        (HEAD + struct.pack("<H", 2) + ORIENTATION + entry(0x8769, 4, 1, b"\xff\xff\xff\x7f") + b"\0" * 4, (8, 12)),
        (HEAD + struct.pack("<H", 2) + ORIENTATION + entry(0x013B, 7, 0, b"") + b"\0" * 4, (8, 12)),
        (HEAD + struct.pack("<H", 1) + entry(0x0112, 2, 4, b"six\0"), (12, 8)),
    ],
)
def test_malformed_metadata_leaves_the_pixels_and_a_good_orientation(exif, size, tmp_path):
    data = jpeg_with(exif)
    image = read_image(data)
    assert image.size == size
    dark = square_pixels(image, 8, 1)[:, :, 0] < 128
    assert (dark[:4].all(), dark[4:].any()) == ((True, False) if size == (8, 12) else (False, True))
    chunk = decode_chunk(
        list(open_source(f"folder:{as_folder(tmp_path, [Picture('a', 'one', data)])}").images("train")), 8, 1
    )
    assert not chunk.bad
    assert ((chunk.pixels[0, :, :, 0] < 128) == dark).all()


def test_every_orientation_is_turned_once():
    upright = None
    for orientation in range(1, 9):
        exif = HEAD + struct.pack("<H", 1) + entry(0x0112, 3, 1, struct.pack("<H", orientation)) + b"\0" * 4
        data = jpeg_with(exif)
        expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        assert read_image(data).tobytes() == expected.tobytes()
        upright = square_pixels(read_image(data), 8, 3)
        assert (upright == square_pixels(expected, 8, 3)).all()
        tiff = io.BytesIO()
        Image.open(io.BytesIO(data)).save(tiff, "TIFF")
        assert read_image(tiff.getvalue()).size == ImageOps.exif_transpose(Image.open(tiff)).size
