"""Statistics report their quality and origin, and damage is detected."""

import json
import re
import resource
from dataclasses import replace

import numpy as np
import ot
import pytest
import torch
from platformdirs import user_cache_path
from safetensors import safe_open
from safetensors.torch import save_file
from source_stand_ins import Picture, as_folder, as_parquet, pictures, shuffled, small_encoder, small_prior

import dmgd.statistics.file
from dmgd.config import StatisticsConfig
from dmgd.errors import ArtifactError, MismatchError, UsageError
from dmgd.priors.load import load_prior, with_encoder
from dmgd.progress import Silent
from dmgd.sources.open import open_source
from dmgd.statistics.content import check_statistics
from dmgd.statistics.file import TENSORS, Statistics
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


def test_the_command_prints_json_and_says_what_it_reused(tmp_path, prior_folder, inline):
    data = as_folder(tmp_path / "data", pictures(LABELS, 70))
    (data / "tench" / "empty.jpg").write_bytes(b"")
    encoder = small_encoder(tmp_path / "encoder")
    command = ["fit-stats", "--source", f"folder:{data}", "--prior", prior_folder, "--encoder", encoder, "--k", 4]
    first = inline(*command, "--json", "--out", tmp_path / "a", "--workers", 0)
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
    second = inline(*command, "--out", tmp_path / "b")
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


def forged(path, where, header=None, **tensors):
    """The statistics in `path` with other values (None: without it), and a checksum that is right."""
    with safe_open(path, "pt") as file:
        old = json.loads(file.metadata()["dmgd"])
        values = {name: file.get_tensor(name) for name in TENSORS} | tensors
    new = {**{key: value for key, value in old.items() if key != "sha256"}, **(header or {})}
    values = {name: value for name, value in values.items() if value is not None}
    new["sha256"] = dmgd.statistics.file._sha256(new, (values[name] for name in sorted(values)))
    save_file(values, where, {"dmgd": json.dumps(new)})
    return where


def test_statistics_with_impossible_values_are_refused(tmp_path, prior, inline):
    good = tmp_path / "good"
    found = fit(open_source(f"folder:{as_folder(tmp_path / 'data', pictures(LABELS))}"), prior)
    found.save(good)
    assert Statistics.load(forged(good, tmp_path / "same")).digest == found.digest
    listed = [info.to_json() for info in found.classes]
    for header, said in (
        ({"k": "3"}, 'k is "3"'),
        ({"k": 10**6}, "support is torch.float32 of shape"),
        ({"k": True}, "k is true"),
        ({"classes": {}}, "classes is not a list"),
        ({"classes": listed[:1]}, "support is"),
        ({"classes": [{**listed[0], "name": 7}, listed[1]]}, "classes[0].name is 7"),
        ({"prior": None}, "prior is not an object"),
        ({"encoder": {"id": "x"}}, "encoder.digest is null"),
        ({"quality": {"w2": [1.0, 1.0]}}, "quality.w2_of_one_point is not a list"),
        ({"quality": {"w2": [1.0], "w2_of_one_point": [1.0]}}, "count or quality"),
        ({"detail": "much"}, 'detail is "much"'),
    ):
        with pytest.raises(ArtifactError, match=re.escape(said)) as caught:
            Statistics.load(forged(good, tmp_path / "bad", header))
        assert "\n" not in str(caught.value)
    for name, change, said in (
        ("support", lambda t: t * torch.nan, "support is not finite"),
        ("covariance", lambda t: t + torch.inf, "covariance is not finite"),
        ("support", lambda t: t.double(), "support is torch.float64"),
        ("mass", lambda t: t * 2, "the masses of a class do not sum to 1"),
        ("mass", lambda t: t[:, :1].repeat(1, 3).contiguous(), "the masses of a class do not sum to 1"),
        ("count", lambda t: t * 0, "count or quality"),
        ("covariance", lambda t: t[:, :2].contiguous(), "covariance is torch.float64 of shape (2, 2, 3)"),
        ("features", lambda t: t.flatten(1), "features are of shape (2,"),
        ("mass", lambda t: None, "does not contain tensor mass"),
    ):
        with pytest.raises(ArtifactError, match=re.escape(said)):
            Statistics.load(forged(good, tmp_path / "bad", **{name: change(getattr(found, name))}))
    for text in ("[]", "7", '{"format": [4]}', "[" * 10**5):
        save_file({"support": torch.ones(1)}, tmp_path / "bad", {"dmgd": text})
        assert "run dmgd fit-stats again" in inline(
            "distill", "--source", "digits", "--stats", tmp_path / "bad", "--out", tmp_path / "run", code=1
        ).stderr  # fmt: skip


@pytest.fixture
def small_files():
    """No file can be written beyond 400 kB: as on a full disk, but for the reason."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_cannot_be_written_to_the_end_is_one_line(tmp_path, inline, small_files):
    """Of the cache it is a warning, of --out an error, and nothing is left."""
    done = inline("fit-stats", "--source", "digits", "--k", 60, "--out", tmp_path / "stats", code=1)
    said = [line for line in done.stderr.splitlines() if "written" in line]
    assert len(said) == 2
    assert re.search("the cache cannot be written .*too large", said[0])
    assert re.search(f"error: .*too large.*{tmp_path / 'stats'}", said[1])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["fit-stats", "distill", "evaluate", "verify"])
def test_without_a_cache_to_write_to_every_command_goes_on(tmp_path, inline, monkeypatch, command):
    made = ("--source", "digits", "--ipc", 1, "--method", "dit", "--steps", 2, "--out", tmp_path / "run")
    if command in ("evaluate", "verify"):
        inline("distill", *made)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    options = {
        "fit-stats": ("--source", "digits", "--out", tmp_path / "stats"),
        "distill": made,
        "evaluate": (tmp_path / "run", "--against", "kmeans-real", "--network", "probe", "--repeats", 1),
        "verify": (tmp_path / "run", "--regenerate", 1),
    }
    assert inline(command, *options[command]).stderr.count("the cache cannot be written (Not a directory") == 1


def test_a_changed_digest_of_a_source_is_not_believed(tmp_path, prior):
    source = open_source(f"folder:{as_folder(tmp_path / 'data', pictures(LABELS))}")
    statistics = fit(source, prior)
    [known] = (user_cache_path("dmgd") / "content").iterdir()
    sound, other = known.read_bytes(), json.loads(known.read_text())["content"][::-1]
    for damaged in (json.dumps({"content": other}), known.read_text().replace(other[::-1], other), "", "[]"):
        known.write_text(damaged)
        ear = Ear()
        check_statistics(statistics, source, prior, 3, progress=ear)
        assert "the images are read again" in ear.said[0]
        assert known.read_bytes() == sound


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
    for part in ("support", "features"):
        shorter = replace(statistics, **{part: getattr(statistics, part)[:, :, 1:]})
        with pytest.raises(MismatchError, match="another shape of latents and features"):
            check_statistics(shorter, there, prior, 3)


def test_an_encoder_of_other_latents_is_refused(tmp_path, prior):
    with pytest.raises(UsageError, match=r"latents of \(3, 8, 8\)"):
        with_encoder(prior, str(small_encoder(tmp_path / "three", latent_channels=3)))
    with pytest.raises(UsageError, match="for priors in Stable Diffusion's latent space"):
        with_encoder(load_prior("digits"), str(small_encoder(tmp_path / "four")))
