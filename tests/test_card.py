"""The dataset card of a run: how to load and reproduce it, evaluation results, and no local path."""

import json
from dataclasses import replace

import pytest
import yaml
from made_run import make_run, tree
from source_stand_ins import WNIDS, as_folder, pictures, small_prior

from dmgd.exporters.command import distill_command
from dmgd.generation.config import DistillConfig
from dmgd.matching.methods import method_named
from dmgd.runs.directory import RunDirectory
from dmgd.specs import PriorSpec, SourceSpec


@pytest.fixture(scope="module")
def digits(tmp_path_factory, inline):
    """A run that is sampled in two steps."""
    folder = tmp_path_factory.mktemp("runs")
    inline("distill", "--source", "digits", "--ipc", 10, "--method", "dit", "--steps", 2, "--out", folder / "digits")
    return folder / "digits"


def test_the_card_has_yaml_a_class_table_and_the_command_that_makes_the_run(digits, tmp_path, inline):
    inline("export", digits, "--format", "parquet", "--out", tmp_path / "out")
    _, head, text = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["dataset_info"]["splits"][0]["num_examples"] == 100
    command = next(line for line in text.splitlines() if line.startswith("dmgd distill")).split()[1:]
    inline(*command, "--out", tmp_path / "again")
    assert tree(tmp_path / "again") == tree(digits)


def test_the_command_has_options_that_exist_and_says_what_it_cannot_do():
    digits = SourceSpec("digits"), PriorSpec("digits")
    paper = DistillConfig(method=method_named("dmgd-paper", steps=20), compile=True)
    command = distill_command(paper, *digits)
    assert command == "dmgd distill --source digits --ipc 10 --method dmgd-paper --compile --steps 20"
    means = DistillConfig(method=replace(method_named("dmgd"), match_covariance=False))
    assert distill_command(means, *digits).endswith("--ipc 10  # with match_covariance=False, from Python")
    mirrored = distill_command(DistillConfig(), *digits, {"mirror": True, "seed": 5, "k": 20})
    assert mirrored.endswith("--ipc 10  # with --stats of dmgd fit-stats --mirror --seed 5 --k 20")
    for keep, option in ((True, "--keep-detail yes"), (False, "--keep-detail no")):
        config = DistillConfig(method=method_named("dmgd", keep_detail=keep))
        assert distill_command(config, *digits).endswith(f"--ipc 10 {option}")


@pytest.fixture(scope="module")
def local(tmp_path_factory, inline):
    """A run of local data with a local prior, whose paths are private."""
    secret = tmp_path_factory.mktemp("runs") / "secret"
    for split, seed in (("train", 0), ("val", 1)):
        as_folder(secret / "photos" / split, pictures(WNIDS[:2], per_class=4, seed=seed))
    prior = small_prior(secret / "weights")
    settings = ("--method", "dit", "--steps", 2, "--ipc", 2)
    inline("distill", "--source", f"folder:{secret / 'photos'}", "--prior", prior, *settings, "--out", secret / "run")
    return secret / "run"


def test_local_paths_are_not_published(local, tmp_path, inline):
    inline("export", local, "--out", tmp_path / "out")
    inline("verify", local, "--write-lock", tmp_path / "lock.json")
    inline("verify", tmp_path / "out", "--lock", tmp_path / "lock.json")
    texts = [path.read_text() for path in (*tmp_path.glob("out/*.*"), tmp_path / "lock.json")]
    assert len(texts) == 3
    assert not any("secret" in text for text in texts)
    assert all("folder:photos" in text and "weights" in text for text in texts)


def test_evaluate_finds_the_data_of_a_run(local, tmp_path, inline, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--epochs", 1, "--repeats", 1, "--against", "", "--json")
    scores = json.loads(inline("evaluate", local, *options).stdout)
    assert RunDirectory.open(local).specs[0].name.endswith("secret/photos")
    assert scores["settings"]["source"]["name"] == "folder:photos"


def test_the_card_shows_what_networks_learned(digits, tmp_path, inline):
    options = ("--epochs", 1, "--repeats", 2, "--json")
    (tmp_path / "scores.json").write_text(inline("evaluate", digits, *options).stdout)
    run = make_run(tmp_path / "run")
    inline("export", run.path, "--out", tmp_path / "out", "--evaluation", tmp_path / "scores.json")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Protocol `quick`" in card
    assert "| random | 100 |" in card
    refused = inline("export", run.path, "--out", tmp_path / "new", "--evaluation", run.path / "run.json", code=1)
    assert "dmgd evaluate --json" in refused.stderr
    assert not (tmp_path / "new").exists()
