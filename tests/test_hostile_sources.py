"""What careless and hostile sources of every layout have in common: order, special files, names, class maps."""

import os
import re
import time
from pathlib import Path

import pytest
from datasets import Dataset
from hostile_data import FOUND, write_shard
from source_stand_ins import as_folder, as_parquet, as_shards, pictures

from dmgd.classes.info import natural_key
from dmgd.sources.open import open_source


def test_numbers_sort_as_numbers_in_every_layout(tmp_path):
    numbers = [str(number) for number in range(12)]
    found = pictures(numbers, 1)
    rows = [{"text": picture.label, "image": {"bytes": picture.jpeg, "path": None}} for picture in found]
    (tmp_path / "text").mkdir()
    Dataset.from_list(rows).to_parquet(tmp_path / "text" / "train.parquet")
    shards = tmp_path / "shards.tar"
    write_shard(shards, [(f"{i:03d}", {"jpg": p.jpeg, "cls": p.label.encode()}) for i, p in enumerate(found)])
    for name, columns in (
        (f"folder:{as_folder(tmp_path / 'folder', found)}", None),
        (f"hf:{as_parquet(tmp_path / 'parquet', found)}", None),
        (f"hf:{tmp_path / 'text'}", "image,text"),
        (f"wds:{shards}", None),
    ):
        source = open_source(name, columns=columns)
        assert [info.name for info in source.classes] == numbers, name
        if not columns:
            assert sorted(source.layout.labels(), key=natural_key) == numbers
    assert open_source(f"folder:{tmp_path / 'folder'}").layout.labels() == numbers


def test_digits_of_any_script_and_length_are_sorted():
    names = ["²", "②", "٣", "9" * 5000, "10", "9"]
    assert sorted(names, key=natural_key)[:3] == ["9", "10", "9" * 5000]


def test_special_files_are_refused_at_once(tmp_path, fitted):
    started = time.monotonic()
    root = as_folder(tmp_path / "data", FOUND)
    os.mkfifo(root / "0" / "x.png")
    os.mkfifo(root / "0" / "pipe")
    os.mkfifo(root / "index.json")
    (root / "0" / "zero.jpg").symlink_to("/dev/zero")
    (root / "1" / "huge.jpg").touch()
    os.truncate(root / "1" / "huge.jpg", 1 << 40)
    counts, warnings = fitted(f"folder:{root}")
    assert counts == {"0": 4, "1": 4}
    said = "\n".join(warnings)
    assert "0/x.png (Not a regular file)" in said
    assert "0/zero.jpg (Not a regular file)" in said
    assert "1/huge.jpg (the file has 1,099,511,627,776 bytes" in said
    assert "left out: 0/pipe" in said

    os.mkfifo(tmp_path / "pipe.tar")
    assert "Not a regular file" in fitted(f"wds:{tmp_path / 'pipe.tar'}", code=1)
    parquet = as_parquet(tmp_path / "parquet", FOUND)
    os.mkfifo(parquet / "train-00001-of-00002.parquet")
    assert "no regular file" in fitted(f"hf:{parquet}", code=2)
    for name in ("map.json", "map.csv"):
        os.mkfifo(tmp_path / name)
        assert "Not a regular file" in fitted(f"folder:{root}", "--class-map", tmp_path / name, code=2)
    assert time.monotonic() - started < 20


def test_paths_with_brackets_are_read(tmp_path, fitted):
    parquet = as_parquet(tmp_path / "data [v1]", FOUND)
    shards = as_shards(tmp_path / "shards [v1]", FOUND)
    names = (f"hf:{parquet}", f"hf:{next(parquet.iterdir())}", f"wds:{shards}", f"wds:{next(shards.iterdir())}")
    for name in (*names, f"folder:{as_folder(tmp_path / 'folder [v1]', FOUND)}"):
        assert fitted(name)[0] == {"0": 4, "1": 4}, name


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("map.csv", "0,1\n1\n", "two-column"),
        ("map.csv", "0,\0\n", "has the label"),
        ("map.csv", b"\xff,1\n", "two-column"),
        ("map.csv", "0,1\n0,2\n", "maps a label to two classes: 0"),
        ("map.json", '{"0": 1}', "two-column"),
        ("map.json", '["0"]', "two-column"),
        ("map.json", "[" * 100_000, "nested too deeply"),
        ("map.json", '{"0": "\\u001b[31m"}', "has the label"),
        ("map.json", '{"0": ' + "1" * 5000 + "}", "two-column"),
        ("map.json", '{"0": "' + "1" * 5000 + '"}', "has the label"),
        ("folder.json", None, "Not a regular file"),
    ],
)
def test_class_maps_of_wrong_types_are_one_line(tmp_path, fitted, name, text, message):
    root, path = as_folder(tmp_path / "data", FOUND), tmp_path / name
    if text is None:
        path.mkdir()
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    line = fitted(f"folder:{root}", "--class-map", path, code=1 if message == "has the label" else 2)
    assert re.search(message, line), line
    assert len(line) < 500


def test_a_class_map_may_have_blank_lines(tmp_path, fitted):
    root = as_folder(tmp_path / "data", pictures(["a", "b"], 1))
    (tmp_path / "map.csv").write_text("\n a , 1\n\n\nb,0\n\n")
    assert fitted(f"folder:{root}", "--class-map", tmp_path / "map.csv")[0] == {"0": 1, "1": 1}


def test_a_path_without_its_kind_is_suggested_with_it(tmp_path, fitted, monkeypatch):
    monkeypatch.chdir(tmp_path)
    as_folder(Path("photos"), FOUND)
    as_parquet(Path("rows"), FOUND)
    as_shards(Path("shards"), FOUND)
    for name, kind in (("photos", "folder"), ("rows", "hf"), ("shards", "wds")):
        assert f"did you mean {kind}:{name}?" in fitted(name, code=2)
