"""Statistics report their quality and origin, and damage is detected."""

import json

import numpy as np
import ot
import pytest
from platformdirs import user_cache_path
from source_stand_ins import Picture, as_folder, as_parquet, pictures, shuffled, small_encoder, small_prior

from dmgd.config import StatisticsConfig
from dmgd.errors import ArtifactError, MismatchError, UsageError
from dmgd.priors.load import load_prior, with_encoder
from dmgd.progress import Silent
from dmgd.sources.open import open_source
from dmgd.statistics.content import check_statistics
from dmgd.statistics.file import Statistics
from dmgd.statistics.kmeans import quantization_error, quantize
from dmgd.workflows.fit_stats import fit_statistics

LABELS = ["tench", "golf ball"]


class Ear(Silent):
    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)

    warn = note


@pytest.fixture(scope="module")
def prior_folder(tmp_path_factory):
    return small_prior(tmp_path_factory.mktemp("prior"))


@pytest.fixture(scope="module")
def prior(prior_folder):
    return load_prior(str(prior_folder))


def fit(source, prior, k=3, ear=None, **options):
    config = StatisticsConfig(k, **options)
    return fit_statistics(source, prior, config, workers=0, progress=ear or Silent())


@pytest.mark.parametrize("k", [1, 5])
def test_the_quantisation_error_is_the_transport_cost(k):
    latents = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    support, mass = quantize(latents, k, 0)
    exact = ot.emd2(np.full(60, 1 / 60), mass, ot.dist(latents.astype(np.float64), support.astype(np.float64)))
    assert quantization_error(latents, support) == pytest.approx(exact, rel=1e-5)


def test_more_points_explain_more_of_the_class(tmp_path, prior):
    source = open_source(f"folder:{as_folder(tmp_path, pictures(LABELS))}")
    ratios = [[row["ratio"] for row in fit(source, prior, k).quality()] for k in (1, 3, 14, 20)]
    assert ratios[0] == [1, 1]
    assert ratios[2] == ratios[3] == [0, 0]  # a point for every image
    assert all(0 < ratio < 1 for ratio in ratios[1])


def test_equal_images_are_one_point(tmp_path, prior):
    jpeg = pictures(["a"], 1)[0].jpeg
    same = [Picture("tench", str(number), jpeg) for number in range(5)]
    row = fit(open_source(f"folder:{as_folder(tmp_path, same)}"), prior).quality()[0]
    assert (row["images"], row["points"], row["w2"], row["ratio"]) == (5, 1, pytest.approx(0, abs=1e-9), 0)


def test_the_command_prints_json_and_says_what_it_reused(tmp_path, prior_folder, dmgd):
    data = as_folder(tmp_path / "data", pictures(LABELS, 70))
    (data / "tench" / "empty.jpg").write_bytes(b"")
    encoder = small_encoder(tmp_path / "encoder")
    command = ["fit-stats", "--source", f"folder:{data}", "--prior", prior_folder, "--encoder", encoder, "--k", 4]
    first = dmgd(*command, "--json", "--out", tmp_path / "a", "--workers", 2)
    printed = json.loads(first.stdout)
    assert [row["images"] for row in printed["classes"]] == [70, 70]
    assert {row["points"] for row in printed["classes"]} == {4}
    assert printed["header"]["encoder"]["approximate"] is True
    assert printed["header"]["bad_images"] == {
        "count": 1,
        "listed": [{"name": "tench/empty.jpg", "reason": "the file is empty"}],
    }
    assert str(tmp_path) not in json.dumps(printed["header"]["source"])
    assert "1 of 141 images cannot be read" in first.stderr
    assert "images/s" in first.stderr
    second = dmgd(*command, "--out", tmp_path / "b")
    assert "reused statistics" in second.stderr
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert "W₂², K = 4" in second.stdout


@pytest.mark.parametrize("where", ["numbers", "header", "end"])
def test_damaged_statistics_are_refused_and_cached_ones_rebuilt(tmp_path, prior, where):
    source = open_source(f"folder:{as_folder(tmp_path / 'data', pictures(LABELS))}")
    good = fit(source, prior)
    [cached] = (user_cache_path("dmgd") / "statistics").iterdir()
    data = cached.read_bytes()
    if where == "numbers":
        changed = data[:-40] + bytes([data[-40] ^ 1]) + data[-39:]
    elif where == "header":
        changed = data.replace(b"tench", b"trout")
    else:
        changed = data[:-7]
    cached.write_bytes(changed)
    with pytest.raises(ArtifactError, match="damaged"):
        Statistics.load(cached)
    ear = Ear()
    again = fit(source, prior, ear=ear)
    assert "fitting again" in ear.said[0]
    assert (again.support == good.support).all()
    assert cached.read_bytes() == data


def test_statistics_are_valid_for_their_data_at_any_path(tmp_path, prior):
    found = pictures(LABELS)
    statistics = fit(open_source(f"folder:{as_folder(tmp_path / 'here', found)}"), prior)
    there = open_source(f"hf:{as_parquet(tmp_path / 'there', shuffled(found))}")
    check_statistics(statistics, there, prior, 3)
    for other, k, message in (
        (there, 4, "another k"),
        (open_source(f"folder:{as_folder(tmp_path / 'other', pictures(LABELS, seed=1))}"), 3, "another source"),
        (open_source("digits"), 3, "another source"),
    ):
        with pytest.raises(MismatchError, match=message):
            check_statistics(statistics, other, prior, k)


def test_an_encoder_of_other_latents_is_refused(tmp_path, prior):
    with pytest.raises(UsageError, match=r"latents of \(3, 8, 8\)"):
        with_encoder(prior, str(small_encoder(tmp_path / "three", latent_channels=3)))
    with pytest.raises(UsageError, match="for priors in Stable Diffusion's latent space"):
        with_encoder(load_prior("digits"), str(small_encoder(tmp_path / "four")))
