"""What can be evaluated and what is refused: layouts, labels, classes."""

import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_run import make_run
from PIL import Image

from dmgd.classes.imagenet import imagenet_classes, imagenet_subset
from dmgd.classes.info import ClassInfo
from dmgd.classes.matching import match_labels
from dmgd.errors import ArtifactError, MismatchError, UsageError
from dmgd.evaluation.imageset import Shape, prepared_set, read_sets
from dmgd.evaluation.inputs import read_raw_set

CATS = (ClassInfo("cat", "n02123045"), ClassInfo("dog", "n02084071"))


def write_folder(path, names, *, count=2, size=8, mode="RGB"):
    rng = np.random.default_rng(0)
    for name in names:
        (path / name).mkdir(parents=True)
        for i in range(count):
            shape = (size, size) if mode == "L" else (size, size, 3)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path / name / f"{i}.png")
    return path


@pytest.mark.parametrize("layout", ["webdataset", "parquet", "imagefolder", "tensors"])
def test_every_export_reads_like_its_run(tmp_path, dmgd, layout):
    run = make_run(tmp_path / "run")
    dmgd("export", run.path, "--format", layout, "--out", tmp_path / "out")
    found, wanted = read_raw_set(tmp_path / "out"), read_raw_set(run.path)
    assert found.labels == wanted.labels
    assert found.classes == wanted.classes
    assert found.specs == wanted.specs == run.specs
    for image, own in zip(found.images, wanted.images, strict=True):
        assert np.array_equal(np.array(image), np.array(own))


@pytest.mark.parametrize("layout", ["webdataset", "parquet", "imagefolder", "tensors"])
def test_an_export_without_its_index_is_read_as_a_foreign_set(tmp_path, dmgd, layout):
    run = make_run(tmp_path / "run", names=("dog", "cat"))
    dmgd("export", run.path, "--format", layout, "--out", tmp_path / "out")
    for about in ("index.json", "README.md"):
        (tmp_path / "out" / about).unlink()
    found = read_raw_set(tmp_path / "out")
    assert [info.name for info in found.classes] == ["dog", "cat"]
    assert found.labels == [0, 0, 0, 1, 1, 1]
    assert found.numbered
    assert found.specs is None


def test_a_damaged_export_is_named(tmp_path, dmgd):
    run = make_run(tmp_path / "run")
    dmgd("export", run.path, "--format", "imagefolder", "--out", tmp_path / "out")
    metadata = tmp_path / "out" / "metadata.jsonl"
    lines = metadata.read_text()
    metadata.write_text(lines.replace('"label": 1', '"label": 7'))
    with pytest.raises(ArtifactError, match=r"calls class 7 both None and 'dog'; its labels cannot be trusted"):
        read_raw_set(tmp_path / "out")
    metadata.write_text(lines[:-9])
    with pytest.raises(ArtifactError, match=r"out is damaged \(.*\); dmgd verify"):
        read_raw_set(tmp_path / "out")


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
            prepared_set(read_raw_set(folder), classes, Shape(8, 8, 3))

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
    from dmgd.evaluation.imageset import first_image

    class Empty:
        name = "mine"

        def decoded(self, split):
            return iter(())

    with pytest.raises(ArtifactError, match="'mine' has no test images"):
        first_image(Empty(), "test")


def test_sets_are_decoded_as_sources_are(tmp_path):
    folder = write_folder(tmp_path / "deep", ["cat"])
    Image.fromarray(np.full((8, 8), 0x8000, np.uint16)).save(folder / "cat" / "a.png")
    assert read_raw_set(folder).images[-1].getpixel((0, 0)) == 0x80
