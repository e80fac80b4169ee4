"""Networks, their training and their teachers."""

import json
import math
import signal
import threading
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from dmgd.classes.info import ClassInfo
from dmgd.distribution.engine import SerialEngine
from dmgd.errors import ArtifactError, DmgdError, MismatchError, UsageError
from dmgd.evaluation.augmentation import normaliser, to_unit
from dmgd.evaluation.baselines import random_selection
from dmgd.evaluation.imageset import ImageSet, Shape, source_set, stack_images
from dmgd.evaluation.instance_norm import InstanceNorm
from dmgd.evaluation.networks import make_network, parameter_count
from dmgd.evaluation.protocols import PROTOCOLS, EvaluateConfig, resolved
from dmgd.evaluation.scores import Wanted, all_trainings
from dmgd.evaluation.steps import Batch, add_up, part_gradient
from dmgd.evaluation.teacher import load_teacher
from dmgd.evaluation.train import require_finite, train
from dmgd.evaluation.training_work import TrainingWork
from dmgd.evaluation.validation import confusion_on
from dmgd.progress import SILENT
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
    with pytest.raises(MismatchError, match="has 7 classes, the data have 10"):
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


def digits(per_class, seeds):
    """A random set of digits for every seed, the test images, and the protocol `quick` for some epochs."""
    source = open_source("digits")
    real, test = (source_set(source, split, split, Shape(8, 8, 1)) for split in ("train", "test"))
    sets = [real.select(random_selection(real.labels, [per_class] * 10, seed), str(seed)) for seed in seeds]
    return sets, test, resolved(EvaluateConfig(epochs=4).chosen(), num_images=100, num_classes=10, source_size=8)


def outcome(training):
    """All that a training returns but its time, to the last bit."""
    return training.seed, training.curve, training.confusion.tolist(), training.best


@pytest.fixture
def threads():
    """Sets the number of threads that torch has, which is what trainings use."""
    yield torch.set_num_threads
    torch.set_num_threads(1)


def test_a_training_depends_neither_on_the_cores_nor_on_what_else_is_trained(threads, monkeypatch):
    """A step's batch is computed in the same parts, each by one thread."""
    monkeypatch.setattr("dmgd.evaluation.networks.CACHE", 0)
    pixels = torch.randint(0, 256, (20, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = stack_images("set", list(pixels), [0, 1] * 10, CATS)
    other = replace(data, name="other", images=data.images.flip(0))
    protocol = replace(PROTOCOLS["igd-adamw"], network="convnet-2-w64", size=32, resize=32, batch_size=18, epochs=2)
    work = TrainingWork(data, None, "cpu")
    sets = [Wanted(number, one, protocol, (3, 4, 5)) for number, one in enumerate((data, other))]
    alone = outcome(train(data, data, protocol, seed=4))
    threads(3)
    assert outcome(train(data, data, protocol, seed=4)) == alone
    together = all_trainings(sets, work, None, SerialEngine(), SILENT)
    assert outcome(together[0, 4]) == alone
    assert torch.get_num_threads() == 3


def test_an_interrupt_ends_all_trainings(threads):
    """And their threads, within the time that a part of a batch takes."""
    threads(2)
    before = set(threading.enumerate())
    (data,), test, protocol = digits(10, [0])
    work, sets = TrainingWork(test, None, "cpu"), [Wanted(0, data, replace(protocol, epochs=9999), (0, 1, 2))]
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it may be ignored
    timer = threading.Timer(0.5, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    started = time.monotonic()
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            all_trainings(sets, work, None, SerialEngine(), SILENT)
    finally:
        signal.signal(signal.SIGINT, handler)
    for thread in set(threading.enumerate()) - before:
        thread.join(3)
    assert time.monotonic() - started < 4
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_of_instance_norm_is_that_of_group_norm(layout):
    generator = torch.Generator().manual_seed(0)
    x, outer = (torch.randn((3, 5, 4, 6), generator=generator, dtype=torch.float64) for _ in range(2))
    x = x.contiguous(memory_format=layout).requires_grad_()
    own, plain = InstanceNorm(5).double(), torch.nn.GroupNorm(5, 5).double()
    for norm in (own, plain):
        torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
    expected = torch.autograd.grad(plain(x), [x, *plain.parameters()], outer)
    found = torch.autograd.grad(own(x), [x, *own.parameters()], outer)
    torch.testing.assert_close(own(x), plain(x))
    torch.testing.assert_close(found, expected)


def test_parts_of_a_batch_add_up_to_its_gradient():
    """For parts of unequal size, with labels mixed by CutMix."""
    generator = torch.Generator().manual_seed(0)
    network = make_network("convnet-2-w8", num_classes=10, channels=1, size=8, norm="instance").double()
    labels = torch.randint(0, 10, (2, 11), generator=generator)
    batch = Batch(torch.randn((11, 1, 8, 8), generator=generator, dtype=torch.float64), *labels, own=0.3)
    output = network(batch.images)
    plain = 0.3 * F.cross_entropy(output, labels[0]) + 0.7 * F.cross_entropy(output, labels[1])
    gradients = torch.autograd.grad(plain, list(network.parameters()))
    assert [len(part.labels) for part in batch.split(4)] == [4, 4, 3]
    loss = add_up(network, map(partial(part_gradient, network, PROTOCOLS["quick"], None), batch.split(4)))
    torch.testing.assert_close(loss, plain.detach())
    torch.testing.assert_close([p.grad for p in network.parameters()], list(gradients))


def test_only_the_last_validation_of_quick_is_on_all_test_images(inline, monkeypatch, tmp_path):
    """The curve's are the same few ones for every seed, and there is no best epoch."""
    monkeypatch.setattr("dmgd.evaluation.validation.CURVE_IMAGES", 50)
    monkeypatch.setattr("dmgd.evaluation.protocols.CURVE_IMAGES", 50)
    tested = []

    def noted(network, test, *rest):
        tested.append(test.images)
        return confusion_on(network, test, *rest)

    monkeypatch.setattr("dmgd.evaluation.train.confusion_on", noted)
    for i, (image, label) in enumerate(open_source("digits").decoded("train")):
        if i < 100:
            (tmp_path / str(label)).mkdir(exist_ok=True)
            image.save(tmp_path / str(label) / f"{i}.png")
    options = ["--source", "digits", "--epochs", 14, "--repeats", 2, "--against", ""]
    result = json.loads(inline("evaluate", tmp_path, *options, "--json").stdout)
    assert result["scores"][0]["top1_best_epoch"] is None
    assert sorted({len(images) for images in tested}) == [50, 540]
    parts = [images for images in tested if len(images) == 50]
    assert len(parts) == 2 * (len(result["scores"][0]["curves"][0]) - 1) > 2
    assert all(torch.equal(part, parts[0]) for part in parts)
    assert "–" in inline("evaluate", tmp_path, *options).stdout


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
