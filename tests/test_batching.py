"""The batch size: what fits, what happens when memory runs out, and the writing of batches."""

import dataclasses
import json
import threading

import pytest
import torch
from made_run import rows
from recorder import Recorder

from dmgd.config import StatisticsConfig
from dmgd.errors import DmgdError
from dmgd.generation.config import DistillConfig
from dmgd.generation.micro_batches import MicroBatcher, fitting, micro_batched, suitable_batch
from dmgd.generation.sampling import sample_images
from dmgd.matching.methods import method_named
from dmgd.priors.load import load_prior
from dmgd.runs.directory import RunDirectory
from dmgd.sources.open import open_source
from dmgd.workflows.distill import distill
from dmgd.workflows.fit_stats import fit_statistics


@pytest.fixture(scope="module")
def prior():
    return load_prior("digits")


@pytest.fixture(scope="module")
def source():
    return open_source("digits")


@pytest.fixture(scope="module")
def statistics(source, prior):
    return fit_statistics(source, prior, StatisticsConfig(), cache=False)


def scarce(work, rows):
    """`work` on a device that has memory for `rows` rows; `seen` keeps the sizes of all calls."""
    seen = []

    def limited(*tensors):
        seen.append(len(tensors[0]))
        if len(tensors[0]) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 GiB")
        return work(*tensors)

    return limited, seen


def test_micro_batches_are_even_and_stay_halved_after_running_out_of_memory():
    recorder, rows = Recorder(), torch.arange(10.0)[:, None]
    work, seen = scarce(lambda x, y: x + y, rows=3)
    batcher = MicroBatcher(8, recorder)
    for _ in range(2):
        assert torch.equal(batcher.run(work, rows, rows), 2 * rows)
    assert seen == [5, 4, *[2] * 10]
    assert recorder.warnings == [f"memory ran out; going on with {rows} rows at a time" for rows in (4, 2)]


def test_without_memory_for_one_row_there_is_a_one_line_error():
    work, _ = scarce(lambda x: x, rows=0)
    with pytest.raises(DmgdError, match="not enough memory for a single image"):
        MicroBatcher(8).run(work, torch.zeros(5, 1))
    with pytest.raises(RuntimeError, match="shape"):  # what is no lack of memory is not retried
        MicroBatcher(8).run(lambda x: (_ for _ in ()).throw(RuntimeError("shape")), torch.zeros(5, 1))


def test_a_cpu_without_memory_is_recognised():
    tried = []

    def work(x):
        tried.append(len(x))
        return torch.empty(1 << 50) if len(x) > 1 else x

    assert len(MicroBatcher(4).run(work, torch.zeros(4, 1))) == 4
    assert tried == [4, 2, 1, 1, 1, 1]


@pytest.mark.parametrize(("memory", "images"), [(1000, 64), (999, 32), (363, 16), (180, 4), (10, 1)])
def test_the_batch_that_fits_is_a_power_of_two(memory, images):
    """A network that takes 104 bytes and 14 for each image, and 40 more in its first call."""
    calls = []

    def peak(count):
        calls.append(count)
        return 104 + 14 * count + (40 if len(calls) == 1 else 0)

    assert fitting(peak, memory) == images
    assert 104 + 14 * images <= memory or images == 1


def test_the_batch_size_on_a_cpu_follows_from_the_patches(prior):
    assert suitable_batch(prior) == 320 // 16


@pytest.mark.parametrize("order", ["joint", "greedy"])
def test_a_run_that_runs_out_of_memory_gives_the_same_images(source, prior, statistics, tmp_path, order):
    config = DistillConfig(ipc=3, method=dataclasses.replace(method_named("dmgd", steps=4), order=order))
    whole = distill(source, prior, config, out=tmp_path / "whole", statistics=statistics)
    assert whole.config.batch_size == suitable_batch(prior)

    recorder, poor = Recorder(), dataclasses.replace(prior)
    poor.denoise = lambda z, step, label: scarce(lambda z, label: prior.denoise(z, step, label), rows=7)[0](z, label)
    small = distill(source, poor, config, out=tmp_path / "small", statistics=statistics, progress=recorder)
    assert recorder.warnings
    for one, other in zip(whole.records(), small.records(), strict=True):
        assert abs(whole.pixels(one).astype(int) - small.pixels(other)).max() <= 1


def test_a_run_keeps_its_batch_size(source, prior, statistics, tmp_path):
    """Continued on a device that would choose another one, a run's images stay as they are."""
    method = method_named("dit", steps=3)
    config = DistillConfig(ipc=2, method=method, batch_size=7)
    run = distill(source, prior, config, out=tmp_path / "run", statistics=statistics)
    unsaid = dataclasses.replace(config, batch_size=None)
    again = distill(source, prior, unsaid, out=tmp_path / "run", statistics=statistics)
    assert again.config == run.config
    assert json.loads((run.path / "run.json").read_text())["config"]["batch_size"] == 7
    assert RunDirectory.open(run.path).complete


def test_micro_batches_of_the_network_are_the_network(prior):
    z, condition = torch.randn(9, *prior.latent_shape), prior.condition(rows(*range(1, 10)))
    step = prior.schedule(3, "ddpm")[1]
    in_two = micro_batched(prior.denoise, 2)(z, step, condition)
    torch.testing.assert_close(in_two, prior.denoise(z, step, condition), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("failing", [0, 4])
def test_a_batch_that_cannot_be_written_fails_the_run(failing, prior, tmp_path, monkeypatch):
    """Batches are written while the next ones are sampled; no failure is lost, not even the last one's."""
    write, written = RunDirectory.write_batch, []

    def fail(run, batch, *content):
        if len(written) == failing:
            raise OSError("disk full")
        written.append(batch)
        write(run, batch, *content)

    monkeypatch.setattr(RunDirectory, "write_batch", fail)
    with pytest.raises(OSError, match="disk full"):
        distill("digits", prior, out=tmp_path / "run", method="dit", ipc=4, steps=2, batch_size=10)
    assert not RunDirectory.open(tmp_path / "run").complete


def test_an_interrupt_loses_no_batch_that_was_made(prior, tmp_path, monkeypatch):
    write, interrupted = RunDirectory.write_batch, threading.Event()

    def sample(batch, *rest, **watched):
        if batch.classes[0] > 0:
            threading.Timer(0.1, interrupted.set).start()
            raise KeyboardInterrupt
        return sample_images(batch, *rest, **watched)

    def write_later(run, batch, *content):
        interrupted.wait()
        write(run, batch, *content)

    monkeypatch.setattr("dmgd.generation.sampling_work.sample_images", sample)
    monkeypatch.setattr(RunDirectory, "write_batch", write_later)
    with pytest.raises(KeyboardInterrupt):
        distill("digits", prior, out=tmp_path / "run", method="dit", ipc=4, steps=2, batch_size=10)
    assert len(RunDirectory.open(tmp_path / "run").batch_names()) == 1
