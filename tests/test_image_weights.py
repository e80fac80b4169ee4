"""How much of its class each image stands for: computed, kept, exported, checked, and used in the loss."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_run import forge, tree
from platformdirs import user_cache_path

import dmgd
from dmgd.evaluation.augmentation import channel_statistics, normaliser
from dmgd.evaluation.imageset import Shape, prepared_set
from dmgd.evaluation.inputs import read_raw_set
from dmgd.evaluation.protocols import PROTOCOLS, resolved
from dmgd.evaluation.steps import augmented, hard_loss, scheduled, soft_loss
from dmgd.evaluation.stored_labels import SoftLabels
from dmgd.evaluation.views import draw_views
from dmgd.exporters.distilled import DistilledSet
from dmgd.exporters.formats import LAYOUTS
from dmgd.priors.load import load_prior
from dmgd.sources.open import open_source
from dmgd.statistics.encoding import encode_source

RANDOM = ("distill", "--source", "digits", "--method", "random", "--ipc", 4)
TRAINING = ("--against", "", "--repeats", 1, "--epochs", 2, "--network", "convnet-1-w8", "--json")


@pytest.fixture(scope="module")
def run(inline, tmp_path_factory):
    """A run of 40 real digits."""
    folder = tmp_path_factory.mktemp("weights") / "run"
    inline(*RANDOM, "--out", folder)
    return dmgd.open_run(folder)


@pytest.fixture
def copy(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "copy")
    return tmp_path / "copy"


def weights_of(path):
    return [fields["weight"] for _, fields, _ in DistilledSet.open(path).entries()]


def test_an_image_weighs_as_many_real_ones_as_are_nearest_to_it(run):
    latents = encode_source(open_source("digits"), load_prior("digits"))
    records = run.complete_records()
    for c in (0, 7):
        own = [record for record in records if record.class_index == c]
        images = np.stack([run.pixels(record).reshape(-1) for record in own]) / 127.5 - 1
        distances = ((latents[c].rows[:, None] - images[None]) ** 2).sum(2)
        counts = np.bincount(distances.argmin(1), minlength=4)
        assert [record.weight for record in own] == pytest.approx(counts * 4 / counts.sum(), abs=1e-6)
        assert len(set(counts)) > 1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tiles", [1, 2])
def test_every_layout_has_the_weights_of_images_and_of_parts(layout, tiles, run, inline, tmp_path):
    inline("export", run.path, "--format", layout, "--tiles", tiles, "--out", tmp_path / "E")
    assert weights_of(tmp_path / "E") == weights_of(run.path)
    assert dmgd.open_export(tmp_path / "E").to_dataset()["weight"][:] == weights_of(run.path)


def test_verify_sees_changed_weights_and_distill_computes_them_again(copy, inline):
    before = tree(copy)
    forge(copy / "weights.json", lambda content: content["weights"][3].__setitem__(0, 2.5))
    assert "weights of a class have the mean 1" in inline("verify", copy, code=1).stdout
    text = (copy / "weights.json").read_text()
    (copy / "weights.json").write_text(text.replace("2.5", "2.4"))
    assert "its checksum differs" in inline("export", copy, "--out", copy.parent / "E", code=1).stderr
    inline("fit-stats", "--source", "digits", "--out", copy.parent / "stats")  # the cache of this test is empty
    assert "computes it again" in inline(*RANDOM, "--out", copy).stderr
    assert tree(copy) == before


def test_what_is_said_of_missing_latents_brings_the_weights_back(inline, tmp_path):
    command = ("distill", "--source", "digits", "--method", "dit", "--steps", 2, "--ipc", 1, "--out", tmp_path / "run")
    inline(*command)
    before, cache = tree(tmp_path / "run"), user_cache_path("dmgd")
    (tmp_path / "run" / "weights.json").unlink()
    shutil.rmtree(cache / "latents")  # the statistics are still there, so that nothing is encoded
    assert f"the images get no weights: the latents of the real images are not in the cache; with {cache} " in (
        inline(*command).stderr
    )
    shutil.rmtree(cache)
    inline(*command)
    assert tree(tmp_path / "run") == before


def test_verify_sees_a_changed_weight_in_an_export(run, inline, tmp_path):
    inline("export", run.path, "--format", "imagefolder", "--out", tmp_path / "E")
    table = tmp_path / "E" / "metadata.jsonl"
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    for weight in (9.0, None):
        rows[0]["weight"] = weight
        table.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))
        assert "metadata.jsonl: was changed" in inline("verify", tmp_path / "E", code=1).stdout
        digest = tree(tmp_path / "E")["metadata.jsonl"]
        forge(tmp_path / "E" / "index.json", lambda index, new=digest: index["files"][-1].update(sha256=new))
        said = inline("verify", tmp_path / "E", code=1).stdout
        assert said == "index.json: the weights of the images are not those that it says\n"


def test_a_run_without_weights_is_complete_but_not_trained_on_by_them(copy, run, inline, tmp_path):
    inline("export", copy, "--format", "parquet", "--out", tmp_path / "E2")
    (copy / "weights.json").unlink()
    inline("verify", copy)
    said = inline("export", copy, "--format", "parquet", "--out", tmp_path / "E2", code=1).stderr
    assert "contains another export (other weights)" in said
    inline("export", copy, "--format", "parquet", "--out", tmp_path / "E")
    inline("verify", tmp_path / "E")
    for path in (copy, tmp_path / "E"):
        said = inline("evaluate", run.path, *TRAINING, "--weighted", "--against", path, code=2).stderr
        assert f"{path} has no weights of its images" in said


def test_weighted_trainings_have_their_own_row_and_their_own_score(run, inline):
    said = []
    for options in ((), ("--weighted",), ("--weighted",)):
        done = inline("evaluate", run.path, *TRAINING, *options)
        known = "1 of the 1 trainings are known" in done.stderr
        said.append((json.loads(done.stdout)["scores"][0], known))
    (plain, _), (weighted, first), (again, second) = said
    assert (plain["name"], weighted["name"]) == ("run", "run (weighted)")
    assert (first, second) == (False, True)
    assert plain["curves"] != weighted["curves"] == again["curves"]
    assert "weights of the images of run: from 0." in done.stderr


def test_an_image_of_weight_two_counts_as_two():
    draw = torch.Generator().manual_seed(0)
    output, target = torch.randn(2, 3, 5, generator=draw)
    labels, partners, weights = torch.tensor([0, 1, 2]), torch.tensor([4, 3, 0]), torch.tensor([2.0, 1.0, 1.0])
    twice = [0, 0, 1, 2]
    hard = hard_loss(output[twice], labels[twice], partners[twice], 0.7)
    assert torch.allclose(hard_loss(output, labels, partners, 0.7, weights), hard * 4 / 3)
    soft = soft_loss(output[twice], target[twice], 20)
    assert torch.allclose(soft_loss(output, target, 20, weights), soft * 4 / 3)


@pytest.mark.parametrize("views", [False, True])
def test_weights_are_mixed_as_pixels_are(views, run):
    """Each image shows its own weight in every pixel: what it counts is the mean of what is seen after CutMix."""
    raw = read_raw_set(run.path).by_weight()
    data = prepared_set(raw, raw.classes, Shape(8, 8, 1))
    assert data.name == "run (weighted)"
    assert data.weights.mean() == pytest.approx(1)
    levels = (data.weights * 50).round()
    shown = replace(data, weights=levels, images=levels.byte()[:, None, None, None].expand(-1, 1, 8, 8).contiguous())
    soft = resolved(PROTOCOLS["rded-soft"], num_images=40, num_classes=10, source_size=8)
    protocol = replace(soft, augmentation=("cutmix", "normalise"), batch_size=10, size=8)
    if views:
        drawn = draw_views(40, 2, protocol.augmentation, 8, seed=3)
        coded = {"logits": np.zeros((40, 2, 10), np.float16)}
        shown = replace(shown, soft=SoftLabels(coded, tuple(range(10)), drawn, "none"))
    mean, std = channel_statistics(shown.images, protocol)
    for scheduled_step in scheduled(40, 10, 1, 2, full=False):
        normalise = normaliser(shown.images, protocol)
        batch = augmented(shown, protocol, normalise, 1, torch.contiguous_format, scheduled_step)
        seen = (batch.images * std[0] + mean[0]).mean((1, 2, 3)) * 255
        assert torch.allclose(batch.weights, seen, atol=1e-2)
        assert [len(part.weights) for part in batch.split(4)] == [4, 3, 3]
