"""The first command that people type, on a machine with nothing on it: without a network, and with one."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_server import downloading
from recorder import Recorder
from source_stand_ins import as_parquet, pictures, small_prior

from dmgd.runs.directory import RunDirectory
from dmgd.workflows.distill import distill

COMMAND = ("distill", "--source", "imagenette", "--ipc", "10")
RUN = "runs/imagenette-ipc10-dmgd-seed0"
PLAN = ("source", "prior", "images", "calls", "device", "run")


def test_without_network_and_weights_the_plan_and_then_what_is_missing(tmp_path):
    """Within five seconds of the plan, in one line; and nothing is written."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    dmgd = Path(sys.executable).parent / "dmgd"
    with subprocess.Popen(
        [dmgd, *COMMAND], cwd=tmp_path, env=environment, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        plan = [process.stderr.readline() for _ in PLAN]
        started = time.monotonic()
        rest, stdout = process.stderr.read(), process.stdout.read()  # not communicate(), which loses what was buffered
    assert time.monotonic() - started < 5
    assert process.returncode == 1
    assert [line.split()[0] for line in plan] == list(PLAN)
    assert max(map(len, plan)) <= 81
    for part in (
        "1.6 GB",
        "3.3 GB",
        "CC BY-NC",
        "100 (10 classes × 10)",
        "5,000 of the network: 50 steps",
        "cpu, fp32",
        RUN,
    ):
        assert part in "".join(plan)
    (said,) = rest.splitlines()
    for part in ("error: missing imagenette", "and dit-xl-2-256", "HF_HOME", "--data PATH", "--prior PATH", "digits"):
        assert part in said
    assert not stdout
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Repositories with a tiny imagenette, and a tiny DiT in the place of the large one."""
    root = tmp_path_factory.mktemp("published")
    as_parquet(root / "data", pictures(per_class=3))
    data = {f"full_size/train/{file.name}": file.read_bytes() for file in (root / "data").iterdir()}
    prior = small_prior(root / "prior")
    weights = {str(file.relative_to(prior)): file.read_bytes() for file in prior.rglob("*") if file.is_file()}
    return {
        ("frgfm/imagenette", "main"): {"imagenette.py": b"print('this is never run')"},
        ("frgfm/imagenette", "refs/convert/parquet"): data,
        ("facebook/DiT-XL-2-256", "main"): weights,
    }


def test_with_a_network_to_the_end_and_onto_the_hub(published, tmp_path, monkeypatch, inline):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_neverToBeSeen0123456789")
    with downloading(monkeypatch, tmp_path / "cache") as hub:
        hub.repos.update(published)
        said = inline(*COMMAND, "--steps", 3)
        assert said.stdout.startswith(f"distilled 100 images of 10 classes into {RUN}\n")
        assert RunDirectory.open(RUN).complete
        assert RunDirectory.open(RUN).specs[1].precision == "fp32"
        assert "steps" in next(line for line in said.stderr.splitlines() if line.startswith("distil: "))

        # The same command continues it, with what is here now; another one is told how to go on.
        hub.calls.clear()
        assert "in the cache" in inline(*COMMAND, "--steps", 3).stderr
        assert "choose another --out" in inline(*COMMAND, "--steps", 4, code=1).stderr

        assert f"exported 100 images of 10 classes to {RUN}-webdataset" in inline("export", RUN).stdout
        said = inline("export", RUN, "--push-to-hub", "me/nette")
        assert f"exported 100 images of 10 classes to {RUN}-parquet" in said.stdout
        assert "README.md" in hub.repos["me/nette", "main"]
        monkeypatch.chdir(RUN)
        inline("export", ".", "--format", "tensors")
        assert (tmp_path / f"{RUN}-tensors" / "index.json").is_file()


class Counted(Recorder):
    """A progress that also counts a task's steps."""

    def __init__(self):
        super().__init__()
        self.steps, self.task = [], self.counted

    @contextmanager
    def counted(self, name, total, unit):
        counts = [name, total]
        yield SimpleNamespace(advance=lambda amount=1: counts.append(amount), describe=lambda text: None)
        self.steps += [counts] if name == "distil" else []


def test_progress_is_by_sampling_step_and_counts_what_was_there_at_once(tmp_path):
    settings = {"ipc": 2, "method": "dit", "steps": 4, "batch_size": 5, "out": tmp_path / "run"}
    for done in (0, 4):
        progress = Counted()
        run = distill("digits", progress=progress, **settings)
        assert progress.steps == [["distil", 5 * 4, *([4 * done] if done else []), *[1] * 4 * (5 - done)]]
        (run.path / "batches" / f"{run.batch_names()[2]}.json").unlink()
