"""With Ray, on a cluster of three nodes, every command gives the bytes that it gives without."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from made_run import tree

import dmgd
from dmgd.distribution.ray_engine import RayEngine

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
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_run_is_that_of_one_process(cluster, tmp_path, workers):
    dmgd.distill("digits", out=tmp_path / "alone", **GREEDY)
    dmgd.distill("digits", out=tmp_path / "ray", device=RayEngine(workers=workers, device="cpu"), **GREEDY)
    assert tree(tmp_path / "ray") == tree(tmp_path / "alone")


def kill_a_worker():
    """Kill one of the cluster's actors as soon as there is one."""
    while True:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "cmdline").read_bytes().startswith(b"ray::_Actor.do"):
                    os.kill(int(process.name), signal.SIGKILL)
                    return
            except OSError:
                pass
        time.sleep(0.01)


def test_a_worker_that_dies_changes_nothing(cluster, tmp_path):
    dmgd.distill("digits", out=tmp_path / "alone", **GREEDY)
    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    dmgd.distill("digits", out=tmp_path / "ray", device=RayEngine(workers=2, device="cpu"), **GREEDY)
    killer.join(0)
    assert not killer.is_alive()
    assert tree(tmp_path / "ray") == tree(tmp_path / "alone")


@pytest.fixture
def photos(tmp_path):
    """140 images, of which one is unreadable, as three parts of a source."""
    from source_stand_ins import as_folder, pictures

    folder = as_folder(tmp_path / "photos", pictures())
    next(folder.rglob("*_7.JPEG")).write_bytes(b"")
    return f"folder:{folder}"


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_statistics_are_those_of_one_process(cluster, photos, tmp_path, monkeypatch, workers):
    from source_stand_ins import small_prior

    monkeypatch.setattr("dmgd.statistics.encoding.PART_ITEMS", 64)
    prior = str(small_prior(tmp_path / "prior"))
    for name, engine in (("alone", "cpu"), ("ray", RayEngine(workers=workers, device="cpu"))):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name / "cache"))
        dmgd.fit_statistics(photos, prior, k=2, workers=0, max_bad=1, device=engine).save(tmp_path / name / "stats")
    assert tree(tmp_path / "ray") == tree(tmp_path / "alone")
