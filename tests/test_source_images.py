"""Every kind of image is converted to the same square; every kind of broken file is counted, listed and skipped."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image
from source_stand_ins import Picture, as_folder, pictures

from dmgd.images import BadImage, read_image, square_pixels, to_square
from dmgd.sources.decode import decode_chunk, decoded_chunks
from dmgd.sources.open import open_source

RAMP = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))  # dark on the left, bright on the right


def file_of(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned() -> bytes:
    """The ramp rotated, with the EXIF orientation that undoes it."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise to see it upright
    return file_of(Image.fromarray(RAMP).transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)


def palette() -> bytes:
    image = Image.fromarray(RAMP).convert("P")
    return file_of(image, "PNG", transparency=b"\x80" * 256)


@pytest.mark.parametrize(
    ("data", "tolerance"),
    [
        (file_of(Image.fromarray(RAMP), "PNG"), 0),
        (turned(), 0),
        (file_of(Image.fromarray((RAMP.astype(np.uint16) << 8) + 77), "PNG"), 0),
        (file_of(Image.fromarray((RAMP.astype(np.uint16) << 8) + 77), "TIFF"), 0),
        (file_of(Image.fromarray(RAMP).convert("RGBA"), "PNG"), 0),
        (file_of(Image.fromarray(RAMP).convert("LA"), "PNG"), 0),
        (file_of(Image.fromarray(RAMP).convert("RGB").convert("CMYK"), "JPEG", quality=95), 6),
        (file_of(Image.fromarray(RAMP).convert("RGB"), "WEBP", lossless=True), 0),
        (palette(), 4),
    ],
    ids=["grey", "EXIF", "16 bits", "16 bits TIFF", "RGBA", "LA", "CMYK", "WebP", "palette"],
)  # fmt: skip
def test_every_kind_of_image_is_converted(data, tolerance):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(data)
    pixels = square_pixels(image, 32, 3).astype(int)
    assert pixels.shape == (32, 32, 3)
    assert np.abs(pixels - RAMP[:, :, None]).max() <= tolerance
    assert np.abs(square_pixels(image, 32, 1)[:, :, 0].astype(int) - RAMP).max() <= tolerance


def reference_crop(image: Image.Image, size: int) -> np.ndarray:
    """`center_crop_arr` of facebookresearch/DiT, as published."""
    while min(*image.size) >= 2 * size:
        image = image.resize(tuple(x // 2 for x in image.size), resample=Image.BOX)
    scale = size / min(*image.size)
    image = image.resize(tuple(round(x * scale) for x in image.size), resample=Image.BICUBIC)
    pixels = np.array(image)
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    return pixels[top : top + size, left : left + size]


@pytest.mark.parametrize("shape", [(32, 32), (33, 47), (200, 131), (20, 25), (64, 64)])
def test_the_crop_is_dit_s(shape):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    assert (to_square(image, 32, 3).numpy() == reference_crop(image, 32)).all()


def bomb() -> bytes:
    """A PNG of some 60 bytes that declares 60,000 × 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


JPEG = pictures(["a"], 1)[0].jpeg
PNG = file_of(Image.fromarray(RAMP), "PNG")
BROKEN = {
    "truncated.jpg": (JPEG[: len(JPEG) // 2], "(?i)truncated"),
    "truncated.png": (PNG[: len(PNG) // 2], "truncated|broken"),
    "empty.jpg": (b"", "empty"),
    "text.jpg": (b"<html>404 not found</html>", "cannot identify"),
    "bomb.png": (bomb(), "decompression bomb"),
    "thread.png": (file_of(Image.new("L", (3000, 1)), "PNG"), "times longer than wide"),
    "float.tif": (file_of(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), "floating-point"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_with_the_reason(name, tmp_path):
    data, reason = BROKEN[name]
    (tmp_path / name).write_bytes(data)
    for image in (data, tmp_path / name):
        with pytest.raises(BadImage, match=reason) as refused:
            read_image(image)
        assert str(tmp_path) not in str(refused.value)


def test_broken_files_are_listed_and_skipped(tmp_path):
    root = as_folder(tmp_path, [Picture("a", "whole", JPEG)])
    for name, (data, _) in BROKEN.items():
        (root / "a" / name).write_bytes(data)
    (root / "a" / "README.txt").write_text("no image, and not called one")
    source = open_source(f"folder:{root}")
    chunk = decode_chunk(list(source.images("train")), 16, 3)
    assert chunk.pixels.shape == (1, 16, 16, 3)
    assert sorted(name for name, _ in chunk.bad) == sorted(f"a/{name}" for name in BROKEN)
    assert len(list(source.decoded("train"))) == 1


def test_worker_processes_give_what_one_process_gives(tmp_path):
    root = as_folder(tmp_path, pictures(["a", "b"], 70))
    (root / "a" / "empty.jpg").touch()
    source = open_source(f"folder:{root}")
    here = list(decoded_chunks(source.images("train"), 16, 3, mirror=True, workers=0))
    there = list(decoded_chunks(source.images("train"), 16, 3, mirror=True, workers=2))
    assert [chunk.digests for chunk in here] == [chunk.digests for chunk in there]
    assert [chunk.labels for chunk in here] == [chunk.labels for chunk in there]
    assert [chunk.bad for chunk in here] == [chunk.bad for chunk in there]
    assert [name for chunk in there for name, _ in chunk.bad] == ["a/empty.jpg"]
    assert (here[0].pixels[0::2, :, ::-1] == here[0].pixels[1::2]).all()
