"""Named data arrives from the first place that has it, whole and verified; all servers are on the loopback."""

import hashlib
import io
import tarfile
import threading
import time
from pathlib import Path

import pytest
from hub_server import downloading
from recorder import Recorder
from source_stand_ins import as_folder, as_parquet, pictures

from dmgd.errors import DmgdError
from dmgd.network import reachable
from dmgd.progress import SILENT
from dmgd.sources import archives
from dmgd.sources.archives import Archive, fetch_archive
from dmgd.sources.open import open_source

NETTE, CONVERTED, ARCHIVE = "frgfm/imagenette", "refs/convert/parquet", "imagenette2-160.tgz"
CARD = b"---\nconfigs:\n- config_name: 160px\n  data_files:\n  - split: train\n    path: 160px/train/*\n---\n"
SCRIPT = {"imagenette.py": b"print('this is never run')", "README.md": b"a data set with a script"}


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    """Ten tiny classes as the Hub keeps them."""
    root = tmp_path_factory.mktemp("parquet")
    as_parquet(root, pictures(per_class=2))
    as_parquet(root, pictures(per_class=1, seed=1), split="validation")
    return {f"160px/{file.name.split('-')[0]}/0000.parquet": file.read_bytes() for file in root.iterdir()}


@pytest.fixture(scope="module")
def tgz(tmp_path_factory):
    """The same as fastai archives them."""
    root = tmp_path_factory.mktemp("archive")
    as_folder(root / "train", pictures(per_class=2))
    as_folder(root / "val", pictures(per_class=1, seed=1))
    return packed(lambda tar: tar.add(root, "imagenette2-160"))


def packed(add):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        add(tar)
    return data.getvalue()


@pytest.fixture
def servers(monkeypatch, tgz, tmp_path):
    """The Hub and fastai's server, and this process pointed to them."""
    with downloading(monkeypatch, tmp_path) as hub:
        pin(monkeypatch, tgz)
        yield hub


def pin(monkeypatch, data):
    archive = Archive("imagenette2-160", len(data), f"sha256:{hashlib.sha256(data).hexdigest()}")
    monkeypatch.setitem(archives.ARCHIVES, ("imagenette", "160px"), archive)
    return archive


def opened():
    said = Recorder()
    return open_source("imagenette", variant="160px", progress=said), said.notes


@pytest.mark.parametrize(
    ("fails", "comes_from", "tried"),
    [
        ((), "frgfm/imagenette 160px", 1),
        (("script",), "frgfm/imagenette 160px", 2),
        (("no repository",), "frgfm/imagenette 160px", 2),
        (("script", "no conversion"), "fastai's imagenette2-160", 3),
    ],
)
def test_data_comes_from_the_first_place_that_has_it(servers, parquet, tgz, fails, comes_from, tried):
    if "no repository" not in fails:
        servers.repos[NETTE, "main"] = SCRIPT if "script" in fails else {"README.md": CARD, **parquet}
    if "no conversion" not in fails:
        servers.repos[NETTE, CONVERTED] = parquet
    servers.archives[ARCHIVE] = tgz
    source, said = opened()
    assert source.variant == comes_from
    assert len(list(source.images("train"))) == 20
    assert [line.split(": trying ")[1] for line in said if ": trying " in line] == [
        "the Hub's frgfm/imagenette",
        "its refs/convert/parquet",
        "fastai's imagenette2-160.tgz",
    ][:tried]
    # It stays, and is not asked for again.
    servers.repos.clear()
    servers.archives.clear()
    servers.calls.clear()
    if tried > 1:
        again, said = opened()
        assert (again.variant, again.fingerprint("train"), said) == (source.variant, source.fingerprint("train"), [])
        assert not servers.calls


def test_all_failing_says_what_was_tried_and_how_to_go_on_within_five_seconds(servers):
    servers.repos[NETTE, "main"] = SCRIPT
    started = time.monotonic()
    with pytest.raises(DmgdError) as failed:
        opened()
    assert time.monotonic() - started < 5
    said = str(failed.value)
    assert "\n" not in said
    for part in ("scripts are no longer supported", CONVERTED, "imagenette2-160.tgz: the server answers 404", "--data"):
        assert part in said


def test_a_network_that_swallows_everything_is_given_up_soon(servers, monkeypatch):
    """All servers are asked at the same time, and none is waited for longer than the others."""
    swallowed = threading.Event()

    def connect(address, timeout):
        swallowed.wait(10)
        raise OSError

    monkeypatch.setattr("socket.create_connection", connect)
    started = time.monotonic()
    assert reachable("http://one.example", "http://two.example", "https://three.example", seconds=0.2) == set()
    assert time.monotonic() - started < 1
    swallowed.set()


def test_a_broken_download_is_continued_where_it_broke_off(servers, tgz):
    servers.archives[ARCHIVE] = tgz
    servers.sent = len(tgz) // 8
    with pytest.raises(DmgdError, match=r"the same command continues there"):
        opened()
    reached = servers.ranges[-1] + servers.sent
    servers.sent, servers.ranges = None, []
    assert len(list(opened()[0].images("train"))) == 20
    assert servers.ranges == [reached]


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1] + b"!", lambda data: data + b"!", lambda data: b"<html>not found</html>" * 999]
)
def test_other_bytes_are_deleted_and_never_used(servers, tgz, tmp_path, change):
    servers.archives[ARCHIVE] = change(tgz)
    with pytest.raises(DmgdError, match=r"it was deleted"):
        opened()
    home = Path(archives.ARCHIVES["imagenette", "160px"].folder).parent
    assert not [path for path in home.rglob("*") if path.is_file()]
    servers.archives[ARCHIVE] = tgz
    assert len(list(opened()[0].images("train"))) == 20


def test_an_archive_writes_nothing_outside_of_its_folder(servers, monkeypatch):
    def add(tar):
        member = tarfile.TarInfo("../../../stolen")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))

    evil = packed(add)
    archive = pin(monkeypatch, evil)
    servers.archives[ARCHIVE] = evil
    with pytest.raises(DmgdError, match="cannot be unpacked"):
        fetch_archive(archive, SILENT)
    assert not archive.folder.exists()
    assert not list(archive.folder.parent.parent.parent.rglob("stolen"))


def test_every_variant_has_an_archive():
    assert {name for name, _ in archives.ARCHIVES} == {"imagenette", "imagewoof"}
    assert len({archive.checksum for archive in archives.ARCHIVES.values()}) == 6
    names = {archive.name for archive in archives.ARCHIVES.values()}
    assert names == {f"image{kind}2{size}" for kind in ("nette", "woof") for size in ("", "-320", "-160")}
