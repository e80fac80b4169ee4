"""Set metrics without training, the selection of real images, and significance."""

import numpy as np
import pytest
import torch
from source_stand_ins import as_folder, pictures

import dmgd.evaluation.imageset
from dmgd.evaluation.baselines import choose_baselines, herding, nearest_distinct, random_selection
from dmgd.evaluation.imageset import Shape
from dmgd.evaluation.metrics import coverage_and_density, frechet_distance, set_metrics, transport_distance
from dmgd.evaluation.significance import paired_difference, statement
from dmgd.images import read_image
from dmgd.priors.load import load_prior
from dmgd.sources.open import open_source


def test_selections():
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    assert random_selection(labels, [2, 1], 0) == random_selection(labels, [2, 1], 0)
    assert labels[random_selection(labels, [2, 1], 5)].tolist() == [0, 0, 1]
    rows = np.array([[0.0], [1.0], [10.0]])
    assert nearest_distinct(rows, np.array([[0.1], [0.2], [0.3]])) == [0, 1, 2]
    assert herding(rows, 2) == [1, 2]  # the mean is 11/3: 1 is nearest, then (1 + 10) / 2
    assert len(herding(rows, 9)) == 3


def test_random_images_are_drawn_from_labels_and_only_those_are_decoded(tmp_path, monkeypatch):
    as_folder(tmp_path / "train", pictures(["cat", "dog"], 20))
    for file in ("cat/cat_3.JPEG", "dog/dog_5.JPEG"):
        path = tmp_path / "train" / file
        path.write_bytes(path.read_bytes()[:300])
    source, decoded = open_source(f"folder:{tmp_path}"), []
    original = dmgd.evaluation.imageset.read_image
    monkeypatch.setattr(dmgd.evaluation.imageset, "read_image", lambda image: decoded.append(image) or original(image))
    chosen = choose_baselines(("random",), source, [2, 2], range(2), None)
    assert len(decoded) <= 10
    names = [one.name for one in source.images("train")]
    assert [len(drawn) for drawn in chosen.chosen["random"].values()] == [4, 4]
    everything = choose_baselines(("random", "full"), source, [20, 20], range(1), None)
    drawn = {names[i] for i in everything.chosen["random"][0]}
    assert set(names) - drawn == {"train/cat/cat_3.JPEG", "train/dog/dog_5.JPEG"}
    random, full = everything.at(Shape(8, 8, 3), range(1))
    assert len(full.data) == 38
    own = random.of_seed(0)
    assert own.counts == [19, 19]
    pixels = {name: Shape(8, 8, 3).apply(read_image(tmp_path / name)).permute(2, 0, 1) for name in drawn}
    for number, ordinal in enumerate(everything.chosen["random"][0]):
        assert torch.equal(own.images[number], pixels[names[ordinal]])


def test_nearest_images_are_the_readable_ones(tmp_path):
    """The latents leave unreadable images out: their numbers are not those of the files."""
    as_folder(tmp_path / "train", pictures([str(i) for i in range(10)], 11))
    (tmp_path / "train" / "0" / "0_0.JPEG").write_bytes(b"no image")
    source = open_source(f"folder:{tmp_path}")
    chosen = choose_baselines(("herding",), source, [11] * 10, range(1), load_prior("digits"))
    names = [one.name for one in source.images("train")]
    assert sorted(names[i] for i in chosen.chosen["herding"][0]) == sorted(set(names) - {"train/0/0_0.JPEG"})


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


def test_equal_differences_are_no_evidence_whatever_their_rounding():
    first, second = ([100 * (right - fewer) / 540 for right in (401, 417, 433, 266)] for fewer in (0, 7))
    assert np.std(np.subtract(first, second)) > 0
    paired = paired_difference(first, second)
    assert (paired["difference"], paired["interval"], paired["p"]) == (1.296, None, None)
    assert "4 seeds: no test of significance" in statement("a", "b", paired)
