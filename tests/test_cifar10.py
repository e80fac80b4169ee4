"""CIFAR-10: a named source, and an embedded prior with statistics that does without its data."""

import json

import numpy as np
from PIL import Image

import dmgd
from dmgd.classes.cifar import cifar10_classes
from dmgd.priors.description import EMBEDDED_STATISTICS, local_path
from dmgd.sources.open import open_source

NAMES = [info.name for info in cifar10_classes()]


def copied(folder):
    """Two images of every class in class folders, as a user's own copy."""
    for row, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(np.full((32, 32, 3), 20 * row + i, np.uint8)).save(folder / name / f"{i}.png")
    return folder


def test_a_copy_is_read_in_the_order_of_the_classes(tmp_path):
    source = open_source("cifar10", data=str(copied(tmp_path / "copy")))
    assert [info.name for info in source.classes] == NAMES
    assert [one.label for one in source.images("train")] == [row for row in range(10) for _ in range(2)]


def test_a_set_is_distilled_and_verified_without_the_data(inline, tmp_path):
    run = tmp_path / "run"
    said = inline("distill", "--source", "cifar10", "--ipc", 1, "--steps", 2, "--out", run)
    assert "source cifar10: 20 support points per class, in the package" in said.stderr
    made = dmgd.open_run(run)
    assert made.manifest["statistics"]["source"]["name"] == "cifar10"
    assert made.config.k == 20
    assert "2 images regenerated: 2 with equal pixels" in inline("verify", run, "--regenerate", 2).stdout
    inline("export", run, "--format", "parquet", "--out", tmp_path / "export")
    inline("verify", tmp_path / "export", "--regenerate", 1, "--data", copied(tmp_path / "copy"))  # not fitted to it


def test_what_the_embedded_statistics_do_not_serve_needs_the_data(inline, tmp_path):
    distill = ("distill", "--source", "cifar10", "--out", tmp_path / "run")
    for options in (("--ipc", 11), ("--method", "random"), ("--k", 10), ("--method", "mgd3")):
        said = inline(*distill, *options, code=1).stderr
        assert "missing cifar10" in said
        assert "20 support points per class, serve dmgd up to --ipc 10" in said
    given = inline(*distill, "--stats", local_path("cifar10") / EMBEDDED_STATISTICS, code=1).stderr
    assert "missing cifar10" in given  # to be compared with the statistics
    assert "in the package" not in given
    own = inline(*distill, "--data", copied(tmp_path / "copy"), "--ipc", 1, "--steps", 2, "--json")
    assert json.loads(own.stdout)["statistics"]["k"] == 10
