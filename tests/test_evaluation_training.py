"""Networks, their training and their teachers."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file

from dmgd.classes.info import ClassInfo
from dmgd.errors import ArtifactError, DmgdError, MismatchError, UsageError
from dmgd.evaluation.augmentation import normaliser, to_unit
from dmgd.evaluation.imageset import ImageSet, Shape, source_set, stack_images
from dmgd.evaluation.networks import make_network, parameter_count
from dmgd.evaluation.protocols import PROTOCOLS, EvaluateConfig
from dmgd.evaluation.teacher import load_teacher
from dmgd.evaluation.train import require_finite, train
from dmgd.evaluation.validation import confusion_on
from dmgd.sources.open import open_source

CATS = (ClassInfo("cat", "n02123045"), ClassInfo("dog", "n02084071"))


@pytest.mark.parametrize(
    ("name", "size", "count"),
    [
        ("convnet-6", 224, 754_570),
        ("resnetap-10", 224, 4_910_922),
        ("resnet-18", 224, 11_181_642),
        ("convnet-3", 32, 320_010),
    ],
)
def test_parameter_counts(name, size, count):
    assert parameter_count(make_network(name, num_classes=10, channels=3, size=size, norm="instance")) == count


def test_resnet_101_is_torchvisions():
    network = make_network("resnet-101", num_classes=1000, channels=3, size=224, norm="batch")
    assert parameter_count(network) == 44_549_160
    assert "layer3.22.conv3.weight" in network.state_dict()


def teacher_file(path, classes=10):
    torch.manual_seed(0)
    network = make_network("convnet-2-w64", num_classes=classes, channels=1, size=8, norm="batch")
    torch.save({"state_dict": {f"module.{key}": value for key, value in network.state_dict().items()}}, path)
    return path


def test_teachers_are_checked(tmp_path):
    settings = {"network": "convnet-2-w64", "norm": "batch", "num_classes": 10, "channels": 1, "size": 8}
    assert load_teacher(str(teacher_file(tmp_path / "t.pt")), **settings).network_name == "convnet-2-w64"
    with pytest.raises(MismatchError, match="has 7 classes, the test source has 10"):
        load_teacher(str(teacher_file(tmp_path / "seven.pt", classes=7)), **settings)
    (tmp_path / "bad.pt").write_bytes(b"junk")
    with pytest.raises(ArtifactError, match="cannot be read as weights"):
        load_teacher(str(tmp_path / "bad.pt"), **settings)
    with pytest.raises(ArtifactError, match="is not a convnet-3-w64"):
        load_teacher(str(tmp_path / "t.pt"), **{**settings, "network": "convnet-3-w64"})
    with pytest.raises(UsageError, match="neither a checkpoint file nor a Hub id"):
        load_teacher(str(tmp_path / "none.pt"), **settings)


def test_a_non_finite_loss_stops_the_training():
    with pytest.raises(DmgdError, match=r"the loss became nan in epoch 3 \(seed 1\)"):
        require_finite(math.nan, "set", 3, 1)
    pixels = torch.randint(0, 256, (4, 8, 8, 1), dtype=torch.uint8)
    data = stack_images("set", list(pixels), [0, 1, 0, 1], CATS)
    config = EvaluateConfig("igd-adamw", network="convnet-2-w64", size=8, epochs=3)
    from dataclasses import replace

    exploding = replace(config.chosen(), learning_rate=1e30, resize=8)
    with pytest.raises(DmgdError, match="the loss became"):
        train(data, data, exploding, seed=0)


def test_test_images_are_tested_in_batches_that_fit_memory():
    """Of so many pixels; the batch does not change the result."""
    generator = torch.Generator().manual_seed(0)
    classes = tuple(ClassInfo(str(i)) for i in range(3))
    seen = []

    class Brightness(torch.nn.Module):
        def forward(self, x):
            seen.append(len(x))
            return torch.stack([-x.mean((1, 2, 3)), x[:, 0, 0, 0], x[:, 0, 0, 1]], 1)

    def confusion(size):
        seen.clear()
        images = torch.randint(0, 256, (600, 1, size, size), dtype=torch.uint8, generator=generator)
        data = ImageSet("test", images, torch.arange(600) % 3, classes)
        return confusion_on(Brightness(), data, lambda x: x - 0.5, "cpu"), data

    assert (confusion(32)[0].sum(), seen) == (600, [512, 88])
    found, data = confusion(160)
    assert max(seen) * 160**2 <= 512 * 64**2
    alone = [confusion_on(Brightness(), data.select([i], "one"), lambda x: x - 0.5, "cpu") for i in range(600)]
    assert torch.equal(found, torch.stack(alone).sum(0))


def test_same_seed_same_result_on_every_protocol():
    pixels = torch.randint(0, 256, (6, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = stack_images("set", list(pixels), [0, 1] * 3, CATS)
    for name in ("minimax-sgd", "igd-adamw"):
        protocol = EvaluateConfig(name, network="convnet-2-w8", size=16, epochs=2).chosen()
        first, second, other = (train(data, data, protocol, seed=seed).curve for seed in (3, 3, 4))
        assert first == second
        assert first != other


def trained_teacher_file(path):
    """A teacher trained on the digits for some steps, normalised as in `rded-soft`."""
    source = open_source("digits")
    data = source_set(source, "train", "train", Shape(8, 8, 1))
    normalise = normaliser(data.images, PROTOCOLS["rded-soft"])
    torch.manual_seed(0)
    network = make_network("convnet-2-w64", num_classes=10, channels=1, size=8, norm="batch")
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(2):
        for chosen in torch.randperm(len(data)).split(128):
            optimizer.zero_grad()
            output = network(normalise(to_unit(data.images[chosen])))
            torch.nn.functional.cross_entropy(output, data.labels[chosen]).backward()
            optimizer.step()
    save_file(network.state_dict(), path)
    return path


def test_soft_labels_end_to_end(inline, tmp_path):
    """A teacher near chance is refused, a trained one is reported with its accuracy and used."""
    folder = tmp_path / "set"
    for i, (image, label) in enumerate(open_source("digits").decoded("train")):
        if i < 200:
            (folder / str(label)).mkdir(parents=True, exist_ok=True)
            image.save(folder / str(label) / f"{i}.png")
    options = ["--source", "digits", "--protocol", "rded-soft", "--network", "convnet-2-w64", "--size", 8]
    options += ["--epochs", 40, "--repeats", 1, "--against", ""]
    untrained = teacher_file(tmp_path / "untrained.pt")
    assert "chance is 10.0 %" in inline("evaluate", folder, *options, "--teacher", untrained, code=1).stderr
    assert "needs --teacher" in inline("evaluate", folder, *options, code=2).stderr
    assert "give --source" in inline("evaluate", folder, *options[2:], code=2).stderr
    trained = trained_teacher_file(tmp_path / "trained.safetensors")
    done = inline("evaluate", folder, *options, "--teacher", trained, "--json")
    assert "% top-1 on the test images" in done.stderr
    result = json.loads(done.stdout)
    assert result["settings"]["teacher"]["top1"] > 60
    assert result["scores"][0]["top1"]["mean"] > 30
