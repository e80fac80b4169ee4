"""Soft labels on disk: what they hold, what they cost, and what is trained and exported with them."""

import json
import shutil
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
from made_run import forge, tree
from safetensors.numpy import load_file, save_file

import dmgd
from dmgd.errors import ArtifactError
from dmgd.evaluation.augmentation import augment, channel_statistics, normaliser, to_unit
from dmgd.evaluation.imageset import Shape, prepared_set, source_set
from dmgd.evaluation.inputs import read_raw_set
from dmgd.evaluation.protocols import PROTOCOLS, resolved
from dmgd.evaluation.steps import augmented, scheduled
from dmgd.evaluation.stored_labels import soft_labels
from dmgd.evaluation.teacher import open_teacher
from dmgd.evaluation.train import train
from dmgd.evaluation.views import draw_views, stored_views
from dmgd.exporters.logits import Coding, decode, probabilities
from dmgd.exporters.soft_labels import open_labels
from dmgd.files import sha256_file
from dmgd.sources.open import open_source

SOFT = resolved(PROTOCOLS["rded-soft"], num_images=100, num_classes=10, source_size=8)


@pytest.fixture(scope="module")
def made(inline, tmp_path_factory):
    """A folder with a teacher, a run of 40 real digits, and labels of it: of the images, and of three views of each."""
    folder = tmp_path_factory.mktemp("labels")
    inline("train-teacher", "--source", "digits", "--network", "convnet-2-w32", "--epochs", 2, "--out", folder / "T")
    dmgd.distill("digits", "digits", method="random", ipc=4, out=folder / "run")
    dmgd.distill("digits", "digits", method="random", ipc=4, seed=1, out=folder / "other")
    for name, options in (("plain", ()), ("views", ("--views", 3))):
        inline("relabel", folder / "run", "--teacher", folder / "T", *options, "--out", folder / name)
    return folder


def labelled(made):
    """The set as it is trained on, and the teacher of images in [0, 1]."""
    test = source_set(open_source("digits"), "test", "test", Shape(8, 8, 1))
    data = prepared_set(read_raw_set(made / "run"), test.classes, Shape(8, 8, 1))
    return data, open_teacher(str(made / "T"), SOFT, test).network.on_unit()


@pytest.mark.parametrize(("bits", "top_k", "worst"), [(16, None, 2e-3), (8, None, 0.02), (16, 20, 0.02), (8, 20, 0.03)])
def test_logits_in_few_bytes_are_nearly_the_same(bits, top_k, worst):
    logits = (np.random.default_rng(0).normal(size=(30, 3, 100)) * 4).astype(np.float32)
    stored = Coding(bits, top_k, temperature=2).encode(logits)
    kept, wanted = (probabilities(one, 2) for one in (decode(stored, 100), logits))
    off = np.abs(kept - wanted)
    assert off.max() < worst
    if top_k:
        largest = wanted.argsort(-1)[..., -top_k:]
        both = (np.take_along_axis(one, largest, -1).sum(-1) for one in (kept, wanted))
        assert np.allclose(*both, atol=worst)  # the others keep their probability
    assert sum(one.nbytes for one in stored.values()) < logits.nbytes * (0.51 if bits == 16 else 0.28)


def test_labels_are_the_teachers_logits_in_half_precision(made):
    data, teacher = labelled(made)
    labels, wanted = open_labels(made / "plain"), teacher(to_unit(data.images)).numpy()
    assert np.array_equal(labels.tensors["logits"], wanted.astype(np.float16))
    assert labels.keys == [record.key for record in dmgd.open_run(made / "run").records()]
    assert labels.index["set"]["images"] == 40
    assert labels.index["errors"]["1"]["largest"] < 1e-3


def test_labels_of_views_are_of_the_views_that_their_numbers_make(made):
    data, teacher = labelled(made)
    labels = open_labels(made / "views")
    arrays = labels.numbers
    views = stored_views(arrays, 3, labels.index["augmentation"], 8)
    chosen = torch.tensor([7, 3, 21])
    for view in range(3):
        images = views.of(data.images, chosen, view, lambda images: images)
        assert not torch.equal(images, to_unit(data.images[chosen]))
        wanted = teacher(images).numpy().astype(np.float16)
        assert np.allclose(labels.tensors["logits"][chosen, view], wanted, atol=2e-2)
    again = draw_views(40, 3, SOFT.augmentation, 8, 0).arrays()
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[name], arrays[name]) for name in again)


def test_a_mixed_view_has_its_box_from_the_partners_view(made):
    data, _ = labelled(made)
    views = draw_views(40, 1, ("flip", "cutmix"), 8, 0)
    flipped, (partners, boxes) = views.numbers["flip"][0][:, 0], (one[:, 0] for one in views.numbers["cutmix"])
    alone = to_unit(data.images)
    alone[flipped] = alone[flipped].flip(3)
    mixed = views.of(data.images, torch.arange(40), 0, lambda images: images)
    for i, (top, left, bottom, right) in enumerate(boxes.tolist()):
        wanted = alone[i].clone()
        wanted[:, top:bottom, left:right] = alone[int(partners[i]), :, top:bottom, left:right]
        assert torch.equal(mixed[i], wanted)
    assert len(set(map(tuple, boxes.tolist()))) > 20


def test_relabelling_says_what_it_costs_and_gives_the_same_bytes(made, tmp_path, inline):
    asked = ("relabel", made / "run", "--teacher", made / "T", "--views", 3)
    said = inline(*asked, "--bits", 8, "--top-k", 3, "--out", tmp_path / "small").stdout
    index = open_labels(tmp_path / "small").index
    assert f"{index['bytes']:,} bytes of labels beside {index['set']['image_bytes']:,} bytes of images" in said
    assert f"at temperature 1: largest {index['errors']['1']['largest']:.2g}" in said
    assert index["bytes"] < open_labels(made / "views").index["bytes"]
    inline(*asked, "--out", tmp_path / "again")
    assert tree(tmp_path / "again") == tree(made / "views")
    assert "is finished, and left as it is" in inline(*asked, "--out", made / "views").stderr
    other = inline(*asked, "--seed", 1, "--out", made / "views", code=1).stderr
    assert "seed: 0 there, 1 requested" in other


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--bits", 4), 2, "bits must be 16 or 8, not 4"),
        (("--top-k", 10), 2, "top-k 10 leaves none of the 10 classes out"),
        (("--views", 2, "--protocol", "dsa"), 2, "views cannot be stored of the augmentation dsa"),
    ],
)
def test_what_cannot_be_stored_is_refused(options, code, said, made, tmp_path, inline):
    asked = ("relabel", made / "run", "--teacher", made / "T", *options, "--out", tmp_path / "L")
    assert said in inline(*asked, code=code).stderr
    assert not (tmp_path / "L").exists()


def test_a_teacher_near_chance_labels_nothing(made, tmp_path, inline):
    shutil.copytree(made / "T", tmp_path / "T")
    weights = {name: one * 0 for name, one in load_file(tmp_path / "T" / "teacher.safetensors").items()}
    save_file(weights, tmp_path / "T" / "teacher.safetensors")
    forge(tmp_path / "T" / "teacher.json", lambda d: d.update(sha256=sha256_file(tmp_path / "T/teacher.safetensors")))
    said = inline("relabel", made / "run", "--teacher", tmp_path / "T", "--out", tmp_path / "L", code=1).stderr
    assert "chance is 10.0 %" in said
    assert not (tmp_path / "L").exists()


def test_changed_labels_and_missing_rows_are_named(made, tmp_path):
    shutil.copytree(made / "plain", tmp_path / "L")
    file, index = tmp_path / "L" / "soft_labels.safetensors", tmp_path / "L" / "soft_labels.json"
    save_file({"logits": load_file(file)["logits"][:-1]}, file, {"keys": json.dumps(["x"] * 39)})
    with pytest.raises(ArtifactError, match=r"are damaged \(soft_labels.safetensors: was changed"):
        open_labels(tmp_path / "L")
    forge(index, lambda content: content.update(sha256=sha256_file(file)))
    with pytest.raises(ArtifactError, match="has labels of 39 of its 40 images; make the labels again"):
        open_labels(tmp_path / "L")


def test_training_on_stored_views_is_that_on_the_teachers_labels_of_them(made):
    """Stored in half precision is what the teacher says of the batch itself, and trains to the same accuracy."""
    data, teacher = labelled(made)
    test = source_set(open_source("digits"), "test", "test", Shape(8, 8, 1))
    soft = soft_labels(open_labels(made / "views"), data.classes)
    stored = replace(data, soft=soft)
    protocol = soft.protocol(replace(SOFT, network="convnet-1-w16", size=8, epochs=8, batch_size=10))
    normalise = normaliser(data.images, protocol)
    online = teacher.given(*channel_statistics(data.images, protocol))
    batches = scheduled(40, 10, 0, 8, full=False)
    for step, chosen in batches:
        batch = augmented(stored, protocol, normalise, 0, torch.contiguous_format, (step, chosen))
        assert torch.allclose(batch.logits, online(batch.images), atol=0.02)
    assert soft.view_of(7) == 1

    exact = torch.stack([teacher(soft.views.of(data.images, torch.arange(40), v, lambda x: x)) for v in range(3)], 1)
    online = replace(data, soft=replace(soft, coded={"logits": exact.numpy()}))
    one, other = (train(each, test, protocol, 0) for each in (stored, online))
    assert abs(one.last - other.last) < 2
    assert one.curve[-1][2] == pytest.approx(other.curve[-1][2], rel=0.01)


def test_without_views_partners_share_their_labels_as_their_pixels(made):
    data, _ = labelled(made)
    soft = soft_labels(open_labels(made / "plain"), data.classes)
    protocol = replace(SOFT, size=8, augmentation=("normalise", "cutmix"))
    normalise, step = normaliser(data.images, protocol), (0, torch.arange(40))
    batch = augmented(replace(data, soft=soft), protocol, normalise, 0, torch.contiguous_format, step)
    _, own, partners = augment(data.images, protocol, normalise, torch.Generator().manual_seed(0))
    target, parts = (one.div(20).softmax(1) for one in (batch.logits, soft.logits(torch.arange(40), None)))
    assert 0 < own < 1
    assert torch.allclose(target, own * parts + (1 - own) * parts[partners], atol=1e-6)


def evaluated(inline, *arguments, code=0):
    options = ("--network", "convnet-1-w8", "--epochs", 2, "--repeats", 1, "--json")
    return inline("evaluate", *arguments, *options, code=code)


def test_an_evaluation_trains_on_the_labels_of_its_sets(made, inline):
    done = evaluated(inline, made / "run", "--labels", made / "views", "--against", "random")
    result = json.loads(done.stdout)
    assert [score["name"] for score in result["scores"]] == ["run (soft labels)", "random"]
    assert (result["settings"]["protocol"]["loss"], result["settings"]["protocol"]["size"]) == ("soft", 8)
    assert result["settings"]["labels"][0]["views"] == 3
    assert "ior" not in result
    assert "soft labels of 3 views of each image of run by T" in done.stderr
    again = evaluated(inline, made / "run", "--labels", made / "views", "--against", "random")
    assert "2 of the 2 trainings are known" in again.stderr
    other = evaluated(inline, made / "run", "--labels", made / "plain", "--against", "")
    assert "are known" not in other.stderr


def test_labelled_runs_that_differ_in_their_seeds_are_one_row(made, tmp_path, inline):
    others = ("relabel", made / "other", "--teacher", made / "T", "--views", 3)
    inline(*others, "--seed", 1, "--out", tmp_path / "views")
    inline(*others, "--seed", 1, "--bits", 8, "--out", tmp_path / "other")
    small = ("--network", "convnet-1-w8", "--epochs", 2, "--json")

    def scores(*arguments):
        return json.loads(inline("evaluate", *arguments, *small).stdout)["scores"]

    both = made / "run", "--against", made / "other", "--repeats", 2, "--labels"
    (row,) = scores(*both, f"{made / 'views'},{tmp_path / 'views'}")
    assert row["name"] == "run (soft labels, 2 seeds)"
    (own,) = scores(made / "run", "--against", "", "--repeats", 1, "--labels", made / "views")
    asked = ("--against", "", "--repeats", 1, "--seed", 1, "--labels", tmp_path / "views")
    (next_seed,) = scores(made / "other", *asked)
    assert row["top1_by_seed"] == {**own["top1_by_seed"], **next_seed["top1_by_seed"]}
    unlike = scores(*both, f"{made / 'views'},{tmp_path / 'other'}")
    assert [score["name"] for score in unlike] == ["run (soft labels)", f"{made / 'other'} (soft labels)"]


def test_labels_that_do_not_fit_are_refused_by_name(made, tmp_path, inline):
    plain, views = (("--labels", made / name) for name in ("plain", "views"))
    other = evaluated(inline, made / "other", *plain, code=1).stderr
    assert f"{made / 'plain'} has the labels of another set than other; make labels of it with dmgd relabel" in other
    assert (
        "has labels of views of 8 pixels, not 16"
        in evaluated(inline, made / "run", *views, "--size", 16, code=1).stderr
    )
    soft = ("--protocol", "rded-soft", "--size", 8, *plain)
    assert "random has no stored labels" in evaluated(inline, made / "run", *soft, code=2).stderr
    sgd = evaluated(inline, made / "run", "--protocol", "minimax-sgd", *plain, code=2).stderr
    assert "the step sizes of minimax-sgd are those of hard labels" in sgd
    assert "no soft labels" in evaluated(inline, made / "run", "--labels", tmp_path, code=2).stderr
    dmgd.distill("digits", "digits", method="random", ipc=5, out=tmp_path / "five")
    said = evaluated(inline, tmp_path / "five", *plain, code=1).stderr
    assert "has the labels of another set than five, of 40 images and not 50" in said


@pytest.mark.parametrize("layout", ["webdataset", "parquet", "imagefolder", "tensors"])
def test_exports_carry_the_labels_and_verify_sees_a_changed_one(layout, made, tmp_path, inline):
    views, out = open_labels(made / "views"), tmp_path / "views"
    inline("export", made / "run", "--format", layout, "--labels", made / "views", "--out", out)
    assert tree(made / "views").items() <= tree(out).items()
    card = (out / "README.md").read_text()
    assert f"the logits of 3 views of each image ({'+'.join(SOFT.augmentation)}) by T" in card
    assert f"{views.index['bytes']:,} bytes beside {views.index['set']['image_bytes']:,} bytes of images" in card
    assert json.loads(inline("verify", out, "--json").stdout)["equal"]
    if layout != "tensors":
        rows = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
        assert len(rows) == 40
    data = bytearray((out / "soft_labels.safetensors").read_bytes())
    data[-1] ^= 1
    (out / "soft_labels.safetensors").write_bytes(data)
    assert "soft_labels.safetensors: was changed" in inline("verify", out, code=1).stdout


@pytest.fixture(scope="module")
def parts(made, inline):
    """Labels of the parts of the run's mosaics, which are the images at half their side."""
    inline("relabel", made / "run", "--tiles", 2, "--teacher", made / "T", "--out", made / "parts")
    return made / "parts"


@pytest.mark.parametrize("layout", ["webdataset", "parquet", "imagefolder", "tensors"])
def test_an_export_in_mosaics_carries_the_labels_of_its_parts(layout, made, parts, tmp_path, inline):
    _, teacher = labelled(made)
    raw, out = read_raw_set(made / "run").in_mosaics(2), tmp_path / "E"
    data = prepared_set(raw, raw.classes, Shape(8, 8, 1))
    wanted = teacher(to_unit(data.images)).numpy().astype(np.float16)
    assert np.array_equal(open_labels(parts).tensors["logits"], wanted)
    inline("export", made / "run", "--format", layout, "--tiles", 2, "--labels", parts, "--out", out)
    assert "the logits of each part of the mosaics by T" in (out / "README.md").read_text()
    if layout == "tensors":
        beside = torch.load(out / "soft_labels.pt", weights_only=True).numpy()
    else:
        rows = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
        beside = np.array(rows["logits.npy" if layout == "webdataset" else "logits"])
    assert np.array_equal(beside, wanted.reshape(10, 4, 10).astype(np.float32))
    assert json.loads(inline("verify", out, "--json").stdout)["problems"] == []
    again = inline("relabel", out, "--teacher", made / "T", "--out", parts).stderr
    assert "is finished, and left as it is" in again  # the parts of the export are those of the run


def test_mosaics_are_trained_on_the_labels_of_their_parts_and_on_no_others(made, parts, tmp_path, inline):
    asked = ("--tiles", 2, "--labels")
    inline("export", made / "run", *asked, parts, "--out", tmp_path / "E")
    run = evaluated(inline, made / "run", *asked, parts, "--against", "random")
    own = evaluated(inline, tmp_path / "E", "--labels", "stored", "--against", "")
    one, other = (json.loads(done.stdout)["scores"][0] for done in (run, own))
    assert (one["tiles"], one["stored_images"], one["top1_by_seed"]) == (2, 10, other["top1_by_seed"])
    assert "1 of the 1 trainings are known" in own.stderr
    said = evaluated(inline, made / "run", *asked, made / "plain", code=1).stderr
    assert "another set than run in mosaics of 2×2; make labels of it with dmgd relabel --tiles 2" in said
    said = evaluated(inline, made / "run", "--labels", parts, code=1).stderr
    assert "another set than run, which has no mosaics; make labels of it with dmgd relabel" in said
    whole = ("export", made / "run", "--tiles", 2, "--labels", made / "plain", "--out", tmp_path / "F")
    assert "another set than run in mosaics of 2×2" in inline(*whole, code=1).stderr
    shutil.copy(made / "plain" / "soft_labels.json", tmp_path / "E")
    shutil.copy(made / "plain" / "soft_labels.safetensors", tmp_path / "E")
    digests = tree(made / "plain")
    forge(tmp_path / "E" / "index.json", lambda index: take(index, digests))
    assert "another set than this export in mosaics of 2×2" in inline("verify", tmp_path / "E", code=1).stdout


def take(index, digests):
    """Forge the digests of these files in an export's index."""
    for file in index["files"]:
        file["sha256"] = digests.get(file["path"], file["sha256"])


def test_the_bytes_of_a_run_in_mosaics_are_those_of_its_export(made, parts, tmp_path, inline):
    inline("export", made / "run", "--format", "imagefolder", "--tiles", 2, "--out", tmp_path / "E")
    stored = sum(path.stat().st_size for path in tmp_path.glob("E/*/*.png"))
    assert open_labels(parts).index["set"]["image_bytes"] == stored


def test_an_export_is_evaluated_with_its_own_labels_as_its_run_is(made, tmp_path, inline):
    inline("export", made / "run", "--labels", made / "views", "--out", tmp_path / "E")
    asked = ("--against", "")
    run = evaluated(inline, made / "run", "--labels", made / "views", *asked)
    own = evaluated(inline, tmp_path / "E", "--labels", "stored", *asked)
    one, other = (json.loads(done.stdout)["scores"][0] for done in (run, own))
    assert one["top1_by_seed"] == other["top1_by_seed"]
    assert "1 of the 1 trainings are known" in own.stderr


def test_labels_of_images_stand_beside_them_and_those_of_another_run_are_refused(made, tmp_path, inline):
    inline("export", made / "run", "--format", "tensors", "--labels", made / "plain", "--out", tmp_path / "E")
    beside = torch.load(tmp_path / "E" / "soft_labels.pt", weights_only=True).numpy()
    assert np.array_equal(beside, open_labels(made / "plain").tensors["logits"].astype(np.float32))
    other = ("export", made / "other", "--labels", made / "plain", "--out", tmp_path / "F")
    assert "has the labels of another set than other" in inline(*other, code=1).stderr
    inline("relabel", made / "other", "--teacher", made / "T", "--out", tmp_path / "others")
    for name in ("soft_labels.safetensors", "soft_labels.json"):
        shutil.copy(tmp_path / "others" / name, tmp_path / "E" / name)
    digests = tree(tmp_path / "others")
    forge(tmp_path / "E" / "index.json", lambda index: take(index, digests))
    assert "has the labels of another set than this export" in inline("verify", tmp_path / "E", code=1).stdout
