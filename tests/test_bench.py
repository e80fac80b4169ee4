"""`dmgd bench` as a user runs it: what it compares, what it refuses, and that it goes on where it was stopped."""

import json
import re
from dataclasses import replace
from datetime import date
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import dmgd
import dmgd.files
from dmgd.errors import MismatchError, UsageError
from dmgd.evaluation import training_work
from dmgd.evaluation.augmentation import to_unit
from dmgd.evaluation.bench_config import BenchConfig
from dmgd.evaluation.estimate import Estimate, TrainingTime
from dmgd.evaluation.imageset import Shape, source_set
from dmgd.evaluation.protocols import PROTOCOLS, resolved
from dmgd.evaluation.teacher import open_teacher
from dmgd.exporters.soft_labels import open_labels
from dmgd.matching.methods import METHODS
from dmgd.sources.digits import DigitsSource
from dmgd.sources.open import open_source

PLAIN = replace(METHODS["dit"](), steps=2, solver="ddim")
SMALL = {"methods": {"plain": PLAIN, "random": "random", "kmeans-real": "kmeans-real"}, "ipc": (1,), "epochs": 1}
SIZES = {"num_images": 10, "num_classes": 10, "source_size": 8}
COMMAND = ("bench", "--source", "digits", "--methods", "random,full", "--ipc", 1, "--seeds", 2, "--epochs", 1)


@pytest.fixture
def trained(monkeypatch):
    """The set, the network and the seed of every training from now on; throwaway ones are left out."""
    done, train = [], training_work.train

    def noted(data, test, protocol, seed, **more):
        done.append((data.name, protocol.network, seed))
        return train(data, test, protocol, seed, **more)

    monkeypatch.setattr(training_work, "train", noted)
    return done


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small bench that nothing has disturbed."""
    return dmgd.bench("digits", out=tmp_path_factory.mktemp("bench") / "whole", seeds=2, **SMALL)


def accuracies(comparison):
    """What does not depend on how fast the machine is."""
    rows = comparison.to_json()["rows"]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def by_seed(comparison):
    return {row["method"]: {one["seed"]: one["top1"] for one in row["by_seed"]} for row in accuracies(comparison)}


def tree(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_bench_that_is_repeated_trains_nothing_and_writes_the_same(inline, tmp_path, trained, monkeypatch):
    """On another day, too; the report is not drawn again."""
    out = tmp_path / "bench"
    first = inline(*COMMAND, "--out", out)
    assert re.search(r"^about \d.*: 4 trainings \(", first.stderr, re.MULTILINE)
    drawn = [
        ("random, IPC 1, seed 0", 0),
        ("full, all images", 0),
        ("random, IPC 1, seed 1", 1),
        ("full, all images", 1),
    ]
    assert trained == [(name, "convnet-2-w64", seed) for name, seed in drawn]
    monkeypatch.setattr("dmgd.workflows.bench.date", SimpleNamespace(today=lambda: date(2100, 1, 1)))
    monkeypatch.setattr("dmgd.evaluation.bench_files.write_bench_report", None)
    before, again = tree(out), inline(*COMMAND, "--out", out)
    assert "all runs and trainings are there" in again.stderr
    assert (again.stdout, tree(out), len(trained)) == (first.stdout, before, 4)
    result = json.loads((out / "bench.json").read_text())
    assert [(row["method"], row["ipc"], row["images"], row["pixels"]) for row in result["rows"]] == [
        ("random", 1, 10, 640), ("full", None, 1257, 80448)]  # fmt: skip
    assert "--methods random,full --ipc 1 --seeds 2 --epochs 1" in result["settings"]["command"]
    assert {"table.md", "table.csv", "table.tex", "report.html"} <= {path.name for path in before}


def test_a_bench_that_is_killed_again_and_again_does_nothing_twice(tmp_path, trained, monkeypatch, whole):
    """Each attempt ends after so many files. What was being trained then is trained again, and nothing else."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sync, attempts, done = dmgd.files.sync, 0, None
    while done is None:
        attempts, left = attempts + 1, [40]

        def killed(path, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            sync(path)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dmgd.files.sync", killed)
            try:
                done = dmgd.bench("digits", out=tmp_path / "bench", seeds=2, **SMALL)
            except KeyboardInterrupt:
                assert sorted(set(trained)) == sorted(trained[: len(set(trained))])
    assert attempts > 2
    assert accuracies(done) == accuracies(whole)
    kept = len(list((tmp_path / "cache").rglob("scores/*.json")))
    assert kept == len(set(trained)) == 6
    assert len(trained) <= 6 + attempts


def test_more_seeds_and_methods_add_to_what_is_there(tmp_path, trained, whole):
    settings = {**SMALL, "methods": {"random": "random", "full": "full"}, "seeds": 3, "repeats": 2}
    dmgd.bench("digits", out=tmp_path / "bench", seeds=2, **{**SMALL, "methods": ("random",)})
    trained.clear()
    more = dmgd.bench("digits", out=tmp_path / "bench", **settings)
    assert sorted(seed for name, _, seed in trained if "random" in name) == [2, 1000, 1001, 1002]
    random = next(row["by_seed"] for row in accuracies(more) if row["method"] == "random")
    first = {one["seed"]: one["top1"] for one in random if one["repeat"] == 0}
    assert {seed: first[seed] for seed in (0, 1)} == by_seed(whole)["random"]
    assert {row["top1"]["n"] for row in accuracies(more)} == {6}


def test_the_estimate_draws_no_random_number(tmp_path, whole):
    torch.manual_seed(7)
    before, said = torch.random.get_rng_state(), []
    done = dmgd.bench("digits", out=tmp_path / "bench", seeds=2, on_estimate=said.append, **SMALL)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert accuracies(done) == accuracies(whole)
    assert said[0].runs == 2
    assert said[0].seconds > 0


def test_the_estimate_says_what_makes_a_bench_long():
    short, long = TrainingTime("convnet-3", 30, 0.1, 4.0), TrainingTime("resnet-18", 30, 52.0, 104_000.0)
    assert str(Estimate(30, 60.0, (short,))) == "about 3 min: 30 runs (60 s), 30 trainings (2 min)"
    assert "resnet-18 52 s an epoch, about 28.9 h each: --epochs shortens it)" in str(Estimate(0, 0.0, (short, long)))
    assert str(Estimate(0, 0.0, ())) == "all runs and trainings are there"


def test_seeds_pair_methods_and_tell_repeats_apart():
    config = BenchConfig(methods=("dit", "random", "full"), ipc=(1, 10), seeds=2, repeats=2)
    seeds = {(one.row, one.ipc, one.seed): config.seeds_of(one) for one in config.sets()}
    assert len(seeds) == 2 * (2 * 2 + 1)
    assert {of for (_, _, seed), of in seeds.items() if seed == 1} == {(1, 1001)}


def test_methods_with_other_settings_have_runs_of_their_own():
    variants = {"dit": "dit", "short": PLAIN, "long": replace(PLAIN, steps=3)}
    sets = BenchConfig(methods=variants, ipc=(1,), seeds=1).sets()
    assert len({one.name("digits") for one in sets}) == 3
    assert sets[0].name("digits") == "digits-ipc1-dit-seed0"


def test_ars_trains_with_and_without_augmentation(inline, tmp_path):
    methods = ("--methods", "random,kmeans-real", "--ipc", 1, "--seeds", 1, "--epochs", 1, "--ars", "--json")
    rows = json.loads(inline("bench", "--source", "digits", *methods, "--out", tmp_path / "bench").stdout)["rows"]
    assert [row["method"] for row in rows] == ["random", "kmeans-real"]
    assert all(row["ars"] and row["top1_without_augmentation"]["n"] == 1 for row in rows)


def test_mosaics_stand_beside_plain_sets_of_the_same_storage(inline, tmp_path, trained):
    out, plain_and_mosaics = tmp_path / "bench", {**SMALL, "ipc": (1, 4), "tiles": (1, 2), "seeds": 1}
    result = dmgd.bench("digits", out=out, **plain_and_mosaics).to_json()
    sizes = {
        (row["method"], row["ipc"]): (row["images"], row["stored_images"], row["pixels"]) for row in result["rows"]
    }
    assert len(sizes) == 12
    for method in ("plain", "random", "kmeans-real"):
        assert sizes[method, 4] == (40, 40, 40 * 64)
        assert sizes[f"{method} 2×2", 4] == (160, 40, 40 * 64)
    against = {row["method"]: row["against"] for row in result["rows"] if row["ipc"] == 4}
    assert {title: one["name"] for title, one in against["plain 2×2"].items()}.items() >= {
        ("random", "random 2×2"), ("without mosaics", "plain")}  # fmt: skip
    assert against["plain 2×2"]["strongest selection"]["name"].endswith(" 2×2")
    assert {title: one["name"] for title, one in against["random 2×2"].items()} == {"without mosaics": "random"}
    assert not any("2×2" in one["name"] for one in against["plain"].values())
    assert "| plain 2×2 | 4 | 160 parts in 40 | 2,560 |" in (out / "table.md").read_text()
    runs = sorted(path.name for path in (out / "runs").iterdir())
    assert [name.split("-")[1] for name in runs] == ["ipc1", "ipc16", "ipc4"]
    # The same as evaluate trains on.
    trained.clear()
    run = next(path for path in (out / "runs").iterdir() if re.search("-ipc16-.*-seed0", path.name))
    inline("evaluate", run, "--tiles", 2, "--against", "random,kmeans-real", "--epochs", 1, "--repeats", 1)
    assert trained == []


@pytest.fixture(scope="module")
def teacher(inline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "T"
    inline("train-teacher", "--source", "digits", "--network", "convnet-2-w32", "--epochs", 2, "--out", folder)
    return folder


def test_stored_labels_stand_beside_those_of_the_protocol(inline, tmp_path, trained, teacher):
    out, small = tmp_path / "bench", {**SMALL, "networks": ("convnet-1-w8",), "seeds": 1, "tiles": (1, 2)}
    small["methods"] = {"plain": PLAIN, "random": "random", "full": "full"}
    labelled = {**small, "labels": ("own", "soft", "soft-3"), "teacher": str(teacher)}
    result = dmgd.bench("digits", out=out, **labelled).to_json()
    rows = {row["method"]: row for row in result["rows"]}
    assert len(rows) == 2 * 2 * 3 + 1
    bytes_of = {name: row["label_bytes"] for name, row in rows.items()}
    assert bytes_of["plain"] == bytes_of["full"] == 0 < bytes_of["plain soft"] < bytes_of["plain soft-3"]
    assert bytes_of["random 2×2 soft-3"] > 3 * bytes_of["random soft-3"]
    assert {name: row["budget"]["loss"] for name, row in rows.items() if row["budget"]["loss"] == "hard"}.keys() == {
        *("plain", "random", "plain 2×2", "random 2×2", "full")}  # fmt: skip
    assert rows["plain 2×2 soft-3"]["budget"]["teacher"]["name"] == "T"
    assert {title: one["name"] for title, one in rows["plain 2×2 soft-3"]["against"].items()} == {
        **dict.fromkeys(("random", "strongest selection"), "random 2×2 soft-3"),
        **{"without mosaics": "plain soft-3", "own labels": "plain 2×2"},
    }
    assert all(rows[name]["lrs"] and rows[name]["seconds"]["labelling"] for name in ("plain soft", "plain 2×2 soft-3"))
    assert not any(line.startswith("unequal budgets, IPC") for line in result["warnings"])
    assert f"| random soft-3 | 1 | 10 | 640 | 1.2 kB | {bytes_of['random soft-3'] / 1000:.1f} kB |" in (
        out / "table.md").read_text()  # fmt: skip

    # Nothing is done twice; damaged labels are made again, with the same bytes.
    before, count = tree(out), len(trained)
    (out / "labels" / "digits-ipc1-random-seed0-soft" / "soft_labels.safetensors").write_bytes(b"")
    dmgd.bench("digits", out=out, **labelled)
    took = {out / "sets" / "digits-ipc1-random-seed0-soft.json", *(out / name for name in ("bench.json", "table.csv"))}
    changed = {path for path, data in tree(out).items() if before[path] != data}
    assert changed <= {*took, *(out / name for name in ("table.md", "table.tex", "report.html"))}
    assert len(trained) == count

    # The labels are those of relabel, and evaluate trains as bench does.
    run = next(path for path in (out / "runs").iterdir() if "-ipc4-" in path.name)
    labels = out / "labels" / f"{run.name}-2x2-soft-3-quick-8px"
    asked = ("--tiles", 2, "--views", 3, "--protocol", "quick", "--size", 8, "--teacher", teacher, "--out", labels)
    assert "is finished, and left as it is" in inline("relabel", run, *asked).stderr
    asked = ("--tiles", 2, "--labels", labels, "--against", "", "--epochs", 1, "--repeats", 1)
    inline("evaluate", run, *asked, "--network", "convnet-1-w8")
    assert len(trained) == count

    other = teacher.with_name("other")
    inline("train-teacher", "--source", "digits", "--network", "convnet-1-w16", "--epochs", 2, "--out", other)
    with pytest.raises(MismatchError, match=r"labels/digits-ipc1-.*-soft contains .* other settings: teacher"):
        dmgd.bench("digits", out=out, **{**labelled, "teacher": str(other)})


def test_real_images_are_labelled_whatever_their_sizes(tmp_path, teacher):
    for split in ("train", "test"):
        for i, one in enumerate(DigitsSource().images(split)):
            if i < 60:
                path = tmp_path / "data" / split / str(one.label) / f"{i:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                one.image.resize((9 + i % 3, 8)).save(path)
    source, out = open_source(f"folder:{tmp_path / 'data'}"), tmp_path / "bench"
    terms = {"networks": ("convnet-1-w8",), "epochs": 1, "labels": ("soft",), "teacher": str(teacher)}
    dmgd.bench(source, methods=("random",), ipc=(2,), seeds=1, out=out, **terms)
    record = json.loads((out / "sets" / "data-ipc2-random-seed0.json").read_text())
    train, test = (source_set(source, split, split, Shape(8, 8, 1)) for split in ("train", "test"))
    network = open_teacher(str(teacher), resolved(PROTOCOLS["quick"], **SIZES), test).network.on_unit()
    wanted = network(to_unit(train.images[record["ordinals"]])).numpy().astype(np.float16)
    found = open_labels(out / "labels" / "data-ipc2-random-seed0-soft").tensors["logits"]
    assert len(found) == 20
    assert np.array_equal(found, wanted)


def test_mosaics_that_images_of_a_class_do_not_fill_are_refused(inline, tmp_path):
    large = ("--methods", "random", "--ipc", 50, "--tiles", 2, "--seeds", 1)
    error = inline("bench", "--source", "digits", *large, "--out", tmp_path / "bench", code=2).stderr
    said = (
        r"error: random 2×2, IPC 50, seed 0 needs 200 images of each class, and there are \d+ of 0; choose an IPC of at"
    )
    assert re.search(said, error)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--methods", "dmgd,randon"), "unknown method 'randon'; did you mean 'random'?"),
        (("--methods", "random,random"), "random is given twice"),
        (("--methods", ","), "methods must not be empty"),
        (("--ipc", "1,ten"), "ipc must be whole numbers, comma-separated, not 'ten'"),
        (("--ipc", "0"), "ipc must be at least 1, not 0"),
        (("--tiles", "0"), "tiles must be at least 1, not 0"),
        (("--tiles", "3"), "images of 8×8 pixels, which have no 3×3 parts of whole pixels"),
        (("--seeds", "0"), "seeds must be at least 1"),
        (("--networks", "convnet-2,probe"), "dmgd evaluate --network probe"),
        (("--networks", "vgg"), "unknown network 'vgg'"),
        (("--networks", "resnet-18"), "resnet-18 needs images of at least 16 pixels, not 8"),
        (("--protocols", "quick,rded"), "unknown protocol 'rded'; did you mean 'rded-soft'?"),
        (("--protocols", "rded-soft"), "needs a teacher"),
        (("--teacher", "some/teacher"), "a teacher has no effect"),
        (("--labels", "hard"), "labels are own, soft, or soft-N of N views of each image, not 'hard'"),
        (("--labels", "own,soft"), "the labels soft need a teacher"),
        (
            ("--labels", "soft", "--teacher", "T", "--protocols", "dsa"),
            "the step sizes of dsa are those of hard labels",
        ),
        (("--labels", "soft-2", "--teacher", "T", "--ars"), "ars trains without augmentation, which the labels soft-2"),
        (("--size", "2"), "the image size must be at least 4 pixels, not 2"),
    ],
)
def test_wrong_usage_is_one_line_before_any_work(inline, tmp_path, arguments, said):
    error = inline(*COMMAND, "--out", tmp_path / "bench", *arguments, code=2).stderr
    assert said in error.splitlines()[-1]
    assert not (tmp_path / "bench").exists()


def test_a_folder_of_others_is_left_alone(inline, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert "is not a bench (it holds notes.txt)" in inline(*COMMAND, "--out", tmp_path, code=2).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_with_other_settings_in_the_place_of_ours_is_refused(tmp_path):
    run = tmp_path / "bench" / "runs" / "digits-ipc1-dit-seed0"
    dmgd.distill("digits", ipc=1, method=PLAIN, out=run)
    with pytest.raises(MismatchError, match="contains a run with other settings"):
        dmgd.bench("digits", out=tmp_path / "bench", methods=("dit",), ipc=(1,), seeds=1, epochs=1)


def test_test_images_are_not_trained_on(tmp_path, monkeypatch):
    images = DigitsSource.images
    monkeypatch.setattr(DigitsSource, "images", lambda self, split: images(self, "test"))
    with pytest.raises(MismatchError, match="images of random, IPC 1, seed 0 are among the 540 test images"):
        dmgd.bench("digits", out=tmp_path / "bench", methods=("random",), ipc=(1,), seeds=1, epochs=1)


def test_settings_are_checked_from_python_too(tmp_path):
    with pytest.raises(UsageError, match="methods must be several names, not 'dmgd'"):
        BenchConfig(methods="dmgd")
    with pytest.raises(UsageError, match="unexpected keyword argument 'ipcs'"):
        dmgd.bench("digits", out=tmp_path / "bench", ipcs=(1,))
