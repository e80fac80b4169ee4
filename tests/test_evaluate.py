"""`dmgd evaluate` as a user runs it, and checks of the evaluation itself."""

import json

import pytest
import torch

from dmgd.errors import UsageError
from dmgd.evaluation.imageset import Shape, source_set
from dmgd.evaluation.protocols import EvaluateConfig, resolved
from dmgd.evaluation.train import train
from dmgd.sources.open import open_source
from dmgd.workflows.evaluate import evaluate


@pytest.fixture(scope="session")
def run(inline, tmp_path_factory):
    """A tiny run of the digits: three plain samples per class."""
    out = tmp_path_factory.mktemp("evaluate") / "run"
    inline("distill", "--source", "digits", "--ipc", 3, "--method", "dit", "--steps", 10, "--out", out)
    return out


@pytest.fixture(scope="session")
def digits():
    """The digits' training and test images, as sets."""
    source, shape = open_source("digits"), Shape(8, 8, 1)
    return source_set(source, "train", "train", shape), source_set(source, "test", "test", shape)


def quick(data, **changes):
    return resolved(EvaluateConfig(**changes).chosen(), num_images=len(data), num_classes=10, source_size=8)


def test_a_run_beside_random_real_images(dmgd, inline, run, monkeypatch, tmp_path):
    done = dmgd("evaluate", run, "--epochs", 12, "--repeats", 2, "--json")
    result = json.loads(done.stdout)
    assert [score["name"] for score in result["scores"]] == ["run", "random"]
    assert result["scores"][0]["top1"]["mean"] > 40
    assert result["settings"]["seeds"] == [0, 1]
    assert "run is" in result["statements"][0]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where no training is kept
    again = json.loads(inline("evaluate", run, "--epochs", 12, "--repeats", 2, "--json").stdout)
    assert [s["top1_by_seed"] for s in again["scores"]] == [s["top1_by_seed"] for s in result["scores"]]


def test_all_digits_teach_and_shuffled_labels_do_not(digits):
    train_set, test = digits
    assert train(train_set, test, quick(train_set), seed=0).last >= 98
    generator = torch.Generator().manual_seed(0)
    shuffled = train_set.labels[torch.randperm(len(train_set), generator=generator)]
    wrong = type(train_set)("shuffled", train_set.images, shuffled, train_set.classes)
    assert train(wrong, test, quick(wrong, epochs=5), seed=0).last < 25


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--protocol", "quikc"], "did you mean 'quick'"),
        (["--against", "randum"], "did you mean 'random'"),
        (["--repeats", "0"], "repeats must be at least 1"),
        (["--network", "vgg"], "unknown network 'vgg'"),
    ],
)
def test_wrong_usage_is_one_line(inline, run, arguments, said):
    error = inline("evaluate", run, *arguments, code=2).stderr
    assert said in error
    assert "Traceback" not in error


def test_what_has_no_effect_is_refused(inline, tmp_path):
    for arguments, said in (
        (("--against", "random,random"), "the baseline random is given twice"),
        (("--features", "efficientnet-lite0"), "have no effect without metrics or the network probe"),
        (("--prior", "digits"), "--prior, --vae, --prompts and --lora have no effect here"),
        (("--teacher", "some/teacher"), "a teacher has no effect on the protocol quick, which has hard labels"),
    ):
        assert said in inline("evaluate", tmp_path, *arguments, code=2).stderr


def test_no_set_at_all_is_refused():
    with pytest.raises(UsageError, match="no set to evaluate"):
        evaluate([], "digits")


def test_what_is_not_a_set_is_refused(inline, tmp_path):
    assert "is not a" in inline("evaluate", tmp_path, code=2).stderr
