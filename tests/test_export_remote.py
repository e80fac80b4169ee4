"""`--out` as a URL: exports are sent whole or not at all, and all else is refused."""

import json

import fsspec
import pytest
from made_run import make_run, tree

from dmgd.files import sha256_bytes


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


@pytest.fixture
def bucket():
    """The empty file system memory://."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield fs
    fs.store.clear()


def sent(bucket):
    return {path.removeprefix("/b/x/"): sha256_bytes(bucket.cat_file(path)) for path in bucket.find("/b")}


def test_the_files_at_a_url_are_those_of_a_local_export_and_are_sent_once(run, tmp_path, bucket, inline, monkeypatch):
    inline("export", run.path, "--out", tmp_path / "local")
    said = inline("export", run.path, "--out", "memory://b/x").stdout
    assert "exported 6 images of 2 classes to memory://b/x" in said
    assert sent(bucket) == tree(tmp_path / "local")
    monkeypatch.setattr(type(bucket), "put_file", None)  # nothing is sent again
    again = inline("export", run.path, "--out", "memory://b/x", "--json")
    assert "has this export already" in again.stderr
    assert json.loads(again.stdout)["path"] == "memory://b/x"


def test_an_interrupted_export_has_no_index_and_is_repeated(run, tmp_path, bucket, inline, monkeypatch):
    put_file = type(bucket).put_file

    def put_or_fail(fs, local, remote, **more):
        if remote.endswith("index.json"):
            raise ConnectionError("reset by s3://me:secret@peer")
        put_file(fs, local, remote, **more)

    with monkeypatch.context() as patched:
        patched.setattr(type(bucket), "put_file", put_or_fail)
        line = inline("export", run.path, "--out", "memory://b/x", code=1).stderr.splitlines()[-1]
    assert line.startswith("error: memory://b/x cannot be reached (ConnectionError: reset by s3://peer)")
    assert set(sent(bucket)) == {"README.md", "data/train-00000.tar"}
    inline("export", run.path, "--out", "memory://b/x")
    inline("export", run.path, "--out", tmp_path / "local")
    assert sent(bucket) == tree(tmp_path / "local")


def test_what_is_there_already_stays(run, bucket, inline):
    bucket.pipe("/b/x/thesis.txt", b"dear")
    assert "(thesis.txt)" in inline("export", run.path, "--out", "memory://b/x", code=2).stderr
    assert sent(bucket) == {"thesis.txt": sha256_bytes(b"dear")}
    bucket.rm("/b", recursive=True)
    inline("export", run.path, "--out", "memory://b/x")
    before = sent(bucket)
    other = ("--shard-images", 9, "--out", "memory://b/x")
    assert "memory://b/x has another export" in inline("export", run.path, *other, code=1).stderr
    assert sent(bucket) == before


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("fit-stats --source digits --out s3://b/x", "s3://b/x is a URL, but what is written there needs the locks"),
        ("distill --source digits --out gs://b/x", "gs://b/x is a URL"),
        ("train-prior --source digits --steps 1 --out memory://b/x", "memory://b/x is a URL"),
        ("evaluate RUN --metrics --report s3://b/x", "s3://b/x/report.json is a URL"),
        ("verify RUN --write-lock s3://b/x", "s3://b/x is a URL"),
        ("export RUN --out s3://b/x", "needs the package s3fs"),
        ("export RUN --out hf://datasets/me/x", "give --push-to-hub USER/NAME"),
        ("export RUN --out https://me:secret@host/x", "nothing is exported to https://"),
        ("export RUN --push-to-hub me/x --out memory://b/x", "--push-to-hub sends what is in a local folder"),
    ],
)
def test_what_cannot_be_written_to_a_url_is_refused(run, inline, tmp_path, monkeypatch, command, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_x")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    before = tree(tmp_path)
    line = inline(*command.replace("RUN", str(run.path)).split(), code=2).stderr.splitlines()[-1]
    assert said in line
    assert "secret" not in line
    assert tree(tmp_path) == before
