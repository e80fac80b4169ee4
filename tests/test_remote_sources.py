"""Sources at URLs are read as streams, give what local ones give, and fail in one line without credentials."""

import gzip
import pickle

import fsspec
import pytest
from file_server import serving
from fsspec.registry import known_implementations
from hostile_data import FOUND, JPEG, SAMPLES, WHOLE, parquet_of, write_shard
from hub_server import commit_of, downloading
from huggingface_hub import HfFileSystem
from source_stand_ins import as_parquet

from dmgd.errors import ArtifactError, UsageError
from dmgd.sources import remote
from dmgd.sources.open import open_source
from dmgd.specs import SourceSpec
from dmgd.statistics.file import Statistics

BLOCK = 4 << 10


@pytest.fixture
def shard(tmp_path):
    return write_shard(tmp_path / "train-000.tar", SAMPLES).read_bytes()


@pytest.fixture
def bucket(shard):
    """The empty file system memory://."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield fs
    fs.store.clear()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(remote, "_BLOCK", BLOCK)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with serving() as (state, address):
        yield state, address


def test_statistics_of_a_url_are_those_of_the_local_files(tmp_path, shard, bucket, server, inline):
    state, address = server
    (tmp_path / "local").mkdir()
    for name in ("train-000.tar", "train-001.tar", "val-000.tar"):
        (tmp_path / "local" / name).write_bytes(shard)
        bucket.pipe(f"/b/{name}", shard)
        state.files[f"/b/{name}"] = shard
    found = {}
    for number, source in enumerate(
        (
            f"wds:{tmp_path}/local",
            f"wds:file://{tmp_path}/local/*.tar",
            "wds:memory://b",
            "wds:memory://b/*-00?.tar",
            f"wds:{address}/b/train-{{000..001}}.tar?X-Signature=secret",
            f"wds:{address}/b/*.tar",
        )
    ):
        out = tmp_path / f"{number}.safetensors"
        inline("fit-stats", "--prior", "digits", "--k", 2, "--workers", 0, "--source", source, "--out", out)
        statistics = Statistics.load(out)
        found[source] = (statistics.support.numpy().tobytes(), statistics.header["source"]["fingerprint"])
    assert len(set(found.values())) == 1
    assert "X-Signature=secret" in state.queries


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_every_byte_is_fetched_once_and_labels_are_remembered(shard, server, suffix):
    state, address = server
    state.files[f"/x.{suffix}"] = data = gzip.compress(shard, 0) if suffix == "tar.gz" else shard
    source = open_source(f"wds:{address}/x.{suffix}")  # for its labels
    assert len(data) > 4 * BLOCK
    assert sum(state.sent) <= len(data) + BLOCK
    assert max(state.sent) <= BLOCK
    state.sent.clear()
    assert len(list(source.images("train"))) == len(SAMPLES)
    assert sum(state.sent) <= len(data) + BLOCK
    state.sent.clear()
    again = open_source(source.spec)
    assert state.sent == []
    assert again.classes == source.classes
    assert again.fingerprint("train") == source.fingerprint("train")
    assert pickle.loads(pickle.dumps(source)) == source  # workers need not find the labels again
    state.files[f"/x.{suffix}"] = data[:100] + b"1" + data[101:]
    with pytest.raises(ArtifactError, match="is damaged"):
        open_source(source.spec)


def test_damage_and_failures_are_one_line_with_the_url(shard, bucket, server, fitted):
    state, address = server
    bucket.pipe("/b/cut.tar", shard[:4000])
    assert "memory://b/cut.tar is damaged" in fitted("wds:memory://b/cut.tar", code=1)
    state.files["/x.tar"] = shard
    url = f"wds:{address}/x.tar"
    state.fail = [503, 500]
    assert fitted(url)[0] == {"0": 4, "1": 4}  # tried again
    state.files["/x.tar"] = shard + bytes(512)  # else its labels are known
    state.fail = [403] * 9
    assert f"{address}/x.tar cannot be reached (ClientResponseError: 403" in fitted(f"{url}?key=secret", code=1)
    state.fail, state.ranges = [], False
    assert "its server sends whole files only" in fitted(url, code=1)
    assert "http://127.0.0.1:9/x.tar cannot be reached" in fitted("wds:http://127.0.0.1:9/x.tar?key=secret", code=1)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("wds:memory://b/train-{000..003}.tar", "3 of 4 shards are missing, the first is memory://b/train-001.tar"),
        ("wds:memory://b/none", "no WebDataset shards at memory://b/none"),
        ("wds:memory://b/x-{0..999999999}.tar", "means more than"),
        ("wds:toy://b/x.tar", "needs the package toyfs, which is not installed: pip install toyfs"),
        ("wds:unknown://b/x.tar", "Protocol not known: unknown"),
        ("wds:https://me:secret@host/x.tar", "error: https://host/x.tar was given with a user name or password"),
        ("wds:pipe:cat x.tar", "is a command, which is not run"),
        ("folder:memory://b", "image folders are read where they are local"),
    ],
)
def test_urls_that_are_wrong_are_one_line(bucket, shard, fitted, monkeypatch, source, said):
    bucket.pipe("/b/train-000.tar", shard)
    monkeypatch.setitem(known_implementations, "toy", {"class": "toyfs.FS", "err": "Install toyfs"})
    line = fitted(source, code=2)
    assert said in line
    assert "secret" not in line


def test_parquet_at_a_url_is_the_local_one_and_not_copied(tmp_path, bucket, server, inline, monkeypatch):
    state, address = server
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    as_parquet(tmp_path / "local", FOUND)
    (file,) = (tmp_path / "local").iterdir()
    bucket.pipe(f"/b/data/{file.name}", file.read_bytes())
    state.files[f"/b/{file.name}"] = file.read_bytes()
    found = set()
    for number, source in enumerate(
        (tmp_path / "local", "memory://b", "memory://b/*/*.parquet", f"{address}/b/{file.name}?key=secret")
    ):
        out = tmp_path / f"{number}.safetensors"
        said = inline(
            "fit-stats", "--prior", "digits", "--k", 2, "--workers", 0, "--source", f"hf:{source}", "--out", out
        )
        statistics = Statistics.load(out)
        found.add((statistics.support.numpy().tobytes(), statistics.header["source"]["fingerprint"]))
        assert "secret" not in said.stderr + str(statistics.header)
    assert len(found) == 1
    assert not any(tmp_path.rglob("*.arrow"))


def test_rows_of_parquet_at_a_url_name_files_beside_it_only(tmp_path, bucket, fitted):
    for path, code in (("memory://b/x.jpg", 0), ("memory://c/x.jpg", 1), ("memory://b/../c/x.jpg", 1), ("/etc/x", 1)):
        root = parquet_of(tmp_path / "data", [WHOLE, {"bytes": None, "path": path}], [0, 1])
        bucket.pipe({"/b/train.parquet": (root / "train.parquet").read_bytes(), "/b/x.jpg": JPEG, "/c/x.jpg": JPEG})
        said = fitted("hf:memory://b", code=code)
        assert "which is outside memory://b" in said if code else said[0] == {"0": 1, "1": 1}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("hf:memory://none", "there are no .parquet files at memory://none"),
        ("hf:memory://b/x.parquet", "memory://b/x.parquet cannot be read as Parquet"),
    ],
)
def test_parquet_at_a_url_that_is_wrong_is_one_line(bucket, fitted, source, said):
    bucket.pipe("/b/x.parquet", b"nothing" * 9)
    assert said in fitted(source, code=2)


def test_a_large_dataset_on_the_hub_is_streamed(tmp_path, monkeypatch, fitted):
    as_parquet(tmp_path / "local", FOUND)
    (file,) = (tmp_path / "local").iterdir()
    card = b"---\ndataset_info:\n  download_size: 60000000000\n  dataset_size: 60000000000\n---\n"
    with downloading(monkeypatch, tmp_path / "cache") as hub:
        hub.repos["me/large", "main"] = {f"data/{file.name}": file.read_bytes(), "README.md": card}
        counts, warnings = fitted("hf:me/large")
        assert counts == {"0": 4, "1": 4}
        assert any("me/large has 60 GB and is streamed from the Hub without a copy" in line for line in warnings)
        source = open_source("hf:me/large")
        assert source.variant == f"me/large revision {commit_of('me/large', 'main')}"
        assert not any((tmp_path / "cache").rglob("*.arrow"))
        hub.repos["me/shards", "main"] = {"data/train-0.tar": write_shard(tmp_path / "x.tar", SAMPLES).read_bytes()}
        HfFileSystem.clear_instance_cache()  # those of earlier servers
        for url in ("hf:hf://datasets/me/large", "wds:hf://datasets/me/shards/data/train-{0..0}.tar"):
            assert fitted(url) == (counts, [])
        assert not any((tmp_path / "cache").rglob("*.arrow"))
        hub.repos["me/small", "main"] = {f"data/{file.name}": file.read_bytes()}
        assert fitted("hf:me/small") == (counts, [])
        assert any((tmp_path / "cache").rglob("*.arrow"))


def test_a_spec_keeps_urls_and_is_published_without_credentials(tmp_path):
    spec = SourceSpec("imagenette", data="wds:s3://b/t-{0..9}.tar", test_data="https://h/v.tar?sig=secret").located()
    assert spec == SourceSpec("imagenette", "wds:s3://b/t-{0..9}.tar", "https://h/v.tar?sig=secret")
    assert spec.published() == SourceSpec("imagenette", "wds:s3://b/t-{0..9}.tar", "https://h/v.tar")
    assert SourceSpec("wds:abfs://data@account/x-?.tar").published().name == "wds:abfs://data@account/x-?.tar"
    local = SourceSpec(f"wds:file://{tmp_path}/x.tar").located()
    assert (local.name, local.published().name) == (f"wds:{tmp_path}/x.tar", "wds:PATH/x.tar")
    with pytest.raises(UsageError, match="it is not clear what is at s3://b/x; give wds: or hf: before it"):
        open_source("imagenette", data="s3://b/x")
