"""Damaged, careless and hostile shards: nothing is left out or mixed up without a word, and errors are one line."""

import gzip
import os
import subprocess
import sys
import tarfile

import pytest
from hostile_data import FOUND, JPEG, SAMPLES, write_shard
from source_stand_ins import as_shards, pictures

from dmgd.errors import UsageError
from dmgd.images import image_bytes
from dmgd.sources.open import open_source


def test_labels_that_are_equal_as_numbers_have_one_order_whatever_the_hash_seed(tmp_path):
    shard = tmp_path / "x.tar"
    write_shard(shard, [(str(i), {"jpg": b"x", "cls": label.encode()}) for i, label in enumerate(["1", "01", "001"])])
    script = f"from dmgd.sources.open import open_source; print([c.name for c in open_source('wds:{shard}').classes])"
    orders = {
        subprocess.check_output(
            [sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONHASHSEED": str(seed)}
        )
        for seed in range(3)
    }
    assert orders == {b"['001', '01', '1']\n"}


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
@pytest.mark.parametrize("damage", ["header", "cut between files", "cut in the end", "joined", "a file twice"])
def test_a_shard_that_does_not_end_as_it_should_is_refused(tmp_path, fitted, suffix, damage):
    whole = write_shard(tmp_path / "whole.tar", SAMPLES).read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as tar:
        starts = [member.offset for member in tar]
    data = {
        "header": whole[: starts[5]] + b"\xff" + whole[starts[5] + 1 :],
        "cut between files": whole[: starts[6]],
        "cut in the end": whole[: starts[-1] + 1024],
        "joined": whole + whole,
        "a file twice": whole[: starts[4]] + whole[starts[2] :],
    }[damage]
    shard = tmp_path / f"x.{suffix}"
    shard.write_bytes(gzip.compress(data) if suffix == "tar.gz" else data)
    line = fitted(f"wds:{shard}", code=1)
    assert f"the shard {shard} is damaged" in line
    shard.write_bytes(gzip.compress(whole) if suffix == "tar.gz" else whole)
    assert fitted(f"wds:{shard}")[0] == {"0": 4, "1": 4}


def test_a_damaged_compressed_shard_is_refused(tmp_path, fitted):
    shard = write_shard(tmp_path / "x.tar.gz", SAMPLES, "w:gz")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2 :] = data[len(data) // 2 :][::-1]
    shard.write_bytes(data)
    assert "is damaged" in fitted(f"wds:{shard}", code=1)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_in_a_shard_are_refused(tmp_path, fitted, kind):
    shard = write_shard(tmp_path / "x.tar", SAMPLES)
    with tarfile.open(shard, "a") as tar:
        member = tarfile.TarInfo("9999.jpg")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    assert "9999.jpg is a link or a device" in fitted(f"wds:{shard}", code=1)


def test_a_file_of_negative_size_does_not_read_for_ever(tmp_path, fitted):
    shard = write_shard(tmp_path / "x.tar", SAMPLES)
    data = bytearray(shard.read_bytes())
    with tarfile.open(shard) as tar:
        at = tar.getmembers()[2].offset
    data[at + 124 : at + 136] = (-512).to_bytes(12, "big", signed=True)
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = f"{sum(data[at : at + 512]):06o}\0 ".encode()
    shard.write_bytes(data)
    assert "is damaged" in fitted(f"wds:{shard}", code=1)


def test_an_empty_shard_is_one_line_and_one_without_images_has_none(tmp_path, fitted):
    root = as_shards(tmp_path / "shards", FOUND)
    write_shard(root / "train-900.tar", [])
    assert fitted(f"wds:{root}")[0] == {"0": 4, "1": 4}
    (root / "train-901.tar").write_bytes(b"")
    assert "train-901.tar is damaged or is no tar file" in fitted(f"wds:{root}", code=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cls": b"\xff\xfe\x00\x01"}, "has the label"),
        ({"cls": b"\x1b[31m"}, "has the label"),
        ({"cls": b"7" * 5000}, "has the label"),
        ({"cls": b" \n"}, "has the label ''"),
        ({"json": b'{"wnid": "\\ud800"}'}, "has the label"),
        ({"json": b"[" * 100_000}, "is damaged"),
        ({"json": b'{"label": ' + b"1" * 5000 + b"}"}, "is damaged"),
        ({"json": b'{"label": true}'}, "has no label"),
        ({"json": b"[1]"}, "has no label"),
    ],
)
def test_labels_that_are_no_text_are_named(tmp_path, fitted, fields, message):
    shard = write_shard(tmp_path / "x.tar", [*SAMPLES, ("odd", {"jpg": JPEG, **fields})])
    line = fitted(f"wds:{shard}", code=1)
    assert "sample odd" in line
    assert message in line
    assert len(line) < 400


def test_images_in_shards_are_found_by_content_and_samples_without_one_are_counted(tmp_path, fitted):
    odd = [
        ("a", {"jfif": JPEG, "cls": b"0"}),
        ("b", {"JPG_1": JPEG, "cls": b"0"}),
        ("c", {"txt": b"no image", "cls": b"0"}),
    ]
    counts, warnings = fitted(f"wds:{write_shard(tmp_path / 'x.tar', [*SAMPLES, *odd])}")
    assert counts == {"0": 6, "1": 4}
    assert any("1 of 11 images cannot be read" in line and "sample c (the file is empty)" in line for line in warnings)


def test_every_shard_in_a_folder_is_read_and_the_image_is_not_its_mask(tmp_path):
    mask = pictures(["0"], 1, seed=9)[0].jpeg
    write_shard(tmp_path / "a.tar", [("x", {"seg.jpg": mask, "jpg": JPEG, "cls": b"0"})])
    write_shard(tmp_path / "b.tar.gz", SAMPLES[:2], "w:gz")
    (tmp_path / "._a.tar").write_bytes(b"a resource fork")
    (tmp_path / "data").mkdir()
    write_shard(tmp_path / "data" / "c.tar", SAMPLES[2:4])
    images = list(open_source(f"wds:{tmp_path}").images("train"))
    assert len(images) == 5
    assert image_bytes(images[0].image) == JPEG


def test_an_endless_series_of_shards_is_refused_at_once():
    for pattern in ("x-{0..999999999}.tar", "{0..999999}/{0..999999}.tar", "x-{0..99999999999999}.tar"):
        with pytest.raises(UsageError, match=r"no WebDataset|more than"):
            open_source(f"wds:{pattern}")
