"""What a killed `train-teacher` or `relabel` has done is used by the same command, which ends as if it had not been."""

import json
import shutil

import pytest
from made_run import tree

import dmgd
from dmgd.errors import DmgdError
from dmgd.evaluation import checkpoint, label_parts, relabelling, train

TEACHER = ("train-teacher", "--source", "digits", "--network", "convnet-2-w16", "--epochs", 3)


@pytest.fixture(autouse=True)
def _no_minute(monkeypatch):
    """Everything is kept at once."""
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0.0)


@pytest.fixture
def dies(monkeypatch):
    """dies(module, name, after) makes that function fail at its call with this number, and counts its calls."""

    def after(module, name, calls):
        own, seen = getattr(module, name), []

        def counted(*given, **named):
            seen.append(given)
            if len(seen) == calls:
                raise DmgdError("killed")
            return own(*given, **named)

        monkeypatch.setattr(module, name, counted)
        return seen

    return after


@pytest.fixture(scope="module")
def whole(inline, tmp_path_factory):
    """A teacher and a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("resume")
    inline(*TEACHER, "--out", folder / "T")
    dmgd.distill("digits", "digits", method="random", ipc=13, out=folder / "run")
    return folder


def test_a_teacher_that_was_killed_twice_has_the_weights_of_one_that_was_not(whole, inline, dies, tmp_path):
    own = json.loads((whole / "T" / "teacher.json").read_text())
    steps = dies(train, "add_up", 5)
    inline(*TEACHER, "--out", tmp_path / "T", code=1)
    first = len(steps)
    dies(train, "confusion_on", 1)  # between the last step of an epoch and its end
    assert "continuing the training that was interrupted" in inline(*TEACHER, "--out", tmp_path / "T", code=1).stderr
    assert "seed: 0 there, 1 requested" in inline(*TEACHER, "--seed", 1, "--out", tmp_path / "T", code=1).stderr
    second = len(steps) - first
    inline(*TEACHER, "--out", tmp_path / "T")
    total = 3 * -(-own["source"]["images"] // own["protocol"]["batch_size"])
    assert first + second < total <= len(steps) <= total + 2
    found = json.loads((tmp_path / "T" / "teacher.json").read_text())
    assert tree(tmp_path / "T")["teacher.safetensors"] == own["sha256"] == found["sha256"]
    assert found["top1"] == own["top1"]
    assert sorted(path.name for path in (tmp_path / "T").iterdir()) == sorted(
        path.name for path in (whole / "T").iterdir()
    )


def test_a_damaged_checkpoint_of_a_teacher_is_named(inline, tmp_path):
    (tmp_path / "T").mkdir()
    (tmp_path / "T" / "checkpoint.pt").write_bytes(b"half")
    said = inline(*TEACHER, "--out", tmp_path / "T", code=1).stderr
    assert "checkpoint.pt is damaged; remove it to start the training anew" in said


@pytest.mark.parametrize("views", [0, 2])
def test_labels_that_were_killed_twice_have_the_bytes_of_ones_that_were_not(views, whole, inline, dies, tmp_path):
    asked = ("relabel", whole / "run", "--teacher", whole / "T", "--views", views, "--bits", 8)
    inline(*asked, "--out", tmp_path / "whole")
    batches = dies(relabelling, "_seen", 3)  # of 64 of the 130 images
    inline(*asked, "--out", tmp_path / "L", code=1)
    first, second = (tmp_path / "L" / label_parts.UNFINISHED / f"{number:05d}.safetensors" for number in (0, 1))
    assert sorted(path for path in (tmp_path / "L").rglob("*.*") if path.is_file()) == [first, second]
    if views:
        shutil.copy(first, second)  # in the wrong place: as if it were not there
    assert "views: " in inline(*asked, "--views", 5, "--out", tmp_path / "L", code=1).stderr
    assert "continuing the labels" in inline(*asked, "--out", tmp_path / "L").stderr
    assert len(batches) == (3 + 5 if views else 3 + 1)
    assert tree(tmp_path / "L") == tree(tmp_path / "whole")
    assert label_parts.UNFINISHED not in {path.name for path in (tmp_path / "L").iterdir()}
