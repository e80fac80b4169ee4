"""A run directory is continued, grown, repaired, and has one writer at a time."""

import ctypes
import dataclasses
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_run import tree
from recorder import Recorder

from dmgd.config import StatisticsConfig
from dmgd.errors import ArtifactError, MismatchError, UsageError
from dmgd.files import TEMPORARY, write_sealed
from dmgd.generation.config import DistillConfig
from dmgd.guard import GUARD
from dmgd.matching.methods import method_named
from dmgd.priors.load import load_prior
from dmgd.runs.directory import RunDirectory
from dmgd.sources.open import open_source
from dmgd.workflows.distill import distill
from dmgd.workflows.export import export
from dmgd.workflows.fit_stats import fit_statistics

DMGD = Path(sys.executable).parent / "dmgd"
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1


@pytest.fixture(scope="module")
def prior():
    return load_prior("digits")


@pytest.fixture(scope="module")
def statistics(prior):
    return fit_statistics(open_source("digits"), prior, StatisticsConfig(), cache=False)


@pytest.fixture(scope="module")
def stats_file(statistics, tmp_path_factory):
    path = tmp_path_factory.mktemp("stats") / "stats.safetensors"
    statistics.save(path)
    return path


@pytest.fixture
def make(prior, statistics, tmp_path):
    """make(name, ipc) distils greedily in two steps."""

    def run(name="run", ipc=2, **options):
        method = method_named("dmgd", steps=2, order="greedy", window=(0, 1))
        config = DistillConfig(ipc=ipc, method=method)
        return distill(open_source("digits"), prior, config, out=tmp_path / name, statistics=statistics, **options)

    return run


def test_a_greedy_run_grows_and_keeps_its_first_images(make):
    small = tree(make(ipc=2).path)
    grown = make(ipc=4)
    assert tree(grown.path) == tree(make("fresh", ipc=4).path)
    of_the_whole = ("run.json", "preview.png")
    assert {name: tree(grown.path)[name] for name in small if name not in of_the_whole} == {
        name: digest for name, digest in small.items() if name not in of_the_whole
    }
    assert len(grown.records()) == 40


def test_the_support_points_that_were_used_are_recorded(make):
    assert make(ipc=6).config.method.k == 10  # and not 12, as six images would ask for


def test_growing_a_run_beyond_its_support_points_is_refused_with_advice(inline, tmp_path):
    greedy = ("distill", "--source", "digits", "--order", "greedy", "--steps", 2, "--window", 0, 1)
    inline(*greedy, "--ipc", 1, "--out", tmp_path / "run")
    assert "start with --k 12" in inline(*greedy, "--ipc", 6, "--out", tmp_path / "run", code=1).stderr
    for ipc in (1, 6):
        inline(*greedy, "--ipc", ipc, "--k", 12, "--out", tmp_path / "grows")
    assert len(RunDirectory.open(tmp_path / "grows").records()) == 60


def test_a_run_never_shrinks_and_other_orders_do_not_grow(make, prior, statistics, tmp_path):
    make(ipc=3)
    with pytest.raises(MismatchError, match=r"config\.ipc: 3 there, 2 requested"):
        make(ipc=2)
    source = open_source("digits")
    for method in (method_named("dit", steps=2), method_named("dmgd-paper", steps=2, distribution=False)):
        config, out = DistillConfig(ipc=1, method=method), tmp_path / method.name
        distill(source, prior, config, out=out, statistics=statistics)
        with pytest.raises(MismatchError, match=r"config\.ipc: 1 there, 2 requested"):
            distill(source, prior, dataclasses.replace(config, ipc=2), out=out, statistics=statistics)


@pytest.mark.parametrize("kind", ["images", "batches"])
@pytest.mark.parametrize("how", ["changed", "removed"])
def test_changed_and_removed_files_are_regenerated(make, how, kind):
    run = make()
    before = tree(run.path)
    victim = sorted(path for path in (run.path / kind).rglob("*") if path.suffix in (".png", ".safetensors"))[1]
    if how == "removed":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:-1] + b"!")
    recorder = Recorder()
    make(progress=recorder)
    assert tree(run.path) == before
    assert [str(victim) in warning for warning in recorder.warnings] == [True]


def test_a_batch_without_its_record_is_regenerated_and_temporary_files_are_removed(make):
    run = make()
    before = tree(run.path)
    next((run.path / "batches").glob("*.json")).unlink()
    (run.path / "images" / "0000-0" / f"{TEMPORARY}12ab").write_bytes(b"half")
    (run.path / ".notes.7.tmp").write_text("dear")
    make()
    assert (run.path / ".notes.7.tmp").read_text() == "dear"
    (run.path / ".notes.7.tmp").unlink()
    assert tree(run.path) == before


def test_a_damaged_record_is_regenerated_and_a_missing_one_makes_the_run_unfinished(make):
    run = make()
    before, record = tree(run.path), next((run.path / "batches").glob("*.json"))
    record.write_text(record.read_text()[:50])
    recorder = Recorder()
    make(progress=recorder)
    assert tree(run.path) == before
    assert [str(record) in warning for warning in recorder.warnings] == [True]
    record.unlink()
    with pytest.raises(ArtifactError, match="unfinished"):
        export(run, "parquet", run.path.parent / "out")


def test_a_manifest_that_was_changed_is_refused(make):
    run = make()
    text = (run.path / "run.json").read_text()
    for changed in (text.replace('"seed": 0', '"seed": 1', 1), '{"format": 4}', "[" * 10_000, "{", "[]", ""):
        assert changed != text
        (run.path / "run.json").write_text(changed)
        with pytest.raises(ArtifactError, match=r"distil it again$"):
            RunDirectory.open(run.path)
    write_sealed(run.path / "run.json", {"format": 4, "files": []})  # the index of an export, renamed
    with pytest.raises(ArtifactError, match="it lacks plan, specs"):
        RunDirectory.open(run.path)
    (run.path / "run.json").write_text('{"format": 1}')
    with pytest.raises(ArtifactError, match="another version of dmgd; distil it again"):
        RunDirectory.open(run.path)


def test_resume_starts_no_new_run(make, tmp_path):
    with pytest.raises(UsageError, match="not a run"):
        make(resume=True)
    assert not (tmp_path / "run").exists()
    make()
    make(resume=True)


def test_a_folder_of_something_else_is_left_alone(make, tmp_path):
    (tmp_path / "run").mkdir()
    for name in (".lock", ".notes.42.tmp", "thesis.txt"):
        (tmp_path / "run" / name).write_text("dear")
    with pytest.raises(UsageError, match=r"it holds \.lock"):
        make()
    assert sorted(tree(tmp_path / "run")) == [".lock", ".notes.42.tmp", "thesis.txt"]
    assert (tmp_path / "run" / ".lock").read_text() == "dear"


def test_a_run_that_was_killed_at_its_first_file_starts_over(make, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f"{TEMPORARY}12ab").write_text("{")
    assert tree(make().path) == tree(make("fresh").path)


HOLD = """
import pathlib, sys
from dmgd.guard import guarded
with guarded(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_write_one_run(make, inline, stats_file):
    run = make()
    before = tree(run.path)
    command = [sys.executable, "-c", HOLD, run.path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        with pytest.raises(ArtifactError, match="being written"):
            make()
        distil = ("distill", "--source", "digits", "--stats", stats_file, "--steps", 2, "--out", run.path)
        assert f"process {other.pid}" in inline(*distil, code=1).stderr
        other.communicate()
    assert tree(run.path) == before


def test_the_guard_of_a_dead_process_is_taken_over(make):
    run = make()
    (run.path / GUARD).write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    before = {name: digest for name, digest in tree(run.path).items() if name != GUARD}
    make()
    assert tree(run.path) == before


def two_batches(out, stats_file):
    """`dmgd distill` of two batches."""
    sampling = ("--method", "dit", "--steps", "4", "--ipc", "20", "--batch-size", "100")
    return ["distill", "--source", "digits", *sampling, "--stats", stats_file, "--out", out]


def start(out, stats_file, **options):
    """The same in a process of its own, which runs."""
    return subprocess.Popen([DMGD, *two_batches(out, stats_file)], stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture
def finish(inline, stats_file):
    """finish(out) lets the command end → the digests of the run's files."""

    def finished(out):
        inline(*two_batches(out, stats_file))
        return tree(out)

    return finished


def test_a_killed_run_continues_to_the_same_bytes(stats_file, tmp_path, finish):
    killed = start(tmp_path / "run", stats_file)
    while not list((tmp_path / "run" / "batches").glob("*.json")):
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not RunDirectory.open(tmp_path / "run").complete
    assert finish(tmp_path / "run") == finish(tmp_path / "undisturbed")


def test_a_full_disk_loses_no_finished_work(stats_file, tmp_path, finish):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, resource.RLIM_INFINITY))

    full = start(tmp_path / "run", stats_file, preexec_fn=limit)
    said = full.communicate()[1]
    assert full.returncode == 1
    assert said.splitlines()[-1].startswith(f"error: File too large ({tmp_path / 'run' / 'batches'}")
    assert "Traceback" not in said
    assert not RunDirectory.open(tmp_path / "run").complete
    assert finish(tmp_path / "run") == finish(tmp_path / "undisturbed")


def test_a_read_only_folder_is_a_one_line_error(make, tmp_path):
    run = make().path
    (tmp_path / "locked").mkdir(mode=0o555)

    def not_almighty():  # root can write everywhere, unless it drops the capability
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)

    command = [DMGD, "export", run, "--format", "imagefolder", "--out", tmp_path / "locked" / "out"]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=not_almighty, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: Permission denied ({tmp_path / 'locked' / 'out'})")
    assert len(done.stderr.splitlines()) == 1
    shutil.rmtree(tmp_path / "locked")
