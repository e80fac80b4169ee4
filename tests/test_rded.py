"""RDED: the crops of real images that a teacher knows best, as a run like any other."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import dmgd
from dmgd.classes.imagenet import imagenet_subset
from dmgd.evaluation.augmentation import normaliser, to_unit
from dmgd.evaluation.features import efficientnet_input, efficientnet_network
from dmgd.evaluation.judge import open_judge
from dmgd.evaluation.networks import make_network
from dmgd.evaluation.protocols import PROTOCOLS
from dmgd.generation.cropping import box_of
from dmgd.images import square_pixels
from dmgd.statistics.encoding import encode_source
from dmgd.statistics.kmeans import class_seed

IPC, POOL, CROPS = 12, 14, 3  # in two batches


def resnet():
    torch.manual_seed(0)
    return make_network("resnet-18", num_classes=10, channels=1, size=8, norm="batch").eval()


def logits(network, crops):
    """Of uint8 digits (n, 8, 8, 1)."""
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
    with torch.no_grad():
        return network(normaliser(images, PROTOCOLS["rded-soft"])(to_unit(images)))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A ResNet-18 whose last layer alone was fitted, to random crops of 400 digits."""
    network, draw = resnet(), np.random.default_rng(0)
    images = list(dmgd.open_source("digits").decoded("train"))[:400]
    crops = [square_pixels(image.crop(box_of(image.size, draw.random(3))), 8, 1) for image, _ in images]
    head, network.fc = network.fc, torch.nn.Identity()
    seen = logits(network, crops)
    wanted = torch.nn.functional.one_hot(torch.tensor([label for _, label in images]), 10).float()
    solved = torch.linalg.solve(seen.T @ seen + seen.pow(2).mean() * torch.eye(512), seen.T @ wanted)
    head.weight.data, head.bias.data, network.fc = 20 * solved.T, torch.zeros(10), head
    path = tmp_path_factory.mktemp("teacher") / "secret-place.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    return network, path


def asked(teacher, *more):
    return ("distill", "--source", "digits", "--method", "rded", "--teacher", teacher, "--crops", CROPS, *more)


@pytest.fixture(scope="module")
def run(teacher, inline, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    inline(*asked(teacher[1]), "--ipc", IPC, "--pool", POOL, "--out", out)
    return dmgd.open_run(out)


def test_of_every_image_of_the_pool_the_best_crop_is_kept_and_of_these_the_best(run, teacher):
    source, prior = dmgd.open_source("digits"), dmgd.load_prior("digits")
    method, latents = run.config.method, encode_source(source, prior)
    images = list(source.images("train"))
    for c in (0, 7):
        seed = class_seed(0, str(c))
        drawn = [int(latents[c].ordinals[row]) for row in method.chosen(latents[c].rows, POOL, seed)]
        best = []
        for position, numbers in zip(drawn, method.boxes(POOL, seed), strict=True):
            assert images[position].label == c
            boxes = [box_of((8, 8), one) for one in numbers]
            crops = [square_pixels(images[position].image.crop(box), 8, 1) for box in boxes]
            losses = -torch.log_softmax(logits(teacher[0], crops), 1)[:, c]
            first = int(losses.argmin())
            best.append((float(losses[first]), position, " ".join(map(str, boxes[first])), crops[first]))
        best.sort(key=lambda one: one[0])
        records = [record for record in run.records() if record.class_index == c]
        assert [(r.source_index, r.source_crop) for r in records] == [one[1:3] for one in best[:IPC]]
        assert all(np.array_equal(run.pixels(r), one[3]) for r, one in zip(records, best, strict=False))
    assert len({record.source_crop for record in run.records()}) > IPC


def test_boxes_are_squares_inside_of_all_sizes():
    draw = np.random.default_rng(1)
    boxes = [box_of((300, 200), draw.random(3)) for _ in range(500)]
    left, top, right, bottom = np.array(boxes).T
    assert (right - left == bottom - top).all()
    assert (min(left), min(top), max(right), max(bottom)) == (0, 0, 300, 200)
    assert (min(right - left) < 60, max(right - left) > 195) == (True, True)
    assert box_of((300, 200), (0.9999, 0.9999, 0.9999)) == (100, 0, 300, 200)


def test_they_are_cut_again_for_verification_without_the_teacher(run, teacher, inline, tmp_path):
    moved, lock, hidden = tmp_path / "run", tmp_path / "lock.json", teacher[1].with_suffix(".hidden")
    shutil.copytree(run.path, moved)
    teacher[1].rename(hidden)
    try:
        said = inline("verify", moved, "--regenerate", 30, "--write-lock", lock).stdout
    finally:
        hidden.rename(teacher[1])
    assert "secret-place" not in lock.read_text()
    assert "30 images regenerated: 30 with equal pixels" in said
    assert "the teacher does not judge them again" in said


@pytest.mark.parametrize("layout", ["webdataset", "parquet", "imagefolder"])
def test_an_export_as_mosaics_says_whose_crops_they_are_and_nothing_of_local_paths(layout, run, inline, tmp_path):
    out = tmp_path / "export"
    inline("export", run.path, "--format", layout, "--tiles", 2, "--out", out)
    card, index = (out / "README.md").read_text(), (out / "index.json").read_text()
    assert "They are crops of images of its training split" in card
    assert "resnet-18, digest" in card
    assert "--teacher PATH/secret-place.safetensors" in card
    assert "/secret-place" not in (card + index).replace("PATH/secret-place", "")
    row = dmgd.open_export(out).to_dataset()[0]
    assert (row["source_name"], row["source_crop"]) == (run.records()[0].source_name, run.records()[0].source_crop)
    inline("verify", run.path, "--write-lock", tmp_path / "lock.json")
    inline("export", run.path, "--format", layout, "--out", tmp_path / "plain")
    inline("verify", tmp_path / "plain", "--lock", tmp_path / "lock.json")
    inline("verify", out, "--regenerate", 10)


def test_a_run_goes_on_with_the_same_teacher_wherever_it_lies_and_with_no_other(run, teacher, inline, tmp_path):
    again = shutil.copytree(run.path, tmp_path / "run")
    (again / "batches" / "c0008-0009.i00000-00011.json").unlink()
    elsewhere, other = shutil.copy(teacher[1], tmp_path / "moved.safetensors"), tmp_path / "other.safetensors"
    continued = ("--ipc", IPC, "--pool", POOL, "--out", again, "--resume")
    save_file(resnet().state_dict(), other)
    assert "plan.teacher.sha256" in inline(*asked(other, *continued), code=1).stderr
    inline(*asked(elsewhere, *continued))
    for file in run.path.rglob("*"):
        if file.is_file() and file.name != "run.json":
            assert (again / file.relative_to(run.path)).read_bytes() == file.read_bytes()


def test_what_cannot_be_judged_is_refused_by_name(teacher, inline, tmp_path):
    few = ("--ipc", 4, "--pool", 4, "--out", tmp_path / "run")
    said = inline(*asked("efficientnet-lite0", *few), code=1).stderr
    assert "the teacher efficientnet-lite0 was trained on RGB images, those of the data are grey" in said
    said = inline(*asked("efficientnet-lite9", *few), code=2).stderr
    assert "the teacher efficientnet-lite9 is neither a checkpoint file nor a Hub id" in said
    seven = tmp_path / "seven.safetensors"
    save_file({**resnet().state_dict(), "fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}, seven)
    assert "has 7 classes" in inline(*asked(seven, *few), code=1).stderr
    said = inline(*asked(teacher[1]), "--ipc", 5, "--pool", 4, "--out", tmp_path / "run", code=2).stderr
    assert "of a pool of 4 it cannot choose 5; take --pool 5 or more" in said
    assert not (tmp_path / "run").exists()
    state = teacher[0].state_dict()
    wrong = {**state, "fc.weight": state["fc.weight"].roll(1, 0).contiguous()}
    save_file({name: tensor.contiguous() for name, tensor in wrong.items()}, tmp_path / "order.safetensors")
    said = inline(*asked(tmp_path / "order.safetensors", *few), code=1).stderr
    assert "of the crops, chance is 10.0%; it may have another order of classes" in said
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "running"


def test_an_imagenet_teacher_knows_classes_by_their_rows_in_imagenet():
    prior = SimpleNamespace(image_channels=3, image_size=224, device=torch.device("cpu"))
    classes = imagenet_subset("imagewoof")  # which is not sorted
    crops = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    network, _ = efficientnet_network("efficientnet-lite0")
    with torch.no_grad():
        every = network(efficientnet_input(torch.from_numpy(crops).permute(0, 3, 1, 2), "efficientnet-lite0"))
    rows = [193, 182, 258, 162, 155, 167, 159, 273, 207, 229]
    known = open_judge("efficientnet-lite0", classes, prior).log_probabilities(crops)
    assert np.allclose(known, torch.log_softmax(every[:, rows], 1), atol=1e-5)
