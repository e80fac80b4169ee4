"""With Ray, on a cluster of three nodes, commands give the bytes that they give without.

All numbers of workers, deaths of whole nodes and of the driver: tools/kill_cluster.py.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from made_run import tree
from source_stand_ins import as_folder, pictures, small_prior

import dmgd
from dmgd.distribution.engine import alone
from dmgd.errors import ArtifactError, DmgdError, MismatchError, UsageError
from dmgd.progress import SILENT

pytest.importorskip("ray")
GREEDY = {"method": "dmgd", "order": "greedy", "steps": 3, "ipc": 2, "batch_size": 4}


@pytest.fixture(scope="module")
def cluster():
    """Three nodes of a core each, to which this process is connected."""
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(**node)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="critical")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder of 140 images, three parts of a source, one of them unreadable; a prior; and what one process makes."""
    base = tmp_path_factory.mktemp("ray")
    photos = as_folder(base / "photos", pictures())
    next(photos.rglob("*_7.JPEG")).write_bytes(b"")
    small_prior(base / "prior")
    make_all(base, base / "alone", "cpu")
    return base


def make_all(base, out, engine):
    """Statistics of the folder, the cache with its latents, a run of the digits, and its scores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dmgd.statistics.encoding.PART_ITEMS", 64)
        patch.setenv("XDG_CACHE_HOME", str(out / "cache"))
        fit = {"k": 2, "workers": 0, "max_bad": 0.1}
        dmgd.fit_statistics(f"folder:{base / 'photos'}", str(base / "prior"), device=engine, **fit).save(out / "stats")
        dmgd.distill("digits", out=out / "run", device=engine, **GREEDY)
        scores = dmgd.evaluate(out / "run", repeats=2, epochs=1, against=("random",), device=engine).to_json()
    shutil.rmtree(out / "cache" / "dmgd" / "scores")  # kept with their times; what they say follows
    (out / "scores").write_text(re.sub(r'"seconds": [\d.]+', "", json.dumps(scores["scores"])))


def kill_a_worker(cluster):
    """Kill one of the cluster's actors that are at work, as soon as there is one."""
    mark = f"--gcs-address={cluster.address}\0".encode()
    while True:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                is_at_work = (process / "cmdline").read_bytes().startswith(b"ray::Actor.do")
                if is_at_work and mark in Path("/proc", parent, "cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
                    return
            except OSError:
                pass
        time.sleep(0.01)


def test_workers_give_the_bytes_of_one_process_even_if_one_dies(cluster, inputs, tmp_path):
    killer = threading.Thread(target=kill_a_worker, args=[cluster], daemon=True)
    killer.start()
    with dmgd.RayEngine(workers=2, device="cpu") as engine:
        make_all(inputs, tmp_path / "ray", engine)
    assert not killer.is_alive()
    assert tree(tmp_path / "ray") == tree(inputs / "alone")


def test_a_worker_that_cannot_open_a_path_says_so_before_anything_starts(cluster, inputs, tmp_path):
    shutil.copytree(inputs / "prior", tmp_path / "prior")
    prior = dmgd.load_prior(tmp_path / "prior")
    shutil.rmtree(tmp_path / "prior")  # which another machine may not have
    engine = dmgd.RayEngine(workers=1, device="cpu")
    with pytest.raises(UsageError, match=rf"worker on \S+ cannot start: the prior {tmp_path / 'prior'} does not exist"):
        dmgd.fit_statistics(f"folder:{inputs / 'photos'}", prior, k=2, max_bad=0.1, cache=False, device=engine)


def test_a_worker_that_finds_less_data_says_so(cluster, inputs, tmp_path, monkeypatch):
    photos = shutil.copytree(inputs / "photos", tmp_path / "photos")
    source = dmgd.open_source(f"folder:{photos}")
    monkeypatch.setattr(type(source), "extent", lambda *_: "141 files")  # here alone
    line = r"worker on \S+ cannot start: the source folder:photos has 140 files there, and 141 files where the command"
    fit = {"k": 2, "max_bad": 0.1, "cache": False, "device": dmgd.RayEngine(workers=1, device="cpu")}
    with pytest.raises(MismatchError, match=line):
        dmgd.fit_statistics(source, str(inputs / "prior"), **fit)


@dataclass(frozen=True)
class Failing:
    """Work that fails for a reason that a user can fix, or kills its worker; its own spec."""

    device: ClassVar[str] = "core"

    def __call__(self, task, bar):
        if task == "die":
            os._exit(1)
        bar.warn("memory ran out")
        raise ArtifactError(f"{task} is damaged")

    def spec(self):
        return self

    def open(self, progress, cores):
        return self


def test_an_error_in_a_worker_is_the_same_line(cluster, monkeypatch):
    monkeypatch.setattr("dmgd.distribution.ray_workers.TRIES", 2)
    with dmgd.RayEngine(workers=1, device="cpu") as engine:
        for task, line in (("photo", "^photo is damaged$"), ("die", "^2 workers died of the same work, perhaps out")):
            with pytest.raises(DmgdError, match=line):
                list(engine.map(Failing(), iter([alone(task)]), SILENT, SILENT))


def has_processes(address):
    """Whether a cluster with this address has any of its own on this machine."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"--gcs-address={address}\0".encode() in (process / "cmdline").read_bytes():
                return True
    return False


def test_a_local_cluster_ends_with_its_command_even_by_sigkill():
    script = "from dmgd.distribution import ray_local as r; print(r.LocalCluster().address(), flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as command:
        address = command.stdout.readline().strip()
        assert has_processes(address)
        command.kill()
    deadline = time.monotonic() + 5
    while has_processes(address):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"workers": 9}, "has room for 3 workers of 1 cores, one for each thread of this process, not for 9"),
        ({"workers": 0}, "workers must be at least 1 with Ray, not 0"),
        ({"gpus_per_worker": 1.5}, "must be a whole number or between 0 and 1, not 1.5"),
    ],
)
def test_what_the_cluster_lacks_is_refused(cluster, options, line):
    with pytest.raises(UsageError, match=line):
        list(dmgd.RayEngine(**options).map(Failing(), iter([alone("photo")]), SILENT, SILENT))


def test_options_without_a_cluster(inline, monkeypatch, tmp_path):
    command = ("distill", "--source", "digits", "--out", tmp_path / "run")
    said = inline(*command, "--workers", 2, code=2).stderr
    assert said == "error: --workers has no effect without --ray; add --ray local for this machine\n"
    monkeypatch.setitem(sys.modules, "ray", None)
    said = inline(*command, "--ray", "local", code=2).stderr
    assert said == "error: Ray is not installed; pip install 'dmgd[ray]'\n"


def test_without_the_option_ray_is_not_imported(tmp_path):
    script = f"""
import sys, dmgd
run = dmgd.distill("digits", method="dit", steps=2, ipc=1, out={str(tmp_path / "run")!r})
dmgd.evaluate(run, repeats=1, epochs=1, against=())
assert "ray" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
