"""Every layout gives the same statistics; classes are matched by identity, never by order."""

import time

import pytest
from source_stand_ins import WNIDS, Picture, as_folder, as_parquet, as_shards, pictures, shuffled, small_prior

from dmgd.classes.imagenet import edition_warning, imagenet_classes, imagenet_subset
from dmgd.config import StatisticsConfig
from dmgd.errors import DmgdError, MismatchError, UsageError
from dmgd.images import image_bytes
from dmgd.priors.load import load_prior
from dmgd.sources.open import open_source
from dmgd.statistics.reading import SomeParts
from dmgd.workflows.fit_stats import fit_statistics

CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture(scope="module")
def prior_folder(tmp_path_factory):
    return small_prior(tmp_path_factory.mktemp("prior"))


def test_every_layout_and_order_gives_the_same_bytes(tmp_path, prior_folder, dmgd):
    found = pictures()
    layouts = {
        "folder": as_folder(tmp_path / "folder", found),
        "parquet": as_parquet(tmp_path / "parquet", found),
        "shards": as_shards(tmp_path / "shards", found),
        "shuffled parquet": as_parquet(tmp_path / "shuffled-parquet", shuffled(found)),
        "shuffled shards": f"{as_shards(tmp_path / 'shuffled-shards', shuffled(found))}/train-{{000..002}}.tar",
    }
    prior = load_prior(str(prior_folder))
    written = {}
    for name, path in layouts.items():
        source = open_source("imagenette", data=str(path))
        statistics = fit_statistics(source, prior, StatisticsConfig(k=3), workers=0)
        statistics.save(tmp_path / f"{name}.safetensors")
        written[name] = (tmp_path / f"{name}.safetensors").read_bytes()
    assert len(set(written.values())) == 1

    command = ["fit-stats", "--source", "imagenette", "--data", layouts["parquet"], "--prior", prior_folder, "--k", 3]
    done = dmgd(*command, "--out", tmp_path / "command", "--workers", 2, "--no-cache", OMP_NUM_THREADS="1")
    assert (tmp_path / "command").read_bytes() == written["folder"]
    assert "tench" in done.stdout
    assert "another variant" in done.stderr  # 140 images are not imagenette


def test_splits_of_every_layout(tmp_path):
    train, test = pictures(per_class=2), pictures(per_class=1, seed=1)
    folder = tmp_path / "folder"
    as_folder(folder / "train", train)
    as_folder(folder / "val", test)
    parquet = as_parquet(as_parquet(tmp_path / "parquet", train), test, "validation")
    shards = as_shards(as_shards(tmp_path / "shards", train), test, "val")
    expected = sorted((picture.label, len(picture.jpeg)) for picture in test)
    for path in (folder, parquet, shards):
        source = open_source("imagenette", data=str(path))
        items = [(source.classes[i.label].wnid, len(image_bytes(i.image))) for i in source.images("test")]
        assert sorted(items) == expected
        assert len(list(source.decoded("train"))) == 20
        assert source.fingerprint("test") != source.fingerprint("train")

    bare = open_source("imagenette", data=str(folder / "train"))
    with pytest.raises(UsageError, match="no test split"):
        list(bare.images("test"))
    apart = open_source("imagenette", data=str(folder / "train"), test_data=str(shards / "val-000.tar"))
    assert len(list(apart.images("test"))) == 10
    for whole in (folder, parquet, shards):
        beside = open_source("imagenette", data=str(folder / "train"), test_data=str(whole))
        assert len(list(beside.images("test"))) == 10, f"the test split of {whole.name} is {len(test)} images"


def test_of_shards_a_reader_reads_the_images_of_its_own_parts_alone(tmp_path, monkeypatch):
    source, read = open_source(f"wds:{as_shards(tmp_path, pictures())}"), []
    images = list(source.images("train"))
    monkeypatch.setattr("dmgd.images.open_regular", lambda path: read.append(path) or path.open("rb"))
    reader = SomeParts(source, 8, 1, mirror=False, threads=1)
    own = [label for start in (3, 9) for chunk in reader.part(start, 2) for label in chunk.labels]
    assert own == [images[i].label for i in (3, 4, 9, 10)]
    assert len(read) == 4


def labelled(tmp_path, labels) -> str:
    return str(as_folder(tmp_path / "data", [Picture(label, "one", b"") for label in labels]))


HUB_NAMES = [
    "tench", "English springer", "cassette player", "chain saw", "church", "French horn", "garbage truck", "gas pump",
    "golf ball", "parachute",
]  # fmt: skip


@pytest.mark.parametrize("labels", [WNIDS, HUB_NAMES, [name.upper().replace(" ", "_") for name in HUB_NAMES]])
def test_classes_are_found_by_wnid_and_by_any_name(tmp_path, labels):
    source = open_source("imagenette", data=labelled(tmp_path, labels))
    assert source.classes == imagenet_subset("imagenette")
    assert {item.name.split("/")[0]: item.label for item in source.images("train")} == {
        label: row for row, label in enumerate(labels)
    }


def test_a_class_map_names_the_classes(tmp_path):
    data = labelled(tmp_path, [str(number) for number in range(10)])
    with pytest.raises(MismatchError, match=r"missing: n01440764.*extra: 0, 1.*--class-map"):
        open_source("imagenette", data=data)
    mapping = tmp_path / "map.csv"
    mapping.write_text("".join(f"{9 - row},{wnid}\n" for row, wnid in enumerate(WNIDS)))
    source = open_source("imagenette", data=data, class_map=mapping)
    assert {item.name[0]: item.label for item in source.images("train")}["9"] == 0
    mapping.write_text('"10",n01440764\n')
    with pytest.raises(UsageError, match=r"has labels that .* lacks: 10"):
        open_source("imagenette", data=data, class_map=mapping)


def test_missing_extra_and_duplicate_classes_are_listed(tmp_path):
    with pytest.raises(MismatchError, match="missing: n03888257; extra: kite"):
        open_source("imagenette", data=labelled(tmp_path, [*WNIDS[:9], "kite"]))
    with pytest.raises(MismatchError, match="two labels for one class: n01440764, tench"):
        open_source("imagenette", data=labelled(tmp_path / "twice", [*WNIDS, "tench"]))


def test_a_subset_is_taken_out_of_the_whole_of_imagenet(tmp_path):
    names = [info.name for info in imagenet_classes()]
    names[517] = "crane2"  # as the Hub calls the machine
    data = labelled(tmp_path, [name.replace("/", "_") for name in names])
    woof = open_source("imagewoof", data=data)
    assert len(list(woof.images("train"))) == 10
    shards = as_shards(tmp_path / "shards", [Picture(name, "one", b"x") for name in names])
    assert len(list(open_source("imagewoof", data=str(shards)).images("train"))) == 10
    whole = open_source("imagenet-1k", data=data)
    assert sorted(item.label for item in whole.images("train")) == list(range(1000))


def test_cifar10_has_its_own_order_whatever_that_of_the_data(tmp_path):
    source = open_source(
        "cifar10", data=labelled(tmp_path, ["truck", "dog", *(n for n in CIFAR if n not in "truckdog")])
    )
    assert [info.name for info in source.classes] == CIFAR
    assert {CIFAR[item.label] for item in source.images("train") if "truck" in item.name} == {"truck"}
    assert "research" in source.licence


def test_the_prior_matches_names_and_refuses_ambiguous_ones(tmp_path, prior_folder):
    prior = load_prior(str(prior_folder))
    source = open_source(f"folder:{labelled(tmp_path, ['tench', 'n02102040', 'golf_ball'])}")
    assert [(info.identity, info.prior_index) for info in prior.match_classes(source.classes)] == [
        ("golf_ball", 574),
        ("n02102040", 217),
        ("tench", 0),
    ]
    for labels, message in (
        (["panther"], "several classes for the names of 1 of the 1 classes: panther"),
        (["tench", "Tinca tinca"], "the same class for 2 of the 2"),
        (["unicorn", "tench"], "lacks 1 of the 2 classes: unicorn"),
    ):
        source = open_source(f"folder:{labelled(tmp_path / labels[0], labels)}")
        with pytest.raises(MismatchError, match=message):
            prior.match_classes(source.classes)


def test_classes_of_other_data_come_in_one_order(tmp_path):
    found = pictures([f"class {number}" for number in range(11)], per_class=1)
    places = {"folder": as_folder(tmp_path / "f", found), "hf": as_parquet(tmp_path / "p", found)}
    orders = {kind: open_source(f"{kind}:{path}").classes for kind, path in places.items()}
    assert orders["folder"] == orders["hf"]
    assert [info.name for info in orders["hf"]][-2:] == ["class 9", "class 10"]


def test_saved_datasets_are_read_and_skipped_rows_are_not(tmp_path):
    from datasets import load_dataset

    names = [str(info.wnid) for info in imagenet_classes()]
    parquet = as_parquet(tmp_path / "parquet", [Picture(name, "one", b"x") for name in names])
    load_dataset(str(parquet)).save_to_disk(tmp_path / "saved")
    for path in (parquet, tmp_path / "saved"):
        items = list(open_source("imagewoof", data=str(path)).images("train"))
        assert sorted(item.label for item in items) == list(range(10))


def test_columns_are_found_or_named(tmp_path):
    from datasets import Dataset

    rows = {"photo": [{"bytes": picture.jpeg, "path": None} for picture in pictures(["a", "b"], 1)], "kind": ["a", "b"]}
    Dataset.from_dict(rows).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(UsageError, match=r"image column .* is not clear: none of photo, kind; say --columns"):
        open_source(f"hf:{tmp_path}")
    source = open_source(f"hf:{tmp_path}", columns="photo,kind")
    assert [info.name for info in source.classes] == ["a", "b"]
    assert [image.mode for image, _ in source.decoded("train")] == ["RGB", "RGB"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("imagenete", {}, "did you mean 'imagenette'"),
        ("imagenette", {"data": "/nowhere"}, "does not exist"),
        ("digits", {"data": "/nowhere"}, "takes no --data"),
        ("folder:/nowhere", {}, "does not exist"),
        ("wds:/nowhere/{0..3}.tar", {}, "4 of 4 shards are missing"),
        ("imagenette", {"variant": "64px"}, "known: full_size, 320px, 160px"),
    ],
)
def test_what_cannot_be_opened_is_reported(name, options, message):
    with pytest.raises(UsageError, match=message):
        open_source(name, **options)


@pytest.mark.parametrize("offline", ["0", "1"])
def test_offline_without_a_cache_suggests_three_ways_within_five_seconds(dmgd, tmp_path, offline):
    start = time.monotonic()
    # The endpoint refuses connections; without HF_HUB_OFFLINE the command has to find that out.
    environment = {"HF_HUB_OFFLINE": offline, "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = dmgd("fit-stats", "--source", "imagenette", code=1, cwd=tmp_path, **environment)
    assert time.monotonic() - start < 5
    assert all(way in done.stderr for way in ("HF_HOME", "--data PATH", "folder:PATH"))
    assert not list(tmp_path.iterdir())


def test_another_edition_is_reported():
    assert "fastai" in str(edition_warning("imagenette", [947] * 9 + [946]))
    assert edition_warning("imagenette", [1289] * 6 + [1290] * 4) is None
    assert "another variant" in str(edition_warning("imagenet-100", [500] * 100))
    assert edition_warning("folder:x", [1, 2]) is None


def test_a_label_that_only_the_test_split_has_is_refused(tmp_path):
    as_folder(tmp_path / "train", pictures(["a", "b"], 1))
    as_folder(tmp_path / "val", pictures(["a", "c"], 1))
    source = open_source(f"folder:{tmp_path}")
    with pytest.raises(MismatchError, match="label 'c', which the training split lacks"):
        list(source.images("test"))


def test_a_damaged_shard_is_named(tmp_path):
    root = as_shards(tmp_path, pictures(["a", "b"], 3))
    shard = root / "train-000.tar"
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(DmgdError, match=r"train-000\.tar is damaged"):
        open_source(f"wds:{root}")
