"""What `dmgd export` writes, read back with the usual libraries."""

import hashlib
import io
import json
import re
import tarfile
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
import webdataset as wds
from made_run import make_run, tree
from PIL import Image
from safetensors.numpy import save_file

from dmgd.exporters.distilled import DistilledSet
from dmgd.exporters.example import Limits

LAYOUTS = ("webdataset", "parquet", "imagefolder", "tensors")
HUGGING_FACE = ("webdataset", "parquet", "imagefolder")  # the layouts that `load_dataset` opens
HOSTILE = (
    "a/b",
    "..",
    ".",
    "50%d",
    "two\nlines",
    "🐈 cat",
    "x" * 300,
    "a|b<i>",
    "../../../etc/passwd",
    " ",
    "a_b",
    "nul\x01",
)

# The webdataset library leaves the shards that it has read open.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:unclosed file.*train-\d+\.tar:ResourceWarning"),
    pytest.mark.filterwarnings(r"ignore:.*train-\d+\.tar:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def digits(tmp_path_factory, inline):
    """A run of 100 digits, sampled in two steps."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    inline("distill", "--source", "digits", "--ipc", 10, "--method", "dit", "--steps", 2, "--out", out)
    return out


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def read_with_webdataset(folder):
    """(pixels, label, metadata) of every image."""
    shards = sorted(map(str, (folder / "data").glob("*.tar")))
    samples = wds.WebDataset(shards, shardshuffle=False).decode().to_tuple("png", "cls", "json")
    return [(np.array(Image.open(io.BytesIO(image))), label, metadata) for image, label, metadata in samples]


def read_with_datasets(folder):
    """The same through `load_dataset`, from columns or from WebDataset's fields."""
    rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(folder.with_name("cache")))
    image, label = ("png", "cls") if "cls" in rows.column_names else ("image", "label")
    if (folder / "data").exists():  # the image folder's reader has no class labels
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


@pytest.mark.parametrize("layout", HUGGING_FACE)
def test_every_pixel_label_and_metadata_value_is_read_back(digits, tmp_path, inline, layout):
    from dmgd.runs.directory import RunDirectory

    run = RunDirectory.open(digits)
    done = inline("export", digits, "--format", layout, "--out", tmp_path / "out", "--json")
    assert json.loads(done.stdout)["images"] == 100
    assert_same(read_with_datasets(tmp_path / "out"), run)
    if layout == "webdataset":
        assert_same(read_with_webdataset(tmp_path / "out"), run)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("image_format", ["png", "webp", "jpg"])
def test_every_layout_keeps_the_writers_contract(run, tmp_path, layout, image_format):
    """What is written is read back in order: pixels (exactly, except JPEG), labels, metadata, file digests."""
    from dmgd.exporters.formats import layout_named
    from dmgd.images import decode
    from dmgd.workflows.export import export

    index = export(run, layout, tmp_path / "out", image_format=image_format, limits=Limits(images=4))
    found = list(layout_named(layout).read(tmp_path / "out", index))
    assert [(stored.metadata["key"], stored.label) for stored in found] == [
        (r.key, r.class_index) for r in run.records()
    ]
    for stored, record in zip(found, run.records(), strict=True):
        pixels = stored.image if isinstance(stored.image, np.ndarray) else decode(stored.image)
        distance = np.abs(pixels.astype(int) - run.pixels(record)).max()
        assert distance == 0 if image_format != "jpg" else distance < 100
        if not isinstance(stored.image, np.ndarray):
            assert stored.metadata["sha256"] == hashlib.sha256(stored.image).hexdigest()
        assert stored.metadata["pixels_sha256"] == record.pixels_sha256


def test_tensors_are_class_ordered_and_load_safely(run, tmp_path, inline):
    inline("export", run.path, "--format", "tensors", "--out", tmp_path / "out")
    images, labels = (torch.load(tmp_path / "out" / name, weights_only=True) for name in ("images.pt", "labels.pt"))
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (images.shape, images.dtype) == ((6, 3, 8, 8), torch.float32)
    wanted = np.stack([run.pixels(record) for record in run.records()]).transpose(0, 3, 1, 2)
    assert np.array_equal(images.mul(255).round().byte().numpy(), wanted)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_soft_labels_go_with_their_images(run, tmp_path, inline, layout):
    keys = [record.key for record in run.records()]
    logits = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    shuffled = np.array([3, 0, 5, 1, 4, 2])
    (tmp_path / "teacher").mkdir()
    metadata = {"keys": json.dumps([keys[i] for i in shuffled])}
    save_file({"logits": logits[shuffled]}, tmp_path / "teacher" / "soft_labels.safetensors", metadata)
    inline("export", run.path, "--format", layout, "--soft-labels", tmp_path / "teacher", "--out", tmp_path / "out")
    if layout == "tensors":
        found = torch.load(tmp_path / "out" / "soft_labels.pt", weights_only=True).numpy()
    else:
        rows = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
        found = np.array(rows["logits.npy" if layout == "webdataset" else "logits"], dtype=np.float32)
    assert np.array_equal(found, logits)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_soft_labels_that_are_not_finite_are_refused_in_every_layout(run, tmp_path, inline, layout, value):
    logits = np.zeros((6, 2), np.float32)
    logits[4, 1] = value
    keys = [record.key for record in run.records()]
    (tmp_path / "teacher").mkdir()
    save_file({"logits": logits}, tmp_path / "teacher" / "soft_labels.safetensors", {"keys": json.dumps(keys)})
    settings = ("--format", layout, "--soft-labels", tmp_path / "teacher", "--out", tmp_path / "out")
    error = inline("export", run.path, *settings, code=1).stderr
    assert f"has NaN or infinite logits for 1 of 6 images, first {keys[4]}; make them again" in error
    assert not (tmp_path / "out").exists()


def test_soft_labels_of_another_run_are_refused(run, tmp_path, inline):
    (tmp_path / "teacher").mkdir()
    missing = inline("export", run.path, "--soft-labels", tmp_path / "teacher", "--out", tmp_path / "out", code=1)
    assert "soft_labels.safetensors does not exist" in missing.stderr
    metadata = {"keys": json.dumps(["c0000-i00000"])}
    save_file({"logits": np.zeros((1, 2))}, tmp_path / "teacher" / "soft_labels.safetensors", metadata)
    foreign = inline("export", run.path, "--soft-labels", tmp_path / "teacher", "--out", tmp_path / "out", code=1)
    assert "lacks 5 of the run's 6 images, first c0000-i00001" in foreign.stderr
    save_file({"logits": np.full((1, 2), -np.inf)}, tmp_path / "teacher" / "soft_labels.safetensors", metadata)
    infinite = inline("export", run.path, "--soft-labels", tmp_path / "teacher", "--out", tmp_path / "out", code=1)
    assert "has NaN or infinite logits" in infinite.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_hostile_class_names_stay_inside_and_are_kept_in_the_metadata(tmp_path, layout):
    from dmgd.exporters.formats import layout_named
    from dmgd.workflows.export import export

    run = make_run(tmp_path / "deep" / "run", names=HOSTILE, ipc=1)
    before = tree(tmp_path)
    index = export(run, layout, tmp_path / "deep" / "out")
    written = tree(tmp_path).keys() - before.keys()
    assert all(path.startswith("deep/out/") for path in written)
    assert all(re.fullmatch(r"[A-Za-z0-9_./-]+", path) and ".." not in path for path in written)
    assert max(len(part) for path in written for part in path.split("/")) < 100
    names = [stored.metadata["class_name"] for stored in layout_named(layout).read(tmp_path / "deep" / "out", index)]
    assert names == list(HOSTILE)
    if layout in HUGGING_FACE:
        rows = datasets.load_dataset(str(tmp_path / "deep" / "out"), split="train", cache_dir=str(tmp_path / "cache"))
        metadata = rows["json"] if layout == "webdataset" else [{"class_name": name} for name in rows["class_name"]]
        assert [fields["class_name"] for fields in metadata] == list(HOSTILE)


def test_classes_with_the_same_name_get_unique_labels(tmp_path):
    from dmgd.workflows.export import export

    export(make_run(tmp_path / "run", names=("crane", "crane"), ipc=1), "parquet", tmp_path / "out")
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.features["label"].names == ["crane (0)", "crane (1)"]
    assert rows["class_name"] == ["crane", "crane"]


def test_an_image_folder_sorts_into_the_class_indices(run, tmp_path, inline):
    inline("export", run.path, "--format", "imagefolder", "--out", tmp_path / "out")
    folders = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert folders == ["0000-cat", "0001-dog"]
    pixels = np.array(Image.open(tmp_path / "out" / "0001-dog" / "00002.png"))
    assert np.array_equal(pixels, run.pixels(run.records()[-1]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_bytes_on_another_day_in_another_folder(run, tmp_path, monkeypatch, layout):
    from dmgd.workflows.export import export

    export(run, layout, tmp_path / "one")
    monkeypatch.setattr("time.time", lambda: 2e9)
    export(run, layout, tmp_path / "two" / "deep%d")
    assert tree(tmp_path / "one") == tree(tmp_path / "two" / "deep%d")


@pytest.mark.parametrize("block", [700, 1 << 20])
def test_shards_are_those_of_webdataset_byte_for_byte(run, tmp_path, monkeypatch, block):
    """However the blocks lie in which they are written."""
    from dmgd.exporters import folder
    from dmgd.workflows.export import export

    monkeypatch.setattr(folder, "BLOCK", block)
    found = export(run, "webdataset", tmp_path / "out", limits=Limits(images=4))
    for path in (file["path"] for file in found["files"] if file["path"].endswith(".tar")):
        shard = tmp_path / "out" / path
        with tarfile.open(shard) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar}
        with wds.TarWriter(str(tmp_path / "bare.tar"), encoder=False, mtime=0) as bare:
            for key in sorted({name.split(".")[0] for name in files}):
                bare.write({"__key__": key, **{s: files[f"{key}.{s}"] for s in ("png", "json", "cls")}})
        assert shard.read_bytes() == (tmp_path / "bare.tar").read_bytes()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_index_lists_every_file(run, tmp_path, layout):
    from dmgd.workflows.export import export

    index = export(run, layout, tmp_path / "out")
    files = {file["path"]: file["sha256"] for file in index["files"]}
    assert {**files, "index.json": tree(tmp_path / "out")["index.json"]} == tree(tmp_path / "out")
    assert sum(file["images"] for file in index["files"]) == index["images"] == 6
    assert index["images_per_class"] == [3, 3]


@pytest.mark.parametrize(("layout", "suffix"), [("webdataset", "tar"), ("parquet", "parquet")])
def test_shards_are_limited_by_count_and_by_size(run, tmp_path, layout, suffix):
    from dmgd.workflows.export import export

    by_count = export(run, layout, tmp_path / "count", limits=Limits(images=4))
    assert [file["images"] for file in by_count["files"] if file["path"].endswith(suffix)] == [4, 2]
    assert_same(read_with_datasets(tmp_path / "count"), run)
    by_size = export(run, layout, tmp_path / "size", limits=Limits(bytes=1))
    assert [file["images"] for file in by_size["files"] if file["path"].endswith(suffix)] == [1] * 6


def test_exporting_again_into_the_same_folder_changes_nothing(run, tmp_path, inline):
    inline("export", run.path, "--out", tmp_path / "out")
    before = tree(tmp_path / "out")
    inline("export", run.path, "--out", tmp_path / "out")
    refused = inline("export", run.path, "--format", "parquet", "--out", tmp_path / "out", code=1)
    assert "another export" in refused.stderr
    assert tree(tmp_path / "out") == before
    shard = next((tmp_path / "out").rglob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert f"{shard.name}: was changed" in inline("export", run.path, "--out", tmp_path / "out", code=1).stderr


def test_a_layout_that_loses_images_is_noticed(run, tmp_path, monkeypatch, inline):
    from dmgd.exporters import formats

    sound = formats.layout_named("imagefolder")
    losing = replace(sound, write=lambda folder, examples, of: sound.write(folder, list(examples)[:-1], of))
    monkeypatch.setitem(formats.LAYOUTS, "imagefolder", losing)
    refused = inline("export", run.path, "--format", "imagefolder", "--out", tmp_path / "out", code=1)
    assert "wrote 5 of 6 images; nothing was exported" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_images_are_stored_as_they_are(run, tmp_path):
    from dmgd.workflows.export import export

    export(run, "webdataset", tmp_path / "out")
    shard = next((tmp_path / "out" / "data").iterdir())
    stored = [sample["png"] for sample in wds.WebDataset(str(shard), shardshuffle=False)]
    assert stored == [run.image_bytes(record) for record in run.records()]
    assert Image.open(io.BytesIO(stored[0])).format == "PNG"


@pytest.mark.parametrize("tiles", [1, 2])
def test_grey_images_are_verified_as_webp_too(tmp_path, inline, tiles):
    """WebP has three channels, always."""
    made = make_run(tmp_path / "run", ipc=4, channels=1)
    out = tmp_path / "out"
    inline("export", made.path, "--format", "webdataset", "--image-format", "webp", "--tiles", tiles, "--out", out)
    inline("verify", out)
    assert {image.shape for _, _, image in DistilledSet.open(out).images()} == {(8 // tiles, 8 // tiles, 1)}
