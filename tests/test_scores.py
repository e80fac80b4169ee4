"""Finished trainings are kept, and none is done twice."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_run import forge, make_run

from dmgd.classes.info import ClassInfo
from dmgd.evaluation import training_work
from dmgd.evaluation.imageset import ImageSet
from dmgd.evaluation.protocols import EvaluateConfig, resolved
from dmgd.evaluation.scores import Scores

SOON = ("--epochs", 1, "--against", "random", "--json")


@pytest.fixture
def trained(monkeypatch):
    """The set and seed of every training from now on; the one after `trained.last` of them is interrupted."""

    class Trained(list):
        last = None

        def __call__(self, data, test, protocol, seed, **more):
            if len(self) == self.last:
                raise KeyboardInterrupt
            self.append((data.name, seed))
            return train(data, test, protocol, seed, **more)

    trained, train = Trained(), training_work.train
    monkeypatch.setattr(training_work, "train", trained)
    return trained


def digits_run(folder):
    return make_run(folder / "run", names="0123456789", channels=1).path


def kept():
    return sorted((Path.home() / ".cache" / "dmgd" / "scores").glob("*.json"))


def test_what_is_trained_is_not_trained_again(inline, tmp_path, trained):
    run, trained.last = digits_run(tmp_path), 3
    inline("evaluate", run, *SOON, "--repeats", 2, code=130)
    assert len(kept()) == 3
    trained.last = None
    first = inline("evaluate", run, *SOON, "--repeats", 2)
    assert "3 of the 4 trainings are known from before" in first.stderr
    assert trained == [("run", 0), ("run", 1), ("random", 0), ("random", 1)]
    again = inline("evaluate", run, *SOON, "--repeats", 2)
    assert "4 of the 4 trainings" in again.stderr
    assert again.stdout.startswith(first.stdout.rpartition('"seconds"')[0])  # the last are those of the command
    assert len(trained) == 4


def test_runs_that_differ_in_their_seeds_are_one_row(inline, tmp_path, trained):
    runs = []
    for seed in (2, 0, 1):
        runs.append(make_run(tmp_path / f"seed{seed}", names="0123456789", channels=1, seed=seed).path)
        forge(runs[-1] / "run.json", lambda content, seed=seed: content["config"].update(seed=seed))
    other = make_run(tmp_path / "other", names="0123456789", channels=1, ipc=2).path
    against = ",".join(map(str, (*runs[1:], other)))
    command = ("evaluate", runs[0], "--against", against, "--epochs", 1, "--json", "--repeats")
    assert "3 seeds, and only 2 of them would be trained on; give --repeats 3" in inline(*command, 2, code=2).stderr
    result = json.loads(inline(*command, 4).stdout)
    assert [(score["name"], score["images"]) for score in result["scores"]] == [
        (f"{runs[1]} (3 seeds)", 30), (str(other), 20)]  # fmt: skip
    alone = json.loads(inline("evaluate", runs[0], "--against", "", "--epochs", 1, "--json", "--seed", 2).stdout)
    together = result["scores"][0]["top1_by_seed"]
    assert together["2"] == alone["scores"][0]["top1_by_seed"]["2"]  # the third set, and the same training
    assert trained.count((f"{runs[1]} (3 seeds)", 2)) == 1
    assert ("seed2", 2) not in trained


@pytest.mark.parametrize("damage", ["cut", "changed", "another's", "a folder"])
def test_a_damaged_file_is_as_if_it_were_not_there(inline, tmp_path, trained, damage):
    run = digits_run(tmp_path)
    inline("evaluate", run, *SOON, "--repeats", 2)
    one, other, *_ = kept()
    text = one.read_text()
    if damage == "cut":
        one.write_text(text[: len(text) // 2])
    elif damage == "changed":
        one.write_text(text.replace('"seconds": 0', '"seconds": 9'))
    elif damage == "another's":
        one.write_bytes(other.read_bytes())
    else:
        one.unlink()
        one.mkdir()
    trained.clear()
    said = inline("evaluate", run, *SOON, "--repeats", 2)
    assert len(trained) == 1
    assert ("the cache cannot be written" in said.stderr) == (damage == "a folder")


def test_a_training_is_known_by_all_that_its_result_depends_on():
    images, labels = torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1])
    data = ImageSet("set", images, labels, (ClassInfo("cat"), ClassInfo("dog")))
    protocol = resolved(EvaluateConfig().chosen(), num_images=2, num_classes=2, source_size=8)
    soft = replace(protocol, loss="soft")
    scores = Scores("test", "cpu", "teacher")
    others = {
        scores.path(data, protocol, 0),
        scores.path(data, protocol, 1),
        scores.path(data, replace(protocol, epochs=7), 0),
        scores.path(replace(data, images=images + 1), protocol, 0),
        scores.path(replace(data, images=images.view(2, 1, 4, 16)), protocol, 0),
        scores.path(replace(data, labels=labels.flip(0)), protocol, 0),
        scores.path(replace(data, classes=data.classes[::-1]), protocol, 0),
        replace(scores, test="another").path(data, protocol, 0),
        replace(scores, device="cuda").path(data, protocol, 0),
        scores.path(data, soft, 0),
        replace(scores, teacher="another").path(data, soft, 0),
    }
    assert len(others) == 11
    assert replace(scores, teacher=None).path(replace(data, name="b"), protocol, 0) in others  # neither has an effect
