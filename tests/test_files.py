"""Files appear whole and stay; what killed processes leave is removed, and nothing else; links lead nowhere."""

import os
import tempfile
from pathlib import Path

import pytest
from made_run import make_run, tree

from dmgd.errors import ArtifactError, UsageError
from dmgd.files import TEMPORARY, remove_temporaries, scratch_folder, write_bytes, written_whole
from dmgd.guard import GUARD, guarded
from dmgd.runs.directory import open_run
from dmgd.statistics.file import Statistics


def test_what_a_killed_process_left_beside_a_file_is_removed_and_nothing_else(tmp_path):
    for name in (f"{TEMPORARY}12ab", ".notes.7.tmp", f"{TEMPORARY}my own"):
        (tmp_path / name).write_text("half")
    write_bytes(tmp_path / "one", b"1")
    assert sorted(tree(tmp_path)) == [f"{TEMPORARY}my own", ".notes.7.tmp", "one"]


def test_a_temporary_file_in_use_is_left_alone(tmp_path):
    with written_whole(tmp_path / "one") as temporary:
        temporary.write_bytes(b"1")
        remove_temporaries(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_the_scratch_folder_of_a_killed_process_is_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"{TEMPORARY}12ab" / "part").mkdir(parents=True)
    with scratch_folder() as folder:
        (folder / "file").touch()
        remove_temporaries(tmp_path)
        assert list(tmp_path.rglob("*")) == [folder, folder / "file"]
    assert not list(tmp_path.iterdir())


def test_fit_stats_removes_what_killed_processes_left_anywhere_in_the_cache(tmp_path, monkeypatch, inline):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    old = tmp_path / "dmgd" / "latents" / "of-other-data"
    old.mkdir(parents=True)
    (old / f"{TEMPORARY}12ab").touch()
    inline("fit-stats", "--source", "digits", "--k", 1, "--out", tmp_path / "stats")
    assert not list(tmp_path.rglob(f"{TEMPORARY}*"))


def test_file_and_folder_are_flushed_to_the_disk_before_and_after_the_rename(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, Path.replace

    def recorded_fsync(descriptor):
        done.append(f"flush {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def recorded_replace(path, target):
        done.append(f"rename {path.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    with written_whole(tmp_path / "one") as temporary:
        temporary.write_bytes(b"1")
    assert done == [f"flush {temporary.name}", f"rename {temporary.name}", f"flush {tmp_path.name}"]


@pytest.mark.parametrize("name", [GUARD, "images"])
def test_nothing_is_written_through_links(tmp_path, name):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "precious").write_text("dear")
    (tmp_path / "out").mkdir()
    target = tmp_path / "victim" / ("precious" if name == GUARD else "")
    (tmp_path / "out" / name).symlink_to(target)
    with pytest.raises(UsageError, match=r"is a link, and nothing is written through links"), guarded(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / name).is_symlink()
    assert (tmp_path / "victim" / "precious").read_text() == "dear"


def test_a_link_in_the_place_of_a_file_is_replaced(tmp_path):
    (tmp_path / "precious").write_text("dear")
    (tmp_path / "one").symlink_to(tmp_path / "precious")
    write_bytes(tmp_path / "one", b"1")
    assert (tmp_path / "precious").read_text() == "dear"
    assert (tmp_path / "one").read_bytes() == b"1"


def test_a_file_that_never_ends_and_deep_json_are_damage(tmp_path, inline):
    run = make_run(tmp_path / "run").path
    manifest = run / "run.json"
    for spoil in (lambda: os.mkfifo(manifest), lambda: manifest.symlink_to("/dev/zero")):
        manifest.unlink()
        spoil()
        with pytest.raises(ArtifactError, match=r"run\.json is damaged .*Not a regular file"):
            open_run(run)
        with pytest.raises(ArtifactError, match="Not a regular file"):
            Statistics.load(manifest)
    manifest.unlink()
    manifest.write_text("[" * 100_000)
    assert "run.json is damaged (it is nested too deeply)" in inline("verify", run, code=1).stderr
