"""An export that is refused, killed or runs out of disk leaves nothing that looks complete."""

import errno
import hashlib
from pathlib import Path

import pytest
from made_run import forge, make_run, tree

from dmgd.exporters.example import Limits


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def test_wrong_input_is_refused_and_nothing_is_written(run, tmp_path, inline):
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("dear")
    for arguments, said in (
        ((run.path, "--format", "webdatset", "--out", tmp_path / "x"), "did you mean 'webdataset'"),
        ((other, "--out", tmp_path / "x"), "is not a run"),
        ((run.path, "--out", other), "thesis.txt"),
        ((run.path, "--out", other / "thesis.txt"), "is a file"),
    ):
        refused = inline("export", *arguments, code=2)
        assert said in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "x").exists()
    assert tree(other) == {"thesis.txt": hashlib.sha256(b"dear").hexdigest()}


def test_an_unfinished_or_changed_run_is_not_exported(run, tmp_path, inline):
    image = run.path / run.records()[3].path
    data = image.read_bytes()
    image.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert str(image) in inline("export", run.path, "--out", tmp_path / "x", code=1).stderr
    image.write_bytes(data)
    forge(run.path / "run.json", lambda manifest: manifest.update(status="running"))
    assert "unfinished" in inline("export", run.path, "--out", tmp_path / "x", code=1).stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("moves", range(4))
def test_a_killed_export_is_repeated_completely(run, tmp_path, monkeypatch, moves):
    """Killed after `moves` of its four files were moved to the folder, without any cleanup."""
    from dmgd.exporters import folder
    from dmgd.workflows.export import export

    replace, left = Path.replace, [None] * moves

    def replace_or_die(path, target):
        if folder.STAGING not in str(target):
            if not left:
                raise SystemExit("killed")
            left.pop()
        return replace(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace_or_die)
        patched.setattr(folder, "_remove_leftover", lambda out: None)
        with pytest.raises(SystemExit):
            export(run, "webdataset", tmp_path / "out", limits=Limits(images=3))
    assert not (tmp_path / "out" / "index.json").exists()
    # With other settings than before, so that no file of the first attempt may stay.
    export(run, "webdataset", tmp_path / "out", limits=Limits(images=6))
    export(run, "webdataset", tmp_path / "undisturbed", limits=Limits(images=6))
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


def test_a_full_disk_leaves_no_export_and_names_the_file(run, tmp_path, monkeypatch, inline):
    from dmgd.exporters.folder import HashedFile

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = tree(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(HashedFile, "write", full)
        said = inline("export", run.path, "--format", "imagefolder", "--out", tmp_path / "out", code=1).stderr
    assert said.splitlines()[-1].startswith("error: No space left on device (")
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()
    inline("export", run.path, "--format", "imagefolder", "--out", tmp_path / "out")


def test_an_error_is_one_line_without_escape_sequences(tmp_path, inline):
    """Names and other libraries' messages may contain line breaks and sequences that steer a terminal."""
    refused = inline("export", tmp_path / "a\n\x1b[31mred", "--out", tmp_path / "x", code=2)
    assert refused.stderr.startswith(f"error: {tmp_path}/a \\x1b[31mred is not a run")
    assert len(refused.stderr.splitlines()) == 1
