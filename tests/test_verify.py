"""`dmgd verify` detects changes, and reports what is equal and in which sense."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_run import forge, make_run, tree
from PIL import Image
from source_stand_ins import as_folder, pictures

from dmgd.generation.regeneration import spread
from dmgd.images import decode, encode
from dmgd.runs.directory import RunDirectory
from dmgd.runs.lockfile import compare_locks, make_lock
from dmgd.runs.preview import NAMES, contact_sheet, images_of
from dmgd.workflows.export import export

LAYOUTS = ("webdataset", "parquet", "imagefolder", "tensors")


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


@pytest.fixture(scope="module")
def digits(tmp_path_factory, inline):
    """A folder with a small greedy run and its statistics."""
    folder = tmp_path_factory.mktemp("runs")
    inline("fit-stats", "--source", "digits", "--out", folder / "stats.safetensors")
    settings = ("--source", "digits", "--ipc", 3, "--method", "dmgd-paper", "--steps", 3, "--window", 0, 2)
    inline("distill", *settings, "--stats", folder / "stats.safetensors", "--out", folder / "run")
    return folder


def flip(path):
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_sound_run_and_its_exports_are_equal(run, tmp_path, inline):
    assert "every checksum" in inline("verify", run.path).stdout
    for layout in LAYOUTS:
        export(run, layout, tmp_path / layout)
        assert json.loads(inline("verify", tmp_path / layout, "--json").stdout)["equal"]


def test_a_name_that_the_terminal_cannot_show_is_shown_with_escapes(run, inline):
    Path(os.fsdecode(os.fsencode(run.path) + b"/caf\xe9-\xc7\x90")).touch()
    said = inline("verify", run.path, code=1, encoding="latin-1").stdout
    assert said == "caf\\udce9-\\u01d0: is not part of the run\n"


@pytest.mark.parametrize("what", ["run", *LAYOUTS])
def test_every_file_that_is_changed_removed_or_added_is_named(run, tmp_path, inline, what):
    folder = tmp_path / what
    if what != "run":
        export(run, what, folder)
    for path in sorted(tree(folder)):
        if path in ("run.json", "index.json"):  # which are known by these
            text = (folder / path).read_text()
            (folder / path).write_text(text.replace("cat", "cow"))
            assert f"{path} was changed (its checksum differs)" in inline("verify", folder, code=1).stderr
            (folder / path).write_text(text)
            continue
        content = (folder / path).read_bytes()
        flip(folder / path)
        assert path in inline("verify", folder, code=1).stdout, f"{path} was changed"
        (folder / path).unlink()
        assert path.removesuffix(".json") in inline("verify", folder, code=1).stdout, f"{path} was removed"
        (folder / path).write_bytes(content)
    (folder / "extra.png").write_bytes(b"x")
    assert "extra.png: is not part of" in inline("verify", folder, code=1).stdout
    (folder / "extra.png").unlink()
    inline("verify", folder)


def test_forged_records_and_numbers_are_refused(run, tmp_path, inline):
    """With a checksum that is right: paths that lead outside, an image that is there twice, absurd numbers."""
    (tmp_path / "victim.png").write_bytes((run.path / run.records()[0].path).read_bytes())
    record = next((run.path / "batches").glob("*.json"))
    sound = record.read_bytes()
    for path in ("../../victim.png", str(tmp_path / "victim.png"), run.records()[1].path):
        forge(record, lambda content, path=path: content["images"][0].update(path=path))
        assert f"{path!r} is not the path of c0000-i00000" in inline("verify", run.path, code=1).stdout
        assert "was forged" in inline("export", run.path, "--out", tmp_path / "x", code=1).stderr
        record.write_bytes(sound)
    forge(record, lambda content: content["images"].append(content["images"][0]))
    assert "00000.png: is recorded twice" in inline("verify", run.path, code=1).stdout
    forge(run.path / "run.json", lambda manifest: manifest["config"].update(ipc=10**6))
    assert "ipc must be at most 100000, not 1000000" in inline("verify", run.path, code=2).stderr


def test_a_preview_may_be_compressed_in_another_way(run, inline):
    preview = Image.open(run.path / "preview.png")
    preview.load()
    preview.save(run.path / "preview.png", compress_level=1)
    inline("verify", run.path)
    preview.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(run.path / "preview.png")
    assert "does not show the run's images" in inline("verify", run.path, code=1).stdout


def test_a_preview_has_pages_with_the_names_of_a_hundred_classes(tmp_path, inline):
    """In any script and of any length; their pixels depend on Pillow and are not compared."""
    names = [
        "Welsh springer spaniel, a dog of the hills, valleys and farms of Wales",
        "école",
        "日本の猫",
        *map(str, range(99)),
    ]
    run = make_run(tmp_path / "run", names, ipc=1)
    assert tree(make_run(tmp_path / "again", names, ipc=1).path) == tree(run.path)
    pages = sorted(run.path.glob("preview*.png"))
    assert [page.name for page in pages] == ["preview-2.png", "preview-3.png", "preview-4.png", "preview.png"]
    sheets = [decode(page.read_bytes()) for page in pages]
    assert {sheet.shape for sheet in sheets} == {(25 * 68 + 4, NAMES + 72, 3)}
    ink = [(sheets[-1][68 * row : 68 * row + 68, :NAMES] < 100).sum() for row in range(3)]
    assert ink[0] > ink[1] > ink[2] == 0  # three lines, one, and no letter that could be drawn
    inline("verify", run.path)
    sheets[-1][:, :NAMES] = 255
    pages[-1].write_bytes(encode(sheets[-1]))
    inline("verify", run.path)
    pages[1].unlink()
    assert "preview-3.png: is missing" in inline("verify", run.path, code=1).stdout


def test_a_preview_of_an_earlier_version_is_as_good(tmp_path, inline):
    run = make_run(tmp_path / "run", list(map(str, range(30))))
    for page in run.path.glob("preview*.png"):
        page.unlink()
    assert "preview.png: is missing" in inline("verify", run.path, code=1).stdout
    (run.path / "preview.png").write_bytes(encode(contact_sheet(images_of(run, range(20)))))
    inline("verify", run.path)
    (run.path / "preview.png").write_bytes(encode(contact_sheet(images_of(run, range(1, 21)))))
    assert "preview.png: does not show" in inline("verify", run.path, code=1).stdout


def test_images_labels_and_counts_must_agree_with_the_index(run, tmp_path, inline):
    export(run, "imagefolder", tmp_path / "out")
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    wrong = {"images_per_class": [2, 4], "run": {**index["run"], "classes": index["run"]["classes"][::-1]}}
    forge(tmp_path / "out" / "index.json", lambda content: content.update(wrong))
    said = inline("verify", tmp_path / "out", code=1).stdout
    assert "class 0: has 3 images, index.json says 2" in said
    assert "c0000-i00000: has label 0, but is of class 'cat'" in said


@pytest.mark.parametrize("target", ["run", "webdataset"])
def test_regenerated_images_are_equal(digits, inline, target):
    if target == "webdataset":
        export(RunDirectory.open(digits / "run"), target, digits / target)
    stats = ("--stats", digits / "stats.safetensors")
    said = inline("verify", digits / target, "--regenerate", 4, *stats, "--tolerance", 1).stdout
    assert "4 images regenerated" in said


def test_statistics_are_fitted_again_as_the_run_has_them_and_others_are_refused(digits, tmp_path, inline):
    fit = ("fit-stats", "--source", "digits", "--k", 12, "--seed", 7, "--out", tmp_path / "seven")
    inline(*fit)
    make = ("distill", "--source", "digits", "--ipc", 4, "--method", "dmgd", "--steps", 3, "--window", 0, 2)
    inline(*make, "--stats", tmp_path / "seven", "--out", tmp_path / "run")
    inline("verify", tmp_path / "run", "--regenerate", 2, "--tolerance", 1)
    others = ("--stats", digits / "stats.safetensors")
    refused = inline("verify", tmp_path / "run", "--regenerate", 2, *others, code=1)
    assert "has other statistics" in refused.stderr


def test_statistics_of_data_with_many_unreadable_images_are_fitted_again(tmp_path, inline):
    """The run does not record how many were allowed, but which could be read."""
    for split, seed in (("train", 0), ("val", 1)):
        as_folder(tmp_path / "data" / split, pictures(["0", "1"], 4, seed=seed))
    (tmp_path / "data" / "train" / "0" / "empty.jpg").write_bytes(b"")
    source = ("--source", f"folder:{tmp_path / 'data'}", "--prior", "digits")
    inline("fit-stats", *source, "--k", 2, "--max-bad", 0.5, "--out", tmp_path / "stats")
    make = ("--ipc", 1, "--method", "dit", "--steps", 2, "--stats", tmp_path / "stats")
    inline("distill", *source, *make, "--out", tmp_path / "run")
    assert "1 images regenerated" in inline("verify", tmp_path / "run", "--regenerate", 1).stdout


def test_a_run_that_does_not_reproduce_is_reported(digits, tmp_path, inline):
    """The seed in the manifest is not the one that the images were made with."""
    shutil.copytree(digits / "run", tmp_path / "run")
    forge(tmp_path / "run" / "run.json", lambda manifest: manifest["config"].update(seed=1))
    stats = ("--stats", digits / "stats.safetensors")
    said = inline("verify", tmp_path / "run", "--regenerate", 3, *stats, code=1).stdout
    assert said.count("regenerated, it differs by") == 3


def test_the_lock_file_is_valid_for_run_and_exports_and_detects_differences(run, tmp_path, inline):
    lock = tmp_path / "set.lock.json"
    inline("verify", run.path, "--write-lock", lock)
    assert "equal pixels" in inline("verify", run.path, "--lock", lock).stdout
    assert not {"batch_size", "compile"} & set(json.loads(lock.read_text())["config"])  # another machine's may differ
    export(run, "parquet", tmp_path / "out")
    assert "equal pixels" in inline("verify", tmp_path / "out", "--lock", lock).stdout
    other = make_run(tmp_path / "other", seed=1)
    assert "class 0 (cat): its images differ" in inline("verify", other.path, "--lock", lock, code=1).stdout
    fewer = make_run(tmp_path / "fewer", ipc=2)
    said = inline("verify", fewer.path, "--lock", lock, code=1).stdout
    assert "config.ipc: 3 there, 2 requested" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tolerance": "0.5"}, 'tolerance is "0.5"'),
        ({"tolerance": float("nan")}, "tolerance is NaN"),
        ({"tolerance": None}, "tolerance is null"),
        ({"config": []}, "config is []"),
        ({"prior": 7}, "prior is 7"),
        ({"classes": {"cat": 3}}, "classes is not a list"),
        ({"classes": ["cat", "dog"]}, "classes[0] is not an object"),
        ({"classes": [{"name": "cat", "images": 3}]}, "classes[0].pixels_sha256 is null"),
        ({"classes": [{"name": "cat", "images": 3, "pixels_sha256": "0", "sketch": [None]}]}, "sketch[0] is null"),
    ],
)
def test_a_lock_file_of_wrong_types_is_refused(run, tmp_path, inline, changes, said):
    lock = tmp_path / "set.lock.json"
    inline("verify", run.path, "--write-lock", lock)
    lock.write_text(json.dumps({**json.loads(lock.read_text()), **changes}))
    error = inline("verify", run.path, "--lock", lock, code=1).stderr
    assert said in error
    assert error.count("\n") == 1


def test_a_pixel_rounded_differently_is_within_the_lock_files_tolerance():
    rng = np.random.default_rng(0)
    images = [(0, rng.integers(1, 255, (16, 16, 3), dtype=np.uint8)) for _ in range(4)]
    manifest = {
        "classes": [{"name": "cat", "wnid": None}],
        "specs": {"prior": {"name": "digits", "precision": "fp32"}},
        "config": {},
        "prior": {"id": "digits", "revision": None, "digest": "0"},
        "statistics": {"source": {"name": "digits"}},
        "versions": {},
    }
    rounded = [(0, images[0][1].copy()), *images[1:]]
    rounded[0][1][3, 3, 0] += 1
    lock, near = make_lock(manifest, images), make_lock(manifest, rounded)
    assert compare_locks(lock, lock) == ([], "equal pixels")
    assert compare_locks(lock, near)[0] == []
    assert compare_locks({**lock, "tolerance": 0}, near)[0] != []


def test_no_lock_file_is_written_of_a_damaged_run(run, tmp_path, inline):
    flip(run.path / run.records()[0].path)
    assert "no lock file was written" in inline("verify", run.path, "--write-lock", tmp_path / "x", code=1).stderr
    assert not (tmp_path / "x").exists()


def test_regenerated_images_are_spread_over_the_classes():
    assert {c for c, _ in spread(10, 5, 10)} == set(range(10))
    assert len({i for _, i in spread(10, 5, 10)}) == 5
    assert len(set(spread(10, 5, 1000))) == 50
    assert [c for c, _ in spread(100, 1, 4)] == [0, 25, 50, 75]


def test_wrong_targets_are_refused(tmp_path, inline):
    assert "neither a run" in inline("verify", tmp_path, code=2).stderr
