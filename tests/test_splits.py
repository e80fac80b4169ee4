"""Which files belong to which split: by words in their names, in every layout; refused where names leave it open."""

from pathlib import Path

import datasets
import pytest
from source_stand_ins import as_folder, as_parquet, as_shards, pictures

from dmgd.errors import UsageError
from dmgd.sources.open import open_source
from dmgd.sources.source import split_of, which_splits

TRAIN, TEST = pictures(["a", "b"], 3), pictures(["a", "b"], 1, seed=1)


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("imagenet1k-validation-00.tar", "validation"),
        ("imagenet1k-train-0000.tar", "train"),
        ("ILSVRC2012_img_val.tar", "validation"),
        ("Test/0000.parquet", "test"),
        ("val0003.tar", "validation"),
        ("training.tar", "train"),
        ("shard-00001-eval.tar", "test"),
        ("constraint-latest-0.tar", None),
        ("train-val-0.tar", None),
        ("test-set/train-0.tar", "train"),
    ],
)
def test_a_whole_word_anywhere_in_a_name_says_the_split(path, split):
    assert split_of(path) == split


def test_validation_comes_before_test_and_an_exact_name_before_others():
    assert which_splits(["test", "train", "validation"]) == {"train": "train", "test": "validation"}
    assert which_splits(["train", "train_extra", "unlabelled"]) == {"train": "train"}
    assert which_splits(["left", "right"]) == {}
    assert which_splits(["train", "val", "dev", "test"]) == {"train": "train"}
    assert which_splits(["test"]) == {"train": "test"}


def images_of(source) -> tuple[int, int]:
    return len(list(source.images("train"))), len(list(source.images("test")))


@pytest.mark.parametrize("words", [("imagenet1k-train", "imagenet1k-validation"), ("Training", "x.TEST")])
def test_test_files_are_not_trained_on_whatever_else_is_in_their_names(tmp_path, words):
    shards = as_shards(as_shards(tmp_path / "shards", TRAIN, words[0]), TEST, words[1])
    parquet = as_parquet(as_parquet(tmp_path / "parquet", TRAIN, words[0]), TEST, words[1])
    for name in (f"wds:{shards}", f"wds:{shards}/*.tar", f"hf:{parquet}"):
        assert images_of(open_source(name)) == (6, 2), name


def test_folders_say_the_split_of_the_files_in_them(tmp_path):
    for folder, found in (("train", TRAIN), ("val", TEST)):
        as_shards(tmp_path / "shards" / folder, found, "part")
        as_parquet(tmp_path / "parquet" / folder, found, "part")
    assert images_of(open_source(f"wds:{tmp_path}/shards/*/*.tar")) == (6, 2)
    assert images_of(open_source(f"hf:{tmp_path}/parquet")) == (6, 2)


def test_files_whose_names_leave_the_split_open_are_refused_beside_others(tmp_path):
    shards = as_shards(as_shards(tmp_path / "shards", TRAIN, "photos"), TEST, "val")
    parquet = as_parquet(as_parquet(tmp_path / "parquet", TRAIN, "photos"), TEST, "val")
    for name in (f"wds:{shards}", f"hf:{parquet}"):
        with pytest.raises(UsageError, match=r"split validation, and .*: photos-.*rename"):
            open_source(name)


def test_split_folders_that_datasets_takes_for_classes_are_refused(tmp_path):
    for folder, found in (("Train", TRAIN), ("Test", TEST)):
        as_folder(tmp_path / folder, found)
    with pytest.raises(UsageError, match=r"datasets does not take .*Test for a split .* give folder:"):
        open_source(f"hf:{tmp_path}")
    assert images_of(open_source(f"folder:{tmp_path}")) == (6, 2)


def test_several_splits_without_a_training_split_are_listed(tmp_path):
    shards = as_shards(as_shards(tmp_path / "shards", TRAIN, "test"), TEST, "val")
    parquet = as_parquet(as_parquet(tmp_path / "parquet", TRAIN, "test"), TEST, "val")
    for name in (f"wds:{shards}", f"hf:{parquet}"):
        with pytest.raises(UsageError, match=r"splits test, validation, .*training") as refused:
            open_source(name)
        assert "--test-data" not in str(refused.value)
    beside = open_source(f"folder:{as_folder(Path(tmp_path / 'folder'), TRAIN)}", test_data=str(shards))
    assert images_of(beside) == (6, 2)


def test_a_lone_split_for_tests_is_named(tmp_path, inline):
    columns = {"image": [{"bytes": one.jpeg, "path": None} for one in TRAIN], "label": [0] * 3 + [1] * 3}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["0", "1"])})
    datasets.DatasetDict({"test": datasets.Dataset.from_dict(columns, features=features)}).save_to_disk(tmp_path / "d")
    fit = ("fit-stats", "--source", f"hf:{tmp_path / 'd'}", "--prior", "digits", "--k", 1)
    said = inline(*fit, "--out", tmp_path / "stats").stderr
    assert f"{tmp_path / 'd'} has no split but test, which is read" in said
