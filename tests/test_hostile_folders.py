"""Careless and hostile folders: nothing is left out or mixed up without a word, and errors are one line."""

import os
import re
import unicodedata

import pytest
from hostile_data import FOUND, JPEG, names_of
from source_stand_ins import Picture, as_folder, pictures

from dmgd.classes.info import ClassIndex, ClassInfo
from dmgd.classes.matching import match_labels
from dmgd.errors import UsageError
from dmgd.sources.open import open_source


def test_system_folders_are_no_classes_and_hold_no_images(tmp_path):
    root = as_folder(tmp_path, FOUND)
    for name in (".ipynb_checkpoints", "@eaDir", ".AppleDouble", "__MACOSX", "$RECYCLE.BIN"):
        as_folder(root, [Picture(name, "copy", JPEG), Picture(f"0/{name}", "copy", JPEG)])
    (root / "0" / "._0_0.JPEG").write_bytes(b"a resource fork")
    source = open_source(f"folder:{root}")
    assert [info.name for info in source.classes] == ["0", "1"]
    assert names_of(source) == {f"{picture.label}/{picture.name}.JPEG" for picture in FOUND}


def test_links_do_not_read_a_folder_twice_or_for_ever(tmp_path, fitted):
    root = as_folder(tmp_path / "data", FOUND)
    (root / "0" / "loop").symlink_to(root / "0")
    (root / "0" / "up").symlink_to(tmp_path)
    (root / "0" / "other").symlink_to(root / "1")
    (root / "2").symlink_to(root / "1")
    elsewhere = as_folder(tmp_path / "elsewhere", [Picture("more", "one", JPEG)])
    (elsewhere / "more" / "loop").symlink_to(elsewhere / "more")
    (root / "1" / "out").symlink_to(elsewhere / "more")
    (root / "1" / "self.png").symlink_to(root / "1" / "self.png")
    counts, warnings = fitted(f"folder:{root}")
    assert counts == {"0": 4, "1": 5}
    said = "\n".join(warnings)
    assert re.search(r"4 of the files in .* are links to folders .* not followed: (2|0/loop)", said)
    assert re.search(r"1 of the files in .* are read through links that lead elsewhere: 1/out/one.JPEG", said)
    assert "1/self.png (Too many levels of symbolic links)" in said


def test_splits_and_classes_may_be_links_to_other_folders_of_the_data(tmp_path, fitted):
    as_folder(tmp_path / "raw" / "everything", FOUND)
    as_folder(tmp_path / "raw" / "held out", FOUND[:1])
    (tmp_path / "train").mkdir()
    for name in ("0", "1"):
        (tmp_path / "train" / name).symlink_to(tmp_path / "raw" / "everything" / name)
    (tmp_path / "val").symlink_to(tmp_path / "raw" / "held out")
    counts, warnings = fitted(f"folder:{tmp_path}")
    assert counts == {"0": 4, "1": 4}
    assert any(
        "8 of the files" in line and "through links that lead elsewhere: train/0/0_0.JPEG" in line for line in warnings
    )
    assert len(names_of(open_source(f"folder:{tmp_path}"), "test")) == 1


def test_a_link_to_a_file_elsewhere_is_said(tmp_path, fitted):
    root = as_folder(tmp_path / "data", FOUND)
    (tmp_path / "private.jpg").write_bytes(JPEG)
    (root / "0" / "x.jpg").symlink_to(tmp_path / "private.jpg")
    assert any("through links that lead elsewhere: 0/x.jpg" in line for line in fitted(f"folder:{root}")[1])


def test_evaluate_names_what_is_left_out_of_the_test_images(tmp_path, inline):
    for split in ("train", "val"):
        as_folder(tmp_path / "data" / split, FOUND)
    (tmp_path / "data" / "val" / "0" / "x.heic").write_bytes(b"\0ftyp")
    (tmp_path / "data" / "train" / "0" / "y.heic").write_bytes(b"\0ftyp")
    as_folder(tmp_path / "set", pictures(["0", "1"], 1, seed=5))
    command = ["evaluate", tmp_path / "set", "--source", f"folder:{tmp_path / 'data'}", "--network", "probe"]
    said = inline(*command, "--repeats", 1, "--prior", "digits").stderr
    assert said.count("left out: val/0/x.heic") == 1
    assert "y.heic" not in said


def test_files_are_images_by_content_and_the_others_are_counted_and_named(tmp_path, fitted):
    root = as_folder(tmp_path / "data", FOUND)
    for name, data in {"a.jfif": JPEG, "b": JPEG, "c.JPG_1": JPEG, "notes.txt": b"words", "d.heic": b"\0ftyp"}.items():
        (root / "1" / name).write_bytes(data)
    counts, warnings = fitted(f"folder:{root}")
    assert counts == {"0": 4, "1": 7}
    assert any("2 of the files in" in line and "left out: 1/d.heic, 1/notes.txt" in line for line in warnings)


@pytest.mark.parametrize("names", [("Train", "Test"), ("TRAINING", "val"), ("training_set", "test_set")])
def test_split_folders_are_found_however_they_are_written(tmp_path, names):
    for name, found in zip(names, (FOUND, FOUND[:1]), strict=True):
        as_folder(tmp_path / name, found)
    source = open_source(f"folder:{tmp_path}")
    assert [info.name for info in source.classes] == ["0", "1"]
    assert (len(names_of(source)), len(names_of(source, "test"))) == (8, 1)


def test_words_of_splits_in_names_of_classes_are_no_splits(tmp_path):
    found = pictures(["bullet train", "bus", "train"], 1)
    assert [info.name for info in open_source(f"folder:{as_folder(tmp_path, found)}").classes] == sorted(
        ["bullet train", "bus", "train"]
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cat", "dog", "test/cat", "test/dog"], "class folders in test, and beside it cat, dog"),
        (["train", "test"], "test and train in .* have no class folders"),
        (["val/cat", "test/cat"], "splits test, val"),
    ],
)
def test_folders_whose_splits_are_not_clear_are_refused(tmp_path, labels, message):
    root = as_folder(tmp_path, [Picture(label, "one", JPEG) for label in labels])
    with pytest.raises(UsageError, match=message):
        open_source(f"folder:{root}")


def test_names_that_are_composed_differently_are_one_class(tmp_path):
    composed, apart = "caf\xe9", unicodedata.normalize("NFD", "caf\xe9")
    as_folder(tmp_path / "train", [Picture(composed, "one", JPEG), Picture(apart, "two", JPEG)])
    as_folder(tmp_path / "val", [Picture(apart, "one", JPEG)])
    source = open_source(f"folder:{tmp_path}")
    assert [info.name for info in source.classes] == [composed]
    assert (len(names_of(source)), len(names_of(source, "test"))) == (2, 1)
    assert match_labels("set", [ClassInfo(apart)], [ClassInfo("x"), ClassInfo(composed)]) == [1]
    assert ClassIndex([ClassInfo(apart)]).find(composed) == [0]


def test_names_that_are_not_utf8_are_read_or_named(tmp_path, fitted):
    root = as_folder(tmp_path / "data", FOUND)
    (root / os.fsdecode(b"0/caf\xe9.jpg")).write_bytes(b"broken")
    counts, warnings = fitted(f"folder:{root}")
    assert counts == {"0": 4, "1": 4}
    assert any(r"0/caf\udce9.jpg (cannot identify" in line for line in warnings)
    open_source(f"folder:{root}").fingerprint("train")
    (root / os.fsdecode(b"caf\xe9")).mkdir()
    assert r"caf\udce9" in fitted(f"folder:{root}", code=1)


@pytest.mark.parametrize("name", ["²", "②", "1" * 200])
def test_class_folders_may_have_any_digits_as_names(tmp_path, name):
    root = as_folder(tmp_path, [*FOUND, Picture(name, "one", JPEG)])
    assert {info.name for info in open_source(f"folder:{root}").classes} == {"0", "1", name}


@pytest.mark.parametrize(
    "inside", ["[" * 100_000, '{"run": {"classes": ["a"]}}', '{"run": {"classes": [{"wnid": 1}]}}']
)
def test_an_index_of_something_else_is_passed_over(tmp_path, inside):
    root = as_folder(tmp_path, FOUND)
    (root / "index.json").write_text(inside)
    assert [info.name for info in open_source(f"folder:{root}").classes] == ["0", "1"]
