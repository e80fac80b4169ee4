"""The detail of images: its definition, that statistics have the source's, and the warning about blurred images."""

import dataclasses
import json

import numpy as np
import pytest
from recorder import Recorder
from source_stand_ins import as_folder, as_parquet, pictures, shuffled, small_prior

from dmgd.config import StatisticsConfig
from dmgd.generation.config import DistillConfig
from dmgd.images import square_pixels
from dmgd.matching.methods import DMGD, method_named
from dmgd.priors.load import load_prior
from dmgd.runs.directory import RunDirectory
from dmgd.sources.detail import detail
from dmgd.sources.open import open_source
from dmgd.statistics.file import Statistics
from dmgd.workflows.distill import distill
from dmgd.workflows.fit_stats import fit_statistics


@pytest.mark.parametrize("channels", [1, 3])
def test_detail_is_the_mean_squared_laplacian_of_the_grey_image(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 9, 12, channels), dtype=np.uint8)
    for image, found in zip(pixels, detail(pixels), strict=True):
        v = image.mean(-1) / 127.5 - 1
        halves = [
            (4 * v[y, x] - v[y - 1, x] - v[y + 1, x] - v[y, x - 1] - v[y, x + 1]) / 2
            for y in range(1, 8)
            for x in range(1, 11)
        ]
        assert found == pytest.approx(np.square(halves).mean())
        assert detail(image) == found
    assert detail(np.full((8, 8, 3), 200, np.uint8)) == 0


def test_statistics_have_the_mean_detail_in_any_order_and_layout(tmp_path):
    prior, found = load_prior(str(small_prior(tmp_path / "prior"))), pictures()
    source = open_source(f"folder:{as_folder(tmp_path / 'a', found)}")
    expected = np.mean([detail(square_pixels(image, 16, 3)) for image, _ in source.decoded("train")])

    def kept(opened, **settings):
        config = StatisticsConfig(2, **settings)
        return fit_statistics(opened, prior, config, workers=0).header["detail"]

    first = kept(source)
    assert first == pytest.approx(expected, rel=1e-5)
    assert kept(open_source(f"hf:{as_parquet(tmp_path / 'b', shuffled(found))}")) == first
    assert kept(source, mirror=True) == first
    assert kept(source) == first  # now from the cache


@pytest.fixture(scope="module")
def digits():
    source, prior = open_source("digits"), load_prior("digits")
    return source, prior, fit_statistics(source, prior, StatisticsConfig(), cache=False)


CONFIG = DistillConfig(ipc=1, method=method_named("dit", steps=5))


def warned(digits, out, share):
    """The warnings of a run whose images have this fraction of the source's detail."""
    source, prior, statistics = digits
    run = distill(source, prior, CONFIG, out=out / "measured", statistics=statistics)
    made = np.mean([detail(run.pixels(record)) for record in run.records()])
    header = {**statistics.header, "detail": float(made / share)}
    recorder = Recorder()
    richer = dataclasses.replace(statistics, header=header)
    distill(source, prior, CONFIG, out=out / "run", statistics=richer, progress=recorder)
    return recorder.warnings


def test_images_with_less_than_half_of_the_detail_are_warned_of(digits, tmp_path):
    [said] = warned(digits, tmp_path / "blurred", 0.4)
    assert "40% of the source's detail" in said
    assert said.endswith("blurred; try another --prior")  # plain samples have no --rho
    assert not warned(digits, tmp_path / "sharp", 0.6)


def test_a_continued_run_is_measured_whole(digits, tmp_path):
    source, prior, statistics = digits
    statistics = dataclasses.replace(statistics, header={**statistics.header, "detail": 1000.0})
    said = []
    for _ in range(2):
        recorder = Recorder()
        distill(source, prior, CONFIG, out=tmp_path / "run", statistics=statistics, progress=recorder)
        said.append(recorder.warnings)
    assert said[0] == said[1] != []


def test_statistics_without_detail_load_without_a_warning(digits, tmp_path):
    source, prior, statistics = digits
    header = {key: value for key, value in statistics.header.items() if key != "detail"}
    dataclasses.replace(statistics, header=header).save(tmp_path / "old.safetensors")
    recorder = Recorder()
    old = Statistics.load(tmp_path / "old.safetensors")
    run = distill(source, prior, CONFIG, out=tmp_path / "run", statistics=old, progress=recorder)
    assert not recorder.warnings
    assert "detail" not in RunDirectory.open(run.path).manifest["statistics"]


def test_images_keep_their_detail_where_support_points_have_less_than_half_of_it(digits):
    """Of photographs; but the only image of a class in pixels is its mean."""
    _, prior, statistics = digits
    points = prior.codec.decode(statistics.support.reshape(-1, *prior.latent_shape)).numpy()
    of_points = np.average(detail(points), weights=statistics.mass.flatten())

    def kept(share, ipc, order="joint"):
        header = {**statistics.header, "detail": float(of_points / share)}
        known = dataclasses.replace(statistics, header=header)
        return DMGD(order=order).settled(prior.schedule(50, "ddpm"), known, ipc).keep_detail

    assert [kept(0.51, ipc) for ipc in (1, 10)] == [False, False]
    assert [kept(0.49, ipc) for ipc in (1, 2, 10)] == [False, True, True]
    assert [kept(0.49, ipc, "greedy") for ipc in (1, 2)] == [True, True]  # such a run can grow from one to two


def test_the_command_warns_with_the_source_s_detail(inline, tmp_path):
    made = inline("fit-stats", "--source", "digits", "--out", tmp_path / "s", "--json")
    assert json.loads(made.stdout)["header"]["detail"] == pytest.approx(1.04076)
    arguments = ("--source", "digits", "--ipc", 1, "--steps", 10, "--rho", 1, "--match-features", "no")
    said = inline("distill", *arguments, "--stats", tmp_path / "s", "--out", tmp_path / "run").stderr
    assert "settled by the data: --window 0 4 (t 0 to 444), --stages 2 4 (t 222 to 444), --keep-detail no\n" in said
    assert "of the source's detail" in said
    assert "try --keep-detail yes or another --prior" in said
