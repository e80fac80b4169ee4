"""Set metrics without training, the selection of real images, and significance."""

import numpy as np
import pytest
import torch

from dmgd.evaluation.baselines import herding, nearest_distinct, random_selection
from dmgd.evaluation.comparison import paired_difference, statement
from dmgd.evaluation.metrics import coverage_and_density, frechet_distance, set_metrics, transport_distance


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
