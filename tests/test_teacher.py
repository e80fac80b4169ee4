"""Teachers: trained by the tool, loaded with their own input and classes, and refused where they do not fit."""

import json
from dataclasses import replace

import pytest
import torch
from made_run import forge

import dmgd
from dmgd.classes.imagenet import imagenet_classes, imagenet_subset
from dmgd.classes.info import ClassInfo
from dmgd.errors import ArtifactError, MismatchError
from dmgd.evaluation.imageset import ImageSet, Shape, source_set
from dmgd.evaluation.protocols import PROTOCOLS, resolved
from dmgd.evaluation.teacher import check_teacher, open_teacher
from dmgd.sources.open import open_source

ASKED = ("--source", "digits", "--network", "convnet-2-w32", "--epochs", 2)
SOFT = resolved(PROTOCOLS["rded-soft"], num_images=100, num_classes=10, source_size=8)


@pytest.fixture(scope="module")
def teacher(inline, tmp_path_factory):
    """The folder of a small teacher of the digits, and its description."""
    folder = tmp_path_factory.mktemp("teacher") / "T"
    return folder, json.loads(inline("train-teacher", *ASKED, "--out", folder, "--json").stdout)


@pytest.fixture(scope="module")
def digits():
    return source_set(open_source("digits"), "test", "test", Shape(8, 8, 1))


def test_a_teacher_is_trained_described_and_left_as_it_is(teacher, inline):
    folder, described = teacher
    assert described["top1"] > 60
    assert [one["name"] for one in described["classes"]] == [str(n) for n in range(10)]
    assert (described["size"], described["channels"], described["source"]["name"]) == (8, 1, "digits")
    again = inline("train-teacher", *ASKED, "--out", folder)
    assert "is finished, and left as it is" in again.stderr
    assert "seed: 0 there, 1 requested" in inline("train-teacher", *ASKED, "--seed", 1, "--out", folder, code=1).stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--protocol", "rded-soft"), "a teacher learns from hard labels"),
        (("--network", "resnet-18"), "resnet-18 needs images of at least 16 pixels"),
    ],
)
def test_what_cannot_be_a_teacher_is_refused(options, said, inline, tmp_path):
    assert said in inline("train-teacher", *ASKED, *options, "--out", tmp_path / "T", code=2).stderr
    assert not (tmp_path / "T").exists()


def test_a_teacher_brings_its_input_whatever_the_protocols(teacher, digits):
    """Images of another size and another normalisation give the accuracy that it was trained to."""
    folder, described = teacher
    large = replace(digits, images=digits.images.repeat_interleave(2, 2).repeat_interleave(2, 3))
    opened = open_teacher(str(folder), SOFT, large)
    assert check_teacher(opened, digits, "cpu")["top1"] == pytest.approx(described["top1"], abs=0.2)
    assert check_teacher(opened, large, "cpu")["top1"] == pytest.approx(described["top1"], abs=2)
    unit = digits.images[:8].float() / 255
    mean, std = torch.tensor((0.485, 0.456, 0.406)).mean(), torch.tensor((0.229, 0.224, 0.225)).mean()
    same = opened.network((unit - mean) / std), opened.network.on_unit()(unit)
    assert torch.allclose(*same, atol=1e-4)


def test_classes_are_matched_by_identity_and_missing_ones_refused(teacher, digits):
    folder, described = teacher
    backwards = replace(digits, classes=digits.classes[::-1], labels=9 - digits.labels)
    found = check_teacher(open_teacher(str(folder), SOFT, backwards), backwards, "cpu")
    assert found["top1"] == pytest.approx(described["top1"], abs=0.2)
    other = replace(digits, classes=(*digits.classes[:9], ClassInfo("ten")))
    with pytest.raises(MismatchError, match="lacks 1 of the 10 classes of the data: ten; give a teacher"):
        open_teacher(str(folder), SOFT, other)
    coloured = replace(digits, images=digits.images.expand(-1, 3, -1, -1))
    with pytest.raises(MismatchError, match="was trained on grey images, those of the data are RGB"):
        open_teacher(str(folder), SOFT, coloured)


def test_a_changed_teacher_is_refused(inline, tmp_path, digits):
    folder = tmp_path / "T"
    inline("train-teacher", *ASKED[:-1], 1, "--out", folder)
    forge(folder / "teacher.json", lambda described: described.update(sha256="0" * 64))
    with pytest.raises(ArtifactError, match=r"is damaged \(teacher.safetensors: was changed"):
        open_teacher(str(folder), SOFT, digits)
    (folder / "teacher.json").write_text("{}")
    with pytest.raises(ArtifactError, match="train it again with dmgd train-teacher"):
        open_teacher(str(folder), SOFT, digits)


def test_efficientnet_teaches_those_of_imagenets_classes_that_a_set_has(digits):
    pytest.importorskip("efficientnet_lite_pytorch")
    classes = imagenet_subset("imagenette")
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    some = ImageSet("some", images, torch.tensor([0, 1]), classes)
    network = open_teacher("efficientnet-lite0", SOFT, some).network.on_unit()
    unit = images / 255
    rows = [imagenet_classes().index(info) for info in classes]
    pixels = torch.nn.functional.interpolate(images.float(), size=(224, 224), mode="bilinear", antialias=True)
    whole = network.network((pixels - 127) / 128)
    assert torch.allclose(network(unit), whole[:, rows], atol=1e-3)
    with pytest.raises(MismatchError, match="efficientnet-lite0 was trained on RGB images"):
        open_teacher("efficientnet-lite0", SOFT, digits)


def test_a_trained_teacher_gives_soft_labels_to_an_evaluation(teacher, inline, tmp_path):
    run = dmgd.distill("digits", "digits", method="random", ipc=4, out=tmp_path / "run").path
    options = ("--protocol", "rded-soft", "--network", "convnet-1-w8", "--size", 8, "--epochs", 2, "--repeats", 1)
    done = inline("evaluate", run, *options, "--against", "", "--teacher", teacher[0], "--json")
    said = json.loads(done.stdout)["settings"]["teacher"]
    assert (said["sha256"], said["network"]) == (teacher[1]["sha256"], "convnet-2-w32")
