"""`dmgd bench` as a user runs it: what it compares, what it refuses, and that it goes on where it was stopped."""

import json
import re
from dataclasses import replace

import pytest

import dmgd
from dmgd.evaluation import training_work
from dmgd.matching.methods import METHODS

DIT = replace(METHODS["dit"](), steps=2, solver="ddim")
SMALL = {"methods": {"dit": DIT, "random": "random", "kmeans-real": "kmeans-real"}, "ipc": (1,), "epochs": 1}
COMMAND = ("bench", "--source", "digits", "--methods", "random,full", "--ipc", 1, "--seeds", 2, "--epochs", 1)


@pytest.fixture
def trained(monkeypatch):
    """The set and seed of every training from now on, the throwaway ones of the estimate left out."""
    done, train = [], training_work.train

    def noted(data, test, protocol, seed, **more):
        done.append((data.name, protocol.network, seed))
        return train(data, test, protocol, seed, **more)

    monkeypatch.setattr(training_work, "train", noted)
    return done


def accuracies(comparison):
    """What does not depend on how fast the machine is."""
    text = json.dumps({key: value for key, value in comparison.to_json().items() if key != "settings"})
    return re.sub(r'"seconds": \{[^}]*\}', "", text)


def tree(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_bench_that_is_repeated_does_nothing_and_says_the_same(inline, tmp_path, trained, monkeypatch):
    out = tmp_path / "bench"
    first = inline(*COMMAND, "--out", out)
    assert "about " in first.stderr
    assert "4 trainings" in first.stderr
    assert trained == [
        (name, "convnet-2-w64", seed) for seed in (0, 1) for name in (f"random, IPC 1, seed {seed}", "full, all images")
    ]
    before, again = tree(out), inline(*COMMAND, "--out", out)
    assert "all runs and trainings are there" in again.stderr
    assert (again.stdout, tree(out), len(trained)) == (first.stdout, before, 4)
    rows = json.loads((out / "bench.json").read_text())["rows"]
    assert [(row["method"], row["ipc"], row["images"], row["pixels"]) for row in rows] == [
        ("random", 1, 10, 640), ("full", None, 1257, 80448)]  # fmt: skip
    assert [one["seed"] for one in rows[0]["by_seed"]] == [0, 1]
    assert rows[0]["of_full"] < 100
    # What `evaluate` trains on the same images by the same protocol is known, too.
    (tmp_path / "empty").mkdir()


@pytest.mark.parametrize("written", [1, 3, 6, 9, 14])
def test_a_bench_that_is_killed_goes_on(tmp_path, trained, monkeypatch, written):
    """After so many of its files."""
    whole = accuracies(dmgd.bench("digits", out=tmp_path / "whole", seeds=2, **SMALL))
    undisturbed, home = [*trained], tmp_path / "another-cache"
    trained.clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    with pytest.MonkeyPatch.context() as patch:
        count, sync = [0], dmgd.files.sync

        def killed(path):
            count[0] += 1
            if count[0] > 2 * written:  # each file is flushed, and its folder
                raise KeyboardInterrupt
            sync(path)

        patch.setattr("dmgd.files.sync", killed)
        with pytest.raises(KeyboardInterrupt):
            dmgd.bench("digits", out=tmp_path / "killed", seeds=2, **SMALL)
    done = len(list(home.rglob("scores/*.json")))
    assert accuracies(dmgd.bench("digits", out=tmp_path / "killed", seeds=2, **SMALL)) == whole
    assert len(trained) - len(undisturbed) == (1 if done else 0), "only the training that was killed is done again"
