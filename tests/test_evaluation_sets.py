"""What can be evaluated and what is refused: layouts, classes, networks, teachers, metrics."""

import io
import json
import math
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from made_run import make_run
from PIL import Image
from safetensors.torch import save_file

from dmgd.errors import ArtifactError, DmgdError, MismatchError, UsageError
from dmgd.evaluation.augmentation import normaliser
from dmgd.evaluation.classes import match_labels
from dmgd.evaluation.comparison import paired_difference, statement
from dmgd.evaluation.imageset import stack_images
from dmgd.evaluation.inputs import read_labelled
from dmgd.evaluation.metrics import coverage_and_density, frechet_distance, set_metrics, transport_distance
from dmgd.evaluation.networks import make_network, parameter_count
from dmgd.evaluation.protocols import PROTOCOLS, EvaluateConfig
from dmgd.evaluation.selection import herding, nearest_distinct, random_selection
from dmgd.evaluation.teacher import load_teacher
from dmgd.evaluation.train import require_finite, to_unit, train
from dmgd.imagenet import imagenet_classes, imagenet_subset
from dmgd.pipeline.imagesets import Shape, labelled_set, read_sets, source_set
from dmgd.records import ClassInfo
from dmgd.sources.source import open_source

CATS = (ClassInfo("cat", "n02123045"), ClassInfo("dog", "n02084071"))


def write_folder(path, names, *, count=2, size=8, mode="RGB"):
    rng = np.random.default_rng(0)
    for name in names:
        (path / name).mkdir(parents=True)
        for i in range(count):
            shape = (size, size) if mode == "L" else (size, size, 3)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path / name / f"{i}.png")
    return path


@pytest.mark.parametrize("layout", ["webdataset", "parquet", "imagefolder"])
def test_every_export_reads_like_its_run(tmp_path, dmgd, layout):
    run = make_run(tmp_path / "run")
    dmgd("export", run.path, "--format", layout, "--out", tmp_path / "out")
    found, wanted = read_labelled(tmp_path / "out"), read_labelled(run.path)
    assert found.labels == wanted.labels
    assert found.classes == wanted.classes
    assert found.source_name == "made"
    for image, own in zip(found.images, wanted.images, strict=True):
        assert np.array_equal(np.array(image), np.array(own))


def write_shard(path, files):
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_labels_of_other_tools_that_are_no_class_numbers_are_named(tmp_path):
    image = (write_folder(tmp_path / "set", ["cat"]) / "cat" / "0.png").read_bytes()
    for label in (b"cat", b"-1"):
        shard = write_shard(tmp_path / "a.tar", {"0.png": image, "0.cls": label})
        with pytest.raises(ArtifactError, match=rf"a\.tar, sample 0 has the label '{label.decode()}'"):
            read_labelled(shard)
    shard = write_shard(tmp_path / "a.tar", {"0.png": image, "0.cls": b"1", "0.json": b"{"})
    with pytest.raises(ArtifactError, match=r"the \.json of a\.tar, sample 0 is damaged"):
        read_labelled(shard)
    labels = [None]
    pq.write_table(pa.table({"image": [{"bytes": image}], "label": labels}), tmp_path / "a.parquet")
    with pytest.raises(ArtifactError, match=r"a\.parquet, row 0 has the label None"):
        read_labelled(tmp_path / "a.parquet")


def test_every_set_has_a_name_of_its_own(tmp_path):
    one, other = (write_folder(tmp_path / at, ["cat"]) for at in ("dit", "other/dit"))
    assert [found.name for found in read_sets([one, other])] == [str(one), str(other)]
    assert read_sets([write_folder(tmp_path / "mine", ["cat"])])[0].name == "mine"
    with pytest.raises(UsageError, match="given twice"):
        read_sets([one, tmp_path / "other" / ".." / "dit"])


def test_another_tools_folders_are_matched_by_name_or_wnid(tmp_path):
    folder = write_folder(tmp_path / "set", ["n02084071", "n02123045"])  # sorted: dog before cat
    data = labelled_set(read_labelled(folder), CATS, Shape(8, 8, 3))
    assert data.labels.tolist() == [1, 1, 0, 0]
    assert data.classes == CATS


def test_one_of_several_names_is_enough_unless_two_classes_have_it():
    table = imagenet_classes()
    crane = [i for i, info in enumerate(table) if "crane" in info.name.split(", ")]
    assert len(crane) == 2
    named = tuple(ClassInfo(name) for name in ("Tinca tinca", "English_Springer", table[crane[0]].wnid))
    rows = match_labels("set", named, table, "name")
    assert rows == [0, table.index(imagenet_subset("imagenette")[1]), crane[0]]
    with pytest.raises(MismatchError, match=r"lacks: crane \(ambiguous\)"):
        match_labels("set", (ClassInfo("crane"),), table)


def test_another_order_is_refused_unless_told():
    swapped = tuple(reversed(CATS))
    with pytest.raises(MismatchError, match=r"another order .* number 0 is 'n02084071'"):
        match_labels("set", swapped, CATS)
    assert match_labels("set", swapped, CATS, "name") == [1, 0]
    assert match_labels("set", swapped, CATS, "index") == [0, 1]
    assert match_labels("set", swapped, CATS, numbered=False) == [1, 0]


def test_classes_that_do_not_match_are_refused():
    with pytest.raises(MismatchError, match="1 classes that the test source lacks: cow"):
        match_labels("set", (ClassInfo("cow"), CATS[0]), CATS)
    with pytest.raises(MismatchError, match="two classes of set are one"):
        match_labels("set", (ClassInfo("cat"), ClassInfo("n02123045")), CATS)
    with pytest.raises(UsageError, match="did you mean 'name'"):
        match_labels("set", CATS, CATS, "names")
    with pytest.raises(MismatchError, match="by position"):
        match_labels("set", CATS[:1], CATS, "index")


def test_bad_sets_are_refused_in_one_line(tmp_path):
    def refused(folder, message, classes=CATS):
        with pytest.raises(ArtifactError, match=message):
            labelled_set(read_labelled(folder), classes, Shape(8, 8, 3))

    empty = write_folder(tmp_path / "empty", ["cat", "dog"])
    for file in (empty / "dog").iterdir():
        file.unlink()
    refused(empty, "no image of 1 of the 2 classes: dog")
    refused(write_folder(tmp_path / "one", ["cat"]), "1 class; a classifier needs at least two", CATS[:1])
    sizes = write_folder(tmp_path / "sizes", ["cat", "dog"])
    Image.new("RGB", (9, 8)).save(sizes / "cat" / "x.png")
    refused(sizes, "mixed sizes")
    modes = write_folder(tmp_path / "modes", ["cat", "dog"])
    Image.new("L", (8, 8)).save(modes / "cat" / "x.png")
    refused(modes, "mixed channels")
    (modes / "cat" / "y.png").write_bytes(b"no image")
    refused(modes, "y.png is not an image")


def test_a_missing_test_split_is_said():
    from dmgd.pipeline.imagesets import first_image

    class Empty:
        name = "mine"

        def samples(self, split):
            return iter(())

    with pytest.raises(ArtifactError, match="'mine' has no test images"):
        first_image(Empty(), "test")


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
    with pytest.raises(MismatchError, match="knows 7 classes, the test source has 10"):
        load_teacher(str(teacher_file(tmp_path / "seven.pt", classes=7)), **settings)
    (tmp_path / "bad.pt").write_bytes(b"junk")
    with pytest.raises(ArtifactError, match="cannot be read as weights"):
        load_teacher(str(tmp_path / "bad.pt"), **settings)
    with pytest.raises(ArtifactError, match="is not a convnet-3-w64"):
        load_teacher(str(tmp_path / "t.pt"), **{**settings, "network": "convnet-3-w64"})
    with pytest.raises(UsageError, match="neither a checkpoint file nor a Hub id"):
        load_teacher(str(tmp_path / "none.pt"), **settings)


def test_a_loss_that_is_not_finite_stops_the_training():
    with pytest.raises(DmgdError, match=r"the loss became nan in epoch 3 \(seed 1\)"):
        require_finite(math.nan, "set", 3, 1)
    pixels = torch.randint(0, 256, (4, 8, 8, 1), dtype=torch.uint8)
    data = stack_images("set", list(pixels), [0, 1, 0, 1], CATS)
    config = EvaluateConfig("igd-adamw", network="convnet-2-w64", size=8, epochs=3)
    from dataclasses import replace

    exploding = replace(config.chosen(), learning_rate=1e30, resize=8)
    with pytest.raises(DmgdError, match="the loss became"):
        train(data, data, exploding, seed=0)


def test_same_seed_same_result_on_every_protocol():
    pixels = torch.randint(0, 256, (6, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = stack_images("set", list(pixels), [0, 1] * 3, CATS)
    for name in ("minimax-sgd", "igd-adamw"):
        protocol = EvaluateConfig(name, network="convnet-2-w8", size=16, epochs=2).chosen()
        first, second, other = (train(data, data, protocol, seed=seed).curve for seed in (3, 3, 4))
        assert first == second
        assert first != other


def test_selections():
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    assert random_selection(labels, [2, 1], 0) == random_selection(labels, [2, 1], 0)
    assert labels[random_selection(labels, [2, 1], 5)].tolist() == [0, 0, 1]
    rows = np.array([[0.0], [1.0], [10.0]])
    assert nearest_distinct(rows, np.array([[0.1], [0.2], [0.3]])) == [0, 1, 2]
    assert herding(rows, 2) == [1, 2]  # the mean is 11/3: 1 is nearest, then (1 + 10) / 2
    assert len(herding(rows, 9)) == 3


def test_metrics_against_closed_forms():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(200, 3)), rng.normal(size=(150, 3)) * 2 + 1
    from scipy.linalg import sqrtm

    root = sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    plain = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(plain)
    points, weights = np.array([[0.0], [3.0]]), np.array([0.5, 0.5])
    assert transport_distance(np.array([[0.0], [1.0]]), points, weights) == pytest.approx(1)
    assert coverage_and_density(a, a)[0] == 1
    assert coverage_and_density(a, a + 1000) == (0, 0)
    labels = np.arange(200) % 2
    supports = [(a[labels == c][:5], np.full(5, 0.2)) for c in (0, 1)]
    same = set_metrics(a, labels, a, labels, supports)
    assert same["near copies"] == 200
    assert same["nearest"] == 0
    assert same["diversity"] == pytest.approx(1)
    away = set_metrics(a * 0.01 + 50, labels, a, labels, supports)
    assert away["near copies"] == 0
    assert away["diversity"] == pytest.approx(0.01)


def test_significance_is_paired():
    paired = paired_difference([90, 92, 91, 94], [89, 90.5, 90, 92.5])
    assert paired["p"] < 0.01
    assert "dmgd is 1.2 points above random: significant" in statement("dmgd", "random", paired)
    assert paired_difference([90], [80])["p"] is None
    assert "no test" in statement("a", "b", paired_difference([90], [80]))


def trained_teacher_file(path):
    """A teacher that has seen the digits for some steps, normalised as `rded-soft` does."""
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


def test_soft_labels_end_to_end(dmgd, tmp_path):
    """A teacher near chance is refused, a trained one is said with its accuracy and teaches."""
    folder = tmp_path / "set"
    for i, (image, label) in enumerate(open_source("digits").samples("train")):
        if i < 200:
            (folder / str(label)).mkdir(parents=True, exist_ok=True)
            image.save(folder / str(label) / f"{i}.png")
    options = ["--source", "digits", "--protocol", "rded-soft", "--network", "convnet-2-w64", "--size", 8]
    options += ["--epochs", 40, "--repeats", 1, "--against", ""]
    untrained = teacher_file(tmp_path / "untrained.pt")
    assert "chance is 10.0 %" in dmgd("evaluate", folder, *options, "--teacher", untrained, code=1).stderr
    assert "needs --teacher" in dmgd("evaluate", folder, *options, code=2).stderr
    assert "give --source" in dmgd("evaluate", folder, *options[2:], code=2).stderr
    trained = trained_teacher_file(tmp_path / "trained.safetensors")
    done = dmgd("evaluate", folder, *options, "--teacher", trained, "--json")
    assert "% top-1 on the test images" in done.stderr
    result = json.loads(done.stdout)
    assert result["settings"]["teacher"]["top1"] > 60
    assert result["scores"][0]["top1"]["mean"] > 30
