"""The testbeds of benchmarks/: what must not be seen, and one from end to end."""

import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import dmgd
from dmgd.errors import UsageError
from dmgd.statistics.content import source_content
from dmgd.statistics.encoding import encode_source


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import testbeds

    return testbeds


def test_the_exact_denoiser_has_no_image_that_is_matched_or_selected(benchmarks):
    whole = dmgd.open_source("digits")
    half, prior = benchmarks.with_exact_prior(whole, 8, None, torch.device("cpu"), benchmarks.SILENT)
    known = np.concatenate([own.rows for own in encode_source(half, prior)])
    assert 0 < len(known) < 1257 / 2 + 10
    assert len(prior.images) > 1257 / 2 - 20
    assert not {row.tobytes() for row in known} & {row.tobytes() for row in prior.images.numpy()}
    own = prior.images[prior.starts[3] : prior.starts[4]]
    threes = prior.condition([info for info in prior.match_classes(half.classes) if info.name == "3"] * len(own))
    last = prior.schedule(50, "ddpm")[0]
    x0, _ = prior.denoise(last.alpha * own.reshape(-1, *prior.latent_shape), last, threes)
    torch.testing.assert_close(x0.flatten(1), own, atol=1e-3, rtol=0)
    first = prior.schedule(50, "ddpm")[-1]
    x0, _ = prior.denoise(torch.zeros(1, *prior.latent_shape), first, prior.null_condition(1))
    torch.testing.assert_close(x0[0].flatten(), prior.images.mean(0), atol=0.01, rtol=0)


def test_folds_are_of_training_images_alone(benchmarks):
    whole = dmgd.open_source("digits")
    train = [one.name for one in whole.images("train")]
    folds = [benchmarks.fold(whole, number) for number in range(benchmarks.FOLDS)]
    tests = [[one.name for one in fold.images("test")] for fold in folds]
    assert sorted(name for names in tests for name in names) == sorted(train)
    for fold, names in zip(folds, tests, strict=True):
        assert sorted([*names, *(one.name for one in fold.images("train"))]) == sorted(train)
    assert len({fold.fingerprint(split) for fold in folds for split in ("train", "test")}) == 10
    prior = dmgd.load_prior("digits", device="cpu")
    found = [source_content(one, prior) for one in (*folds, whole)]
    assert len(set(found)) == 6
    assert [source_content(one, prior) for one in (*folds, whole)] == found  # from the cache


def test_digits_of_other_writers_are_in_no_part_of_the_training_images(benchmarks):
    rows = {
        split: [int(one.name.removeprefix("row ")) for one in benchmarks.DigitsByWriter().images(split)]
        for split in ("train", "test")
    }
    assert rows == {"train": list(range(1257)), "test": list(range(1257, 1797))}
    with pytest.raises(UsageError, match="digits-writers"):
        dmgd.open_source(benchmarks.DigitsByWriter().spec.name)


def test_steps_are_those_of_the_protocol_whose_batches_they_have(benchmarks, tmp_path):
    asked = {"data": None, "seeds": 1, "split": "test", "rows": ["random"], "ipc": [50, 1], "device": "cpu"}
    asked = Namespace(**asked, steps=8, prior="digits", out=tmp_path)
    for protocol, epochs in (("dsa", [8, 4]), ("quick", [8, 1])):  # of one batch, and of two of 256 or eight of 64
        bed = replace(benchmarks.BEDS["digits"], settings={"protocols": (protocol,)})
        parts = list(benchmarks.parts_of(bed, asked, None))
        assert [part.config.epochs for part in parts] == epochs
        assert [part.config.ipc for part in parts] == [(1,), (50,)]  # the last is shown


def test_a_testbed_is_not_computed_twice(benchmarks, monkeypatch, tmp_path, capsys):
    asked = "digits --split validation --ipc 1 --seeds 1 --steps 1 --rows random dmgd@1.5 --device cpu --out"
    monkeypatch.setattr(sys, "argv", ["testbeds.py", *asked.split(), str(tmp_path / "bed")])
    benchmarks.main()
    first = capsys.readouterr()
    assert "gain of dmgd@1.5, quick, convnet-2-w64" in first.out
    assert {path.name for path in (tmp_path / "bed").iterdir()} >= {"fold-0", "sheet.png", "table.md"}
    monkeypatch.setattr("dmgd.evaluation.training_work.train", None)
    monkeypatch.setattr("dmgd.generation.sampling_work.sample_images", None)
    benchmarks.main()
    assert capsys.readouterr().out == first.out
