"""Methods that choose real images: runs like any other, which say whose images they are."""

import json
import shutil

import numpy as np
import pytest
from source_stand_ins import as_folder, pictures

import dmgd
from dmgd.images import read_image, square_pixels

SELECTIONS = ("random", "kmeans-real", "herding")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve images of each digit, of which the first of digit 3 cannot be read."""
    root = tmp_path_factory.mktemp("photos")
    as_folder(root / "train", pictures([str(i) for i in range(10)], 12))
    (root / "train" / "3" / "3_0.JPEG").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def chosen(data, inline, tmp_path_factory):
    """A run of every selection, two images a class."""
    folder = tmp_path_factory.mktemp("runs")
    for method in SELECTIONS:
        asked = ("--source", f"folder:{data}", "--prior", "digits", "--method", method, "--ipc", 2)
        inline("distill", *asked, "--out", folder / method)
    return {method: dmgd.open_run(folder / method) for method in SELECTIONS}


@pytest.mark.parametrize("method", SELECTIONS)
def test_the_images_are_those_that_the_records_name(method, chosen, data):
    source = list(dmgd.open_source(f"folder:{data}").images("train"))
    run = chosen[method]
    for record in run.complete_records():
        one = source[record.source_index]
        assert (one.name, one.label) == (record.source_name, record.class_index)
        assert np.array_equal(run.pixels(record), square_pixels(read_image(data / one.name), 8, 1))
    assert len({record.source_index for record in run.records()}) == 20
    assert "train/3/3_0.JPEG" not in {record.source_name for record in run.records()}


def test_of_random_images_fewer_are_the_first_of_more_and_another_seed_has_others(chosen, data, tmp_path):
    def names(**settings):
        out = tmp_path / "-".join(map(str, settings.values()))
        run = dmgd.distill(f"folder:{data}", "digits", method="random", out=out, **settings)
        return {(r.class_index, r.image_index): r.source_name for r in run.records()}

    few = {(r.class_index, r.image_index): r.source_name for r in chosen["random"].records()}
    assert few.items() <= names(ipc=5).items()
    assert few != names(ipc=2, seed=1)


def test_a_run_that_lost_a_batch_is_made_whole(chosen, data, tmp_path, inline):
    run, whole = tmp_path / "run", chosen["kmeans-real"].path
    shutil.copytree(whole, run)
    shutil.rmtree(run / "batches")
    asked = ("--source", f"folder:{data}", "--prior", "digits", "--method", "kmeans-real", "--ipc", 2)
    inline("distill", *asked, "--out", run, "--resume")
    for file in whole.rglob("*"):
        if file.is_file() and file.name != "run.json":
            assert (run / file.relative_to(whole)).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("method", SELECTIONS)
def test_they_are_chosen_again_for_verification(method, chosen, inline):
    said = inline("verify", chosen[method].path, "--regenerate", 20).stdout
    assert "20 images regenerated: 20 with equal pixels" in said


def test_an_export_says_that_its_images_are_real_and_whose(chosen, data, tmp_path, inline):
    out = tmp_path / "export"
    inline("export", chosen["random"].path, "--format", "parquet", "--out", out)
    card = (out / "README.md").read_text()
    assert "20 real images" in card
    assert "chosen by `random`" in card
    assert "synthetic" not in card
    assert "--method random" in card
    assert str(data) not in card + (out / "index.json").read_text()
    rows = chosen["random"].to_dataset()
    assert rows[0]["source_name"].startswith("train/0/0_")
    inline("verify", out, "--regenerate", 3, "--source", f"folder:{data}")


def test_what_a_selection_cannot_do_is_refused_before_anything_is_written(data, tmp_path, inline):
    asked = ("--source", f"folder:{data}", "--prior", "digits", "--method", "random", "--out", tmp_path / "run")
    said = inline("distill", *asked, "--ipc", 12, code=2).stderr
    assert "the class 3 has 11 images, of which random cannot choose 12; take --ipc 11 or less" in said
    assert "steps has no effect" in inline("distill", *asked, "--steps", 5, code=2).stderr
    assert "batch-size has no effect" in inline("distill", *asked, "--batch-size", 5, code=2).stderr
    assert not (tmp_path / "run").exists()


def test_a_set_of_real_images_is_evaluated_like_any_other(inline, tmp_path):
    run = tmp_path / "run"
    inline("distill", "--source", "digits", "--method", "random", "--ipc", 2, "--out", run)
    result = json.loads(inline("evaluate", run, "--epochs", 2, "--repeats", 1, "--against", "random", "--json").stdout)
    assert [score["images"] for score in result["scores"]] == [20, 20]
