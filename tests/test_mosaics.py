"""Mosaics: several images of a set, shrunk, in the pixels of one; exported, verified, evaluated."""

import io
import json
import re
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
import webdataset as wds
from made_run import forge, make_run, tree
from PIL import Image
from safetensors.numpy import save_file

import dmgd
from dmgd.errors import UsageError
from dmgd.evaluation.imageset import Shape, prepared_set, source_set
from dmgd.evaluation.inputs import read_raw_set
from dmgd.exporters import distilled, formats
from dmgd.files import sha256_bytes
from dmgd.generation.batches import Batch
from dmgd.images import encode
from dmgd.mosaics import shrunk, split, stitched, stored_sizes
from dmgd.sources.open import open_source

# The webdataset library leaves the shards that it has read open.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:unclosed file.*train-\d+\.tar:ResourceWarning"),
    pytest.mark.filterwarnings(r"ignore:.*train-\d+\.tar:pytest.PytestUnraisableExceptionWarning"),
]
DIGITS = tuple("0123456789")
LAYOUTS = ("webdataset", "parquet", "imagefolder", "tensors")


@pytest.fixture
def run(tmp_path):
    """Eight images of 8×8 of two classes: two mosaics each."""
    return make_run(tmp_path / "run", ipc=8)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A run with the classes of the digits, and its export in mosaics."""
    folder = tmp_path_factory.mktemp("digits")
    run = make_run(folder / "run", DIGITS, ipc=4, channels=1)
    dmgd.export(run, "parquet", folder / "mosaics", tiles=2)
    return folder


def halved(pixels):
    """Four pixels to one: their mean, halves up, written out."""
    p = pixels.astype(int)
    return ((p[::2, ::2] + p[::2, 1::2] + p[1::2, ::2] + p[1::2, 1::2] + 2) // 4).astype(np.uint8)


def load(folder, layout):
    """(pixels of the mosaic, metadata of its parts) of every stored image, read with the layout's usual library."""
    if layout == "webdataset":
        shards = sorted(map(str, (folder / "data").glob("*.tar")))
        samples = wds.WebDataset(shards, shardshuffle=False).decode().to_tuple("png", "json")
        return [(np.array(Image.open(io.BytesIO(image))), fields["parts"]) for image, fields in samples]
    if layout == "parquet":
        rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(folder.with_name("cache")))
        return [(np.array(row["image"]), row["parts"]) for row in rows]
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    if layout == "imagefolder":
        files = sorted(folder.glob("*/*.png"))
        assert [str(file.relative_to(folder)) for file in files] == [line["file_name"] for line in lines]
        return [(np.array(Image.open(file)), line["parts"]) for file, line in zip(files, lines, strict=True)]
    images = torch.load(folder / "images.pt", weights_only=True).mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    return [(image, line["parts"]) for image, line in zip(images, lines, strict=True)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_parts_are_the_images_shrunk_bit_for_bit(run, tmp_path, inline, layout):
    inline("export", run.path, "--format", layout, "--tiles", 2, "--out", tmp_path / "out")
    records = iter(run.records())
    for mosaic, parts in load(tmp_path / "out", layout):
        assert mosaic.shape == (8, 8, 3)
        corners = ((0, 0), (0, 4), (4, 0), (4, 4))
        for (top, left), part in zip(corners, parts, strict=True):
            record, own = next(records), np.ascontiguousarray(mosaic[top : top + 4, left : left + 4])
            assert np.array_equal(own, halved(run.pixels(record)))
            named = {"key": record.key, "image_index": record.image_index, "seed": record.seed}
            assert {**part, **named, "pixels_sha256": sha256_bytes(own.tobytes())} == part
    assert next(records, None) is None
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert (index["tiles"], index["images"], index["images_per_class"]) == (2, 4, [2, 2])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_loader_gives_the_parts(run, tmp_path, layout):
    dmgd.export(run, layout, tmp_path / "out", tiles=2)
    rows, wanted = dmgd.open_export(tmp_path / "out").to_dataset(), run.to_dataset()
    for name in ("key", "label", "class_name", "seed", "image_index", "ot_cost"):
        assert rows[name] == wanted[name]
    for part, image in zip(rows["image"], wanted["image"], strict=True):
        assert np.array_equal(np.array(part), halved(np.array(image)))


@pytest.mark.parametrize(("size", "channels", "tiles"), [(8, 3, 2), (9, 1, 3), (8, 1, 4)])
def test_shrinking_is_the_mean_halves_up_and_splitting_undoes_stitching(size, channels, tiles):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (tiles**2, size, size, channels), dtype=np.uint8)
    images[0] = np.indices((size, size)).sum(0)[..., None] % 2  # a chessboard: means of exactly a half
    side = size // tiles
    parts = [shrunk(pixels, tiles) for pixels in images]
    for pixels, part in zip(images, parts, strict=True):
        boxes = pixels.reshape(side, tiles, side, tiles, channels).astype(float)
        assert np.array_equal(part, np.floor(boxes.mean((1, 3)) + 0.5))
    again = split(stitched(parts, tiles), tiles)
    assert all(np.array_equal(one, other) for one, other in zip(again, parts, strict=True))
    with pytest.raises(ValueError, match="is no mosaic of 5×5"):
        split(images[0], 5)


def test_the_size_of_a_set_in_mosaics_is_that_of_its_export(run, tmp_path):
    dmgd.export(run, "imagefolder", tmp_path / "out", tiles=2)
    files = sorted((tmp_path / "out").glob("*/*.png"))
    found = stored_sizes([run.pixels(record) for record in run.records()], 2)
    assert found == [(64, file.stat().st_size) for file in files]
    plain = stored_sizes([run.pixels(record) for record in run.records()], 1)
    assert plain == [(64, len(run.image_bytes(record))) for record in run.records()]


def test_what_does_not_fill_mosaics_is_refused_and_what_would_is_said(tmp_path, inline):
    uneven = make_run(tmp_path / "uneven", ipc=6)

    def refused(run, *options):
        return inline("export", run.path, *options, "--out", tmp_path / "out", code=2).stderr

    said = refused(uneven, "--tiles", 2)
    assert "has 6 images of each class, which do not fill mosaics of 2×2; 4 or 8 of each class would do" in said
    assert "9 of each class would do" in refused(uneven, "--tiles", 3)
    nine = make_run(tmp_path / "nine", ipc=9)
    assert "images of 8×8 pixels, which have no 3×3 parts of whole pixels" in refused(nine, "--tiles", 3)
    (tmp_path / "teacher").mkdir()
    keys = {"keys": json.dumps([record.key for record in nine.records()])}
    save_file({"logits": np.zeros((18, 2))}, tmp_path / "teacher" / "soft_labels.safetensors", keys)
    labels = ("--soft-labels", tmp_path / "teacher")
    sixteen = make_run(tmp_path / "sixteen", ipc=16)
    said = refused(sixteen, "--tiles", 2, *labels)
    assert "has no soft_labels.json, which says whether its labels are of the parts of mosaics" in said
    with pytest.raises(UsageError, match="tiles must be at least 1"):
        dmgd.export(nine, "parquet", tmp_path / "out", tiles=0)
    assert not (tmp_path / "out").exists()


def test_mosaics_and_the_plain_export_are_other_exports(run, tmp_path, inline):
    for one, other in ((2, 1), (1, 2)):
        out = tmp_path / f"first-{one}"
        inline("export", run.path, "--tiles", one, "--out", out)
        inline("export", run.path, "--tiles", one, "--out", out)
        assert "other tiles" in inline("export", run.path, "--tiles", other, "--out", out, code=1).stderr
    inline("export", run.path)
    assert "4 mosaics of 2×2 images" in inline("export", run.path, "--tiles", 2).stdout
    assert (tmp_path / "run-webdataset-tiles2" / "index.json").exists()


@pytest.mark.parametrize("layout", ["parquet", "tensors"])
def test_the_snippet_of_the_card_splits_and_enlarges_as_evaluate_does(run, tmp_path, layout):
    dmgd.export(run, layout, tmp_path / "out", tiles=2)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "2 stored images a class of 8×8 pixels, 8 parts: the pixel budget is that of 2 images a class, 256" in card
    assert "| 0 | cat |  | 0 | 8 parts in 2 images |" in card
    loading, snippet = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(snippet.splitlines()) <= 10
    names = {}
    exec((loading + snippet).replace("FOLDER", str(tmp_path / "out")), names)
    raw = read_raw_set(tmp_path / "out")
    wanted = prepared_set(raw, raw.classes, Shape(8, 8, 3)).images
    if layout == "parquet":
        enlarged = [np.array(part) for row in names["dataset"] for part in names["parts"](row["image"])]
        assert np.array_equal(np.stack(enlarged).transpose(0, 3, 1, 2), wanted)
    else:
        assert (names["parts"].mul(255) - wanted).abs().max() < 2  # not rounded between the axes
        assert names["labels"].tolist() == raw.labels


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_changed_part_is_named(run, tmp_path, inline, layout):
    """Also by somebody who renews every checksum but that of the part, and where parts change places."""
    dmgd.export(run, layout, tmp_path / "out", tiles=2)
    assert json.loads(inline("verify", tmp_path / "out", "--json").stdout)["problems"] == []
    sound = formats.layout_named(layout)
    index = distilled.read_index(tmp_path / "out")
    examples = list(sound.read(tmp_path / "out", index))

    def problems(change):
        one = examples[1]
        pixels, fields = change(one.pixels.copy(), json.loads(json.dumps(one.metadata)))
        data = encode(pixels)
        fields |= {"sha256": sha256_bytes(data), "pixels_sha256": sha256_bytes(pixels.tobytes())}
        forged = [*examples[:1], replace(one, image=data, metadata=fields), *examples[2:]]
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(formats.LAYOUTS, layout, replace(sound, read=lambda folder, index: iter(forged)))
            return list(distilled.export_problems(tmp_path / "out", index))

    def one_pixel(pixels, fields):
        pixels[5, 6] ^= 1  # of the fourth part
        return pixels, fields

    def swapped(pixels, fields):
        fields["parts"][0], fields["parts"][1] = fields["parts"][1], fields["parts"][0]
        return np.concatenate([np.concatenate([pixels[:4, 4:], pixels[:4, :4]], 1), pixels[4:]]), fields

    def one_less(pixels, fields):
        return pixels, {**fields, "parts": fields["parts"][:3]}

    assert problems(one_pixel) == ["c0000-i00007: part 4 of c0000-m00001 does not have the pixels of its metadata"]
    assert problems(swapped) == [
        "c0000-m00001: its part 1 is called c0000-i00005 (image 5), not c0000-i00004",
        "c0000-m00001: its part 2 is called c0000-i00004 (image 4), not c0000-i00005",
    ]
    assert [line.partition(" (")[0] for line in problems(one_less)] == ["c0000-m00001: is no mosaic of 2×2"]


def test_the_index_of_mosaics_is_held_against_the_run(run, tmp_path, inline):
    dmgd.export(run, "parquet", tmp_path / "out", tiles=2)
    forge(tmp_path / "out" / "index.json", lambda index: index.pop("tiles"))
    assert "a class has 2 images, the run has 8 of each" in inline("verify", tmp_path / "out", code=1).stdout
    forge(tmp_path / "out" / "index.json", lambda index: index.update(tiles=0))
    assert "mosaics have no 0 tiles" in inline("verify", tmp_path / "out", code=1).stderr


def test_regenerated_images_are_compared_with_the_parts(tmp_path, inline):
    run = dmgd.distill("digits", ipc=4, method="dit", steps=2, out=tmp_path / "run")
    for image_format in ("png", "jpg"):
        dmgd.export(run, "webdataset", tmp_path / image_format, tiles=2, image_format=image_format)
    said = inline("verify", tmp_path / "png", "--regenerate", 3, "--write-lock", tmp_path / "lock").stdout
    assert "3 images regenerated" in said
    assert "which are lossy" in inline("verify", tmp_path / "jpg", "--regenerate", 3, code=2).stderr
    inline("verify", tmp_path / "png", "--lock", tmp_path / "lock")
    assert "config.tiles" in inline("verify", run.path, "--lock", tmp_path / "lock", code=1).stdout


SOON = ("--source", "digits", "--epochs", 1, "--repeats", 1, "--json")


def test_a_run_with_tiles_is_evaluated_as_its_mosaics(digits, inline):
    settings = (*SOON, "--against", "random,full")
    run = json.loads(inline("evaluate", digits / "run", "--tiles", 2, *settings).stdout)
    mosaics = json.loads(inline("evaluate", digits / "mosaics", *settings).stdout)
    for one, other in zip(run["scores"], mosaics["scores"], strict=True):
        assert {**one, "name": "", "seconds": 0} == {**other, "name": "", "seconds": 0}
    stored = [[score[key] for key in ("images", "tiles", "stored_images", "pixels")] for score in run["scores"]]
    assert stored == [[40, 2, 10, 640], [40, 2, 10, 640], [1257, 1, 1257, 1257 * 64]]
    assert {"tiles": 2, "stored_images": 10, "pixels": 640}.items() <= run["settings"]["set"].items()
    assert run["statements"][-1] == (
        "not stored alike, so not only the images are compared: run (mosaics of 2×2: 40 parts in 10 images, 640 "
        "pixels); full (no mosaics: 1257 images, 80,448 pixels)"
    )


def test_mosaics_and_a_set_that_is_none_are_compared_in_words(digits, inline):
    settings = ("--source", "digits", "--epochs", 1, "--repeats", 1)
    said = inline("evaluate", digits / "mosaics", *settings, "--against", digits / "run").stdout
    assert "40 parts in 10 images" in said
    assert "not stored alike" in said
    alike = inline("evaluate", digits / "mosaics", *settings, "--against", digits / "run", "--tiles", 2).stdout
    assert "not stored alike" not in alike


def test_baselines_are_shrunk_and_enlarged_as_the_set_is(digits):
    done = dmgd.evaluate(digits / "mosaics", "digits", epochs=1, repeats=1, against=("random", "full"))
    own, random, full = done.sets
    real = source_set(open_source("digits"), "train", "train", Shape(8, 8, 1)).images
    assert torch.equal(full.images, real)
    assert random.counts == own.counts == [4] * 10
    small = (Image.fromarray(halved(image[0].numpy()[..., None])[..., 0]) for image in real)
    known = {Shape(8, 8, 1).apply(image).numpy().tobytes() for image in small}
    assert {image.numpy().tobytes() for image in random.images} <= known
    part = halved(dmgd.open_run(digits / "run").pixels(dmgd.open_run(digits / "run").records()[0]))
    enlarged = Image.fromarray(part[..., 0]).resize((8, 8), Image.Resampling.BICUBIC)
    assert np.array_equal(own.images[0, 0], np.array(enlarged))


def test_the_metrics_see_the_parts_of_all_sets_as_large_as_their_mosaic(digits, inline):
    measured = (*SOON, "--size", 4, "--metrics")
    result = json.loads(inline("evaluate", digits / "mosaics", *measured).stdout)
    assert result["settings"]["measured_size"] == 8
    assert 0.01 < result["metrics"]["random"]["detail"] < 0.5


def test_tiles_that_contradict_the_set_are_refused(digits, inline):
    for tiles in (1, 3):
        said = inline("evaluate", digits / "mosaics", "--tiles", tiles, code=2).stderr
        assert f"mosaics has mosaics of 2×2, not {tiles}×{tiles}; leave tiles out" in said
    said = inline("evaluate", digits / "run", "--tiles", 3, code=2).stderr
    assert "run has 4 images of the class 0, which do not fill mosaics of 3×3; 9 of each class would do" in said


def test_mosaics_of_test_images_are_refused(tmp_path, inline):
    """Of a run, which is shrunk, and of its export, whose parts are small from the start."""
    test = source_set(open_source("digits"), "test", "test", Shape(8, 8, 1))
    run = make_run(tmp_path / "run", DIGITS, ipc=4, channels=1)
    chosen = torch.cat([(test.labels == c).nonzero()[:4, 0] for c in range(10)])
    pixels = test.images[chosen].permute(0, 2, 3, 1).numpy()
    measured = [{"seed": 0, "other_class": None, "ot_cost": None}] * 40
    run.write_batch(Batch(range(10), range(4)), pixels, torch.zeros(40, 1), measured)
    dmgd.export(run, "webdataset", tmp_path / "mosaics", tiles=2, image_format="jpg")
    dmgd.export(run, "webdataset", tmp_path / "exact", tiles=2)
    for folder, options in (("run", ("--tiles", 2)), ("exact", ())):
        said = inline("evaluate", tmp_path / folder, *SOON, *options, code=1).stderr
        assert f"40 of the 40 images of {folder} are among the 540 test images" in said
    inline("evaluate", tmp_path / "mosaics", *SOON)  # JPEG: no longer pixel by pixel


def test_an_evaluation_of_mosaics_in_a_card_says_so(digits, tmp_path, inline):
    (tmp_path / "result.json").write_text(inline("evaluate", digits / "mosaics", *SOON).stdout)
    dmgd.export(digits / "run", "parquet", tmp_path / "out", tiles=2, evaluation=tmp_path / "result.json")
    assert "| mosaics | 40 parts in 10 images |" in (tmp_path / "out" / "README.md").read_text()
    before = tree(tmp_path / "out")
    dmgd.export(digits / "run", "parquet", tmp_path / "again", tiles=2, evaluation=tmp_path / "result.json")
    assert tree(tmp_path / "again") == before
