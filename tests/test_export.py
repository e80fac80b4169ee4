"""What `dmgd export` writes, read back with the libraries that people read it with."""

import hashlib
import io
import json

import datasets
import numpy as np
import pytest
import webdataset as wds
import yaml
from made_run import make_run
from PIL import Image

LAYOUTS = ("webdataset", "parquet", "imagefolder")

# The webdataset library leaves the shards that it has read open.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:unclosed file.*train-\d+\.tar:ResourceWarning"),
    pytest.mark.filterwarnings(r"ignore:.*train-\d+\.tar:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def digits(tmp_path_factory, dmgd):
    """A run of the installed command: 100 digits, sampled in two steps."""
    folder = tmp_path_factory.mktemp("runs")
    settings = ("--source", "digits", "--ipc", 10, "--method", "dit", "--steps", 2)
    dmgd("distill", *settings, "--out", folder / "digits", XDG_CACHE_HOME=str(folder / "cache"))
    return folder / "digits"


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def tree(folder):
    """The digest of every file under `folder`."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_with_webdataset(folder):
    """(pixels, label, metadata) of every image."""
    shards = sorted(map(str, (folder / "data").glob("*.tar")))
    samples = wds.WebDataset(shards, shardshuffle=False).decode().to_tuple("png", "cls", "json")
    return [(np.array(Image.open(io.BytesIO(image))), label, metadata) for image, label, metadata in samples]


def read_with_datasets(folder):
    """The same through `load_dataset`, from columns or from WebDataset's fields."""
    rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(folder.with_name("cache")))
    image, label = ("png", "cls") if "cls" in rows.column_names else ("image", "label")
    if (folder / "data").exists():  # the image folder's reader knows no class labels
        assert rows.features[label].names == ["cat", "dog"] or rows.features[label].names == list("0123456789")
    return [(np.array(row[image]), row[label], row.get("json", row)) for row in rows]


def expected(run):
    """What must be read back, by key: pixels, label, metadata."""
    return {
        record.key: (
            run.pixels(record),
            record.class_index,
            {
                "key": record.key,
                "class_name": run.classes[record.class_index].name,
                "wnid": run.classes[record.class_index].wnid,
                "prior_index": run.classes[record.class_index].prior_index,
                "image_index": record.image_index,
                "seed": record.seed,
                "other_class": record.other_class,
                "ot_cost": record.ot_cost,
                "sha256": record.sha256,
                "pixels_sha256": record.pixels_sha256,
            },
        )
        for record in run.records()
    }


def assert_same(found, run):
    wanted = expected(run)
    assert [metadata["key"] for _, _, metadata in found] == sorted(wanted)
    for pixels, label, metadata in found:
        wanted_pixels, wanted_label, wanted_metadata = wanted[metadata["key"]]
        assert np.array_equal(pixels.reshape(wanted_pixels.shape), wanted_pixels)
        assert label == wanted_label
        assert {name: metadata[name] for name in wanted_metadata} == wanted_metadata


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_pixel_label_and_metadata_value_is_read_back(digits, tmp_path, dmgd, layout):
    from dmgd.artifacts.run import RunDirectory

    run = RunDirectory.open(digits)
    done = dmgd("export", digits, "--format", layout, "--out", tmp_path / "out", "--json")
    assert json.loads(done.stdout)["images"] == 100
    assert_same(read_with_datasets(tmp_path / "out"), run)
    if layout == "webdataset":
        assert_same(read_with_webdataset(tmp_path / "out"), run)


def test_an_image_folder_sorts_into_the_class_indices(run, tmp_path, dmgd):
    dmgd("export", run.path, "--format", "imagefolder", "--out", tmp_path / "out")
    folders = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert folders == ["0000-cat", "0001-dog"]
    pixels = np.array(Image.open(tmp_path / "out" / "0001-dog" / "00002.png"))
    assert np.array_equal(pixels, run.pixels(run.records()[-1]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_bytes_on_another_day_in_another_folder(run, tmp_path, monkeypatch, layout):
    from dmgd.export import export

    export(run, layout, tmp_path / "one")
    monkeypatch.setattr("time.time", lambda: 2e9)
    export(run, layout, tmp_path / "two" / "deep%d")
    assert tree(tmp_path / "one") == tree(tmp_path / "two" / "deep%d")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_index_lists_every_file(run, tmp_path, layout):
    from dmgd.export import export

    index = export(run, layout, tmp_path / "out")
    files = {file["path"]: file["sha256"] for file in index["files"]}
    assert {**files, "index.json": tree(tmp_path / "out")["index.json"]} == tree(tmp_path / "out")
    assert sum(file["images"] for file in index["files"]) == index["images"] == 6
    assert index["images_per_class"] == [3, 3]


@pytest.mark.parametrize(("layout", "suffix"), [("webdataset", "tar"), ("parquet", "parquet")])
def test_shards_are_limited_by_count_and_by_size(run, tmp_path, layout, suffix):
    from dmgd.export import export
    from dmgd.exporters.example import Limits

    by_count = export(run, layout, tmp_path / "count", limits=Limits(images=4))
    assert [file["images"] for file in by_count["files"] if file["path"].endswith(suffix)] == [4, 2]
    assert_same(read_with_datasets(tmp_path / "count"), run)
    by_size = export(run, layout, tmp_path / "size", limits=Limits(bytes=1))
    assert [file["images"] for file in by_size["files"] if file["path"].endswith(suffix)] == [1] * 6


def test_the_card_has_yaml_a_class_table_and_the_command_that_makes_the_run(digits, tmp_path, dmgd):
    dmgd("export", digits, "--format", "parquet", "--out", tmp_path / "out")
    _, head, text = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["dataset_info"]["splits"][0]["num_examples"] == 100
    command = next(line for line in text.splitlines() if line.startswith("dmgd distill")).split()[1:]
    dmgd(*command, "--out", tmp_path / "again")
    assert tree(tmp_path / "again") == tree(digits)


def test_exporting_again_into_the_same_folder_changes_nothing(run, tmp_path, dmgd):
    dmgd("export", run.path, "--out", tmp_path / "out")
    before = tree(tmp_path / "out")
    dmgd("export", run.path, "--out", tmp_path / "out")
    refused = dmgd("export", run.path, "--format", "parquet", "--out", tmp_path / "out", code=1)
    assert "another export" in refused.stderr
    assert tree(tmp_path / "out") == before


def test_wrong_input_is_refused_and_nothing_is_written(run, tmp_path, dmgd):
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("dear")
    for arguments, said in (
        ((run.path, "--format", "webdatset", "--out", tmp_path / "x"), "did you mean 'webdataset'"),
        ((other, "--out", tmp_path / "x"), "is not a run"),
        ((run.path, "--out", other), "thesis.txt"),
        ((run.path, "--out", other / "thesis.txt"), "is a file"),
    ):
        refused = dmgd("export", *arguments, code=2)
        assert said in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "x").exists()
    assert tree(other) == {"thesis.txt": hashlib.sha256(b"dear").hexdigest()}


def test_an_unfinished_or_changed_run_is_not_exported(run, tmp_path, dmgd):
    image = run.path / run.records()[3].path
    data = image.read_bytes()
    image.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert str(image) in dmgd("export", run.path, "--out", tmp_path / "x", code=1).stderr
    image.write_bytes(data)
    manifest = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**manifest, "status": "running"}))
    assert "unfinished" in dmgd("export", run.path, "--out", tmp_path / "x", code=1).stderr
    assert not (tmp_path / "x").exists()


def test_images_are_stored_as_they_are(run, tmp_path):
    from dmgd.export import export

    export(run, "webdataset", tmp_path / "out")
    shard = next((tmp_path / "out" / "data").iterdir())
    stored = [sample["png"] for sample in wds.WebDataset(str(shard), shardshuffle=False)]
    assert stored == [run.image_bytes(record) for record in run.records()]
    assert Image.open(io.BytesIO(stored[0])).format == "PNG"
