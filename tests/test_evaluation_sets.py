"""What can be evaluated and what is refused: layouts, labels, classes."""

import io
import json
import re
import shutil
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_run import make_run
from PIL import Image
from source_stand_ins import as_parquet, pictures

from dmgd.classes.imagenet import imagenet_classes, imagenet_subset
from dmgd.classes.info import ClassInfo
from dmgd.classes.matching import match_labels
from dmgd.errors import ArtifactError, MismatchError, UsageError
from dmgd.evaluation.imageset import Shape, prepared_set, read_sets, usual_shape
from dmgd.evaluation.inputs import read_raw_set
from dmgd.exporters.folder import read_index
from dmgd.files import write_sealed
from dmgd.sources.open import open_source

CATS = (ClassInfo("cat", "n02123045"), ClassInfo("dog", "n02084071"))


def write_folder(path, names, *, count=2, size=8, mode="RGB", seed=0):
    rng = np.random.default_rng(seed)
    for name in names:
        (path / name).mkdir(parents=True)
        for i in range(count):
            shape = (size, size) if mode == "L" else (size, size, 3)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path / name / f"{i}.png")
    return path


@pytest.mark.parametrize("layout", ["webdataset", "parquet", "imagefolder", "tensors"])
def test_every_export_reads_like_its_run(tmp_path, inline, layout):
    run = make_run(tmp_path / "run")
    inline("export", run.path, "--format", layout, "--out", tmp_path / "out")
    found, wanted = read_raw_set(tmp_path / "out"), read_raw_set(run.path)
    assert found.labels == wanted.labels
    assert found.classes == wanted.classes
    assert found.specs == wanted.specs == run.specs
    for image, own in zip(found.images, wanted.images, strict=True):
        assert np.array_equal(np.array(image), np.array(own))


@pytest.mark.parametrize("layout", ["webdataset", "parquet", "imagefolder", "tensors"])
def test_an_export_without_its_index_is_read_as_a_foreign_set(tmp_path, inline, layout):
    run = make_run(tmp_path / "run", names=("dog", "cat"))
    inline("export", run.path, "--format", layout, "--out", tmp_path / "out")
    for about in ("index.json", "README.md"):
        (tmp_path / "out" / about).unlink()
    found = read_raw_set(tmp_path / "out")
    assert [info.name for info in found.classes] == ["dog", "cat"]
    assert found.labels == [0, 0, 0, 1, 1, 1]
    assert found.numbered
    assert found.specs is None


def test_a_damaged_export_is_named(tmp_path, inline):
    run = make_run(tmp_path / "run")
    inline("export", run.path, "--format", "imagefolder", "--out", tmp_path / "out")
    metadata = tmp_path / "out" / "metadata.jsonl"
    lines = metadata.read_text()
    for changed in (lines.replace('"label": 1', '"label": 7'), lines[:-9]):
        metadata.write_text(changed)
        with pytest.raises(ArtifactError, match=r"out is damaged \(metadata.jsonl: was changed .*\); dmgd verify"):
            read_raw_set(tmp_path / "out")


@pytest.mark.parametrize("layout", ["webdataset", "parquet", "imagefolder", "tensors"])
def test_an_export_is_held_against_its_index_before_training(tmp_path, inline, layout):
    """Images that are gone, and labels that were shifted; but not its card, or a file beside it."""
    run = make_run(tmp_path / "run")
    inline("export", run.path, "--format", layout, "--out", tmp_path / "out", "--shard-images", 2)
    index = read_index(tmp_path / "out")
    largest = max(index["files"], key=lambda file: file["images"])["path"]

    def refused(said):
        error = inline("evaluate", tmp_path / "out", "--source", "digits", code=1).stderr
        assert re.match(rf"error: {tmp_path}/out is damaged \(.*({said})", error)
        assert len(error.splitlines()) == 1

    (tmp_path / "out" / "README.md").write_text("Mine.")
    (tmp_path / "out" / "notes.txt").write_text("Mine.")
    assert len(read_raw_set(tmp_path / "out").images) == 6
    whole = (tmp_path / "out" / largest).read_bytes()
    (tmp_path / "out" / largest).write_bytes(whole[:-1] + b"x")
    refused(f"{largest}: was changed")
    (tmp_path / "out" / largest).unlink()
    refused(f"{largest}: is missing")
    (tmp_path / "out" / largest).write_bytes(whole)
    for key, value, said in (
        ("images_per_class", [2, 4], "class 0: has 3 images, index.json says 2"),
        ("files", [file for file in index["files"] if file["path"] != largest], "Error|class 0: has|do not add up"),
        ("files", 5, "TypeError"),
        ("run", {**index["run"], "classes": index["run"]["classes"][::-1]}, "label 0, but is of class 'cat'"),
        ("run", {**index["run"], "classes": 7}, "TypeError"),
    ):
        write_sealed(tmp_path / "out" / "index.json", {**index, key: value})
        refused(said)
    (tmp_path / "out" / "index.json").write_text(json.dumps(index).replace("cat", "dog"))
    assert "index.json was changed (its checksum differs)" in inline("evaluate", tmp_path / "out", code=1).stderr


def test_a_run_is_held_against_its_records_before_training(tmp_path, inline):
    run = make_run(tmp_path / "run")
    first, *_, last = (run.path / record.path for record in run.records())
    whole, other = first.read_bytes(), last.read_bytes()
    first.write_bytes(other)  # an image of another class
    assert f"{first} was changed after it was made" in inline("evaluate", run.path, code=1).stderr
    first.write_bytes(whole)
    (records,) = (run.path / "batches").glob("*.json")
    records.write_text(records.read_text().replace('"class_index": 1', '"class_index": 0'))
    assert "was changed (its checksum differs)" in inline("evaluate", run.path, code=1).stderr
    records.unlink()
    assert "is unfinished" in inline("evaluate", run.path, code=1).stderr


def test_damaged_tensors_without_an_index_are_one_line(tmp_path, inline):
    run = make_run(tmp_path / "run")
    inline("export", run.path, "--format", "tensors", "--out", tmp_path / "out")
    (tmp_path / "out" / "index.json").unlink()
    images = (tmp_path / "out" / "images.pt").read_bytes()
    for damaged in (b"", images[:-9], images[:500] + images[600:]):
        (tmp_path / "out" / "images.pt").write_bytes(damaged)
        error = inline("evaluate", tmp_path / "out", "--source", "digits", code=1).stderr
        assert "out is damaged (ValueError: images.pt" in error
        assert len(error.splitlines()) == 1


def test_numbered_folders_are_in_the_order_of_their_numbers(tmp_path):
    folder = write_folder(tmp_path / "set", [str(i) for i in range(12)], count=1)
    classes = tuple(ClassInfo(f"class {i}") for i in range(12))
    data = prepared_set(read_raw_set(folder), classes, Shape(8, 8, 3), "index")
    for i in range(12):
        own = np.array(Image.open(folder / str(i) / "0.png"))
        assert np.array_equal(data.images[data.labels == i][0].permute(1, 2, 0).numpy(), own)
    (folder / "11").rename(folder / "13")
    with pytest.raises(MismatchError, match=r"set lacks the class 11, but has 13; .* by position"):
        prepared_set(read_raw_set(folder), classes, Shape(8, 8, 3), "index")


def test_channels_and_size_are_those_of_all_test_images(tmp_path):
    """One grey or tiny image at the front does not make all of them so."""
    for split in ("train", "val"):
        write_folder(tmp_path / split, ["cat", "dog"], count=3, size=24)
    Image.new("L", (8, 8)).save(tmp_path / "val" / "cat" / "!.png")
    assert usual_shape(open_source(f"folder:{tmp_path}"), "test") == (24, 3)
    for file in (tmp_path / "train").rglob("*.png"):
        Image.open(file).convert("I;16").save(file)
    assert usual_shape(open_source(f"folder:{tmp_path}"), "train") == (24, 1)


def test_a_set_of_test_images_is_refused_whatever_its_files_are_called(tmp_path, inline):
    for split in ("train", "val"):
        write_folder(tmp_path / "data" / split, ["cat", "dog"], seed=len(split))
    settings = ("--source", f"folder:{tmp_path / 'data'}", "--against", "", "--epochs", 1, "--repeats", 1)
    error = inline("evaluate", tmp_path / "data" / "val", *settings, code=1).stderr
    assert "error: 4 of the 4 images of val are among the 4 test images: train on other images" in error
    inline("evaluate", tmp_path / "data" / "train", *settings)
    for number, code in enumerate((0, 1)):
        shutil.copy(tmp_path / f"data/val/cat/{number}.png", tmp_path / f"data/train/cat/x{number}.png")
        said = inline("evaluate", tmp_path / "data" / "train", *settings, code=code).stderr
        assert f"{number + 1} of the {number + 5} images of train are among the 4 test images" in said


def test_what_is_left_out_is_said(tmp_path, inline):
    for split in ("train", "val"):
        write_folder(tmp_path / "data" / split, ["cat", "dog"], seed=len(split), count=3)
    write_folder(tmp_path / "set", ["cat", "dog"], seed=7)
    (tmp_path / "data" / "val" / "cat" / "0.png").write_bytes(b"no image")
    (tmp_path / "data" / "val" / "dog" / "notes.txt").write_text("Mine.")
    (tmp_path / "set" / "dog" / "more.txt").write_text("Mine.")
    settings = ("--source", f"folder:{tmp_path / 'data'}", "--against", "", "--epochs", 1, "--repeats", 1)
    said = inline("evaluate", tmp_path / "set", *settings).stderr
    assert "warning: 1 test images of folder:data cannot be read and are left out: val/cat/0.png (cannot id" in said
    assert re.search(r"warning: .*notes\.txt", said)
    assert re.search(r"warning: .*more\.txt", said)


def test_evaluate_trains_on_the_training_split_alone(tmp_path):
    """And reads every shard that fit-stats reads."""
    train, test = pictures(["cat", "dog"], 3), pictures(["cat", "dog"], 1, seed=1)
    for words in (("train", "test"), ("photos-train", "photos.val")):
        at = tmp_path / words[0]
        for split, found in zip(words, (train, test), strict=True):
            as_parquet(at / "parquet", found, split)
            (at / "shards").mkdir(exist_ok=True)
            files = {}
            for i, one in enumerate(found):
                where = ("./", "a.b/", "./c.d/e/")[i % 3]
                files[f"{where}{i}.jpg"] = one.jpeg
                files[f"{where}{i}.json"] = json.dumps({"class_name": one.label}).encode()
            write_shard(at / "shards" / f"{split}.tar", files)
        for layout in ("parquet", "shards"):
            assert sorted(read_raw_set(at / layout).labels) == [0, 0, 0, 1, 1, 1], (words, layout)
    as_parquet(tmp_path / "open", train, "a")
    with pytest.raises(UsageError, match=r"say no split or several: a-.*rename"):
        read_raw_set(as_parquet(tmp_path / "open", test, "test"))


def write_shard(path, files):
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_labels_that_are_not_class_numbers_are_reported(tmp_path):
    image = (write_folder(tmp_path / "set", ["cat"]) / "cat" / "0.png").read_bytes()
    for label in (b"cat", b"-1"):
        shard = write_shard(tmp_path / "a.tar", {"0.png": image, "0.cls": label})
        with pytest.raises(ArtifactError, match=rf"a\.tar, sample 0 has the label '{label.decode()}'"):
            read_raw_set(shard)
    shard = write_shard(tmp_path / "a.tar", {"0.png": image, "0.cls": b"1", "0.json": b"{"})
    with pytest.raises(ArtifactError, match=r"the \.json of a\.tar, sample 0 is damaged"):
        read_raw_set(shard)
    labels = [None]
    pq.write_table(pa.table({"image": [{"bytes": image}], "label": labels}), tmp_path / "a.parquet")
    with pytest.raises(ArtifactError, match=r"a\.parquet, row 0 has the label None"):
        read_raw_set(tmp_path / "a.parquet")


def test_numbers_and_names_of_another_tools_shards_go_together(tmp_path):
    image = (write_folder(tmp_path / "set", ["cat"]) / "cat" / "0.png").read_bytes()
    files = {"0.png": image, "0.cls": b"2", "0.json": b'{"class_name": "cat"}', "1.png": image, "1.cls": b"0"}
    found = read_raw_set(write_shard(tmp_path / "a.tar", files))
    assert ([info.name for info in found.classes], found.labels) == (["0", "1", "cat"], [2, 0])
    named = {name: content for name, content in files.items() if name in ("0.png", "0.json")}
    found = read_raw_set(write_shard(tmp_path / "a.tar", named))
    assert (found.classes, found.labels, found.numbered) == ((ClassInfo("cat"),), [0], False)
    files["1.cls"] = b"2"
    with pytest.raises(ArtifactError, match="calls class 2 both 'cat' and '2'; its labels cannot be trusted"):
        read_raw_set(write_shard(tmp_path / "a.tar", files))


def test_class_labels_of_another_tools_parquet_are_in_its_order(tmp_path):
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    image = (write_folder(tmp_path / "set", ["cat"]) / "cat" / "0.png").read_bytes()
    features = Features({"picture": ImageFeature(), "kind": ClassLabel(names=["dog", "cat", "ant"])})
    rows = {"picture": [{"bytes": image, "path": None}] * 2, "kind": [1, 0]}
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "a.parquet")
    found = read_raw_set(tmp_path / "a.parquet")
    assert ([info.name for info in found.classes], found.labels) == (["dog", "cat", "ant"], [1, 0])
    with pytest.raises(MismatchError, match="another order"):
        match_labels("set", found.classes, (*CATS, ClassInfo("ant")), numbered=found.numbered)


def test_every_set_has_a_unique_name(tmp_path):
    one, other = (write_folder(tmp_path / at, ["cat"]) for at in ("dit", "other/dit"))
    assert [found.name for found in read_sets([one, other])] == [str(one), str(other)]
    assert read_sets([write_folder(tmp_path / "mine", ["cat"])])[0].name == "mine"
    with pytest.raises(UsageError, match="given twice"):
        read_sets([one, tmp_path / "other" / ".." / "dit"])


def test_another_tools_folders_are_matched_by_name_or_wnid(tmp_path):
    folder = write_folder(tmp_path / "set", ["n02084071", "n02123045"])  # sorted: dog before cat
    data = prepared_set(read_raw_set(folder), CATS, Shape(8, 8, 3))
    assert data.labels.tolist() == [1, 1, 0, 0]
    assert data.classes == CATS


def test_one_of_several_names_is_enough_unless_two_classes_have_it():
    table = imagenet_classes()
    crane = [i for i, info in enumerate(table) if "crane" in info.name.split(", ")]
    assert len(crane) == 2
    named = tuple(ClassInfo(name) for name in ("Tinca tinca", "English_Springer", table[crane[0]].wnid))
    rows = match_labels("set", named, table, "name")
    assert rows == [0, table.index(imagenet_subset("imagenette")[1]), crane[0]]
    with pytest.raises(MismatchError, match=r"lacks: crane \(ambiguous\)"):
        match_labels("set", (ClassInfo("crane"),), table)


def test_another_order_is_refused_by_default():
    swapped = tuple(reversed(CATS))
    with pytest.raises(MismatchError, match=r"another order .* number 0 is 'n02084071'"):
        match_labels("set", swapped, CATS)
    assert match_labels("set", swapped, CATS, "name") == [1, 0]
    assert match_labels("set", swapped, CATS, "index") == [0, 1]
    assert match_labels("set", swapped, CATS, numbered=False) == [1, 0]


def test_classes_that_do_not_match_are_refused():
    with pytest.raises(MismatchError, match="1 classes that the test source lacks: cow"):
        match_labels("set", (ClassInfo("cow"), CATS[0]), CATS)
    with pytest.raises(MismatchError, match="two classes of set match the same class"):
        match_labels("set", (ClassInfo("cat"), ClassInfo("n02123045")), CATS)
    with pytest.raises(UsageError, match="did you mean 'name'"):
        match_labels("set", CATS, CATS, "names")
    with pytest.raises(MismatchError, match="by position"):
        match_labels("set", CATS[:1], CATS, "index")


def test_bad_sets_are_refused_in_one_line(tmp_path):
    def refused(folder, message, classes=CATS):
        with pytest.raises(ArtifactError, match=message):
            prepared_set(read_raw_set(folder).check(), classes, Shape(8, 8, 3))

    empty = write_folder(tmp_path / "empty", ["cat", "dog"])
    for file in (empty / "dog").iterdir():
        file.unlink()
    refused(empty, "no image of 1 of the 2 classes: dog")
    refused(write_folder(tmp_path / "one", ["cat"]), "1 class; a classifier needs at least two", CATS[:1])
    sizes = write_folder(tmp_path / "sizes", ["cat", "dog"])
    Image.new("RGB", (9, 8)).save(sizes / "cat" / "x.png")
    refused(sizes, "mixed sizes")
    modes = write_folder(tmp_path / "modes", ["cat", "dog"])
    Image.new("L", (8, 8)).save(modes / "cat" / "x.png")
    refused(modes, "mixed channels")
    (modes / "cat" / "y.png").write_bytes(b"no image")
    refused(modes, "y.png is not an image")


def test_a_missing_test_split_is_reported():
    class Empty:
        name = "mine"

        def images(self, split):
            return iter(())

    with pytest.raises(ArtifactError, match="'mine' has no test images"):
        usual_shape(Empty(), "test")


def test_sets_are_decoded_as_sources_are(tmp_path):
    folder = write_folder(tmp_path / "deep", ["cat"])
    Image.fromarray(np.full((8, 8), 0x8000, np.uint16)).save(folder / "cat" / "a.png")
    assert read_raw_set(folder).images[-1].getpixel((0, 0)) == 0x80
