"""`import dmgd`: its functions take names, paths or open objects, and what they return has a short repr."""

import ast
import base64
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_run import make_run, tree
from source_stand_ins import WNIDS, as_folder, pictures, small_prior

import dmgd
from dmgd.config import StatisticsConfig, VerifyConfig, check_settings, setting
from dmgd.errors import UsageError
from dmgd.generation.config import DistillConfig
from dmgd.matching.methods import DMGD, DMGDPaper, method_from_json
from dmgd.runs.directory import RunDirectory
from dmgd.specs import PriorSpec, SourceSpec

QUICK = {"method": "dit", "steps": 2, "ipc": 2}
SOON = {"repeats": 1, "epochs": 1, "against": ()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return dmgd.distill("digits", out=str(tmp_path_factory.mktemp("api") / "d"), **QUICK)


def test_importing_the_package_takes_less_than_50_ms():
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", "import dmgd"], capture_output=True, text=True)
    microseconds = next(line.split("|")[1] for line in done.stderr.splitlines() if line.endswith(" dmgd"))
    assert int(microseconds) < 50_000


def test_the_public_functions_are_where_type_checkers_see_them():
    nodes = ast.walk(ast.parse(Path(dmgd.__file__).read_text()))
    seen = {alias.name: node.module for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    for name in dmgd.__all__:
        function = getattr(dmgd, name)
        assert function.__doc__
        assert function.__module__ == seen[name]
    assert set(dmgd.__all__) <= set(dir(dmgd))
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        dmgd.distil  # noqa: B018


def test_names_and_open_objects_give_the_same_run(run, tmp_path):
    source, prior = dmgd.open_source("digits"), dmgd.load_prior("digits")
    dmgd.distill(source, prior, DistillConfig.of(**QUICK), out=tmp_path / "run")
    assert tree(tmp_path / "run") == tree(run.path)
    dmgd.distill(SourceSpec("digits"), PriorSpec("digits"), out=tmp_path / "again", **QUICK)
    assert tree(tmp_path / "again") == tree(run.path)


def test_statistics_may_be_a_file(tmp_path):
    dmgd.fit_statistics("digits", k=3).save(str(tmp_path / "stats.safetensors"))
    run = dmgd.distill("digits", ipc=1, steps=5, out=tmp_path / "run", statistics=str(tmp_path / "stats.safetensors"))
    assert run.manifest["plan"]["method"]["k"] == 3


def test_data_and_weights_are_those_that_were_given(tmp_path, monkeypatch):
    """And are used for everything done with the run: the embedded prior has none of ImageNet's classes."""
    for split, seed in (("train", 0), ("val", 1)):
        as_folder(tmp_path / "photos" / split, pictures(WNIDS[:2], per_class=4, seed=seed))
    weights = small_prior(tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    run = dmgd.distill("folder:photos", "./weights", out="run", **QUICK)
    assert run.specs == (SourceSpec(f"folder:{tmp_path / 'photos'}"), PriorSpec(str(weights), precision="fp32"))
    done = dmgd.evaluate("run", repeats=1, epochs=1, against=("dit",))
    assert (done.settings["source"]["name"], len(done.scores)) == ("folder:photos", 2)
    assert dmgd.verify("run", regenerate=1).problems == []


def test_the_prior_of_a_source_is_its_own_default(run):
    assert run.specs == (SourceSpec("digits"), PriorSpec("digits", precision="fp32"))


def test_several_sets_are_evaluated_as_runs_or_paths(run, tmp_path):
    dmgd.export(str(run.path), "parquet", str(tmp_path / "out"))
    prior = dmgd.load_prior("digits", device="cpu")
    done = dmgd.evaluate([run, tmp_path / "out"], "digits", prior, **SOON)
    assert [score.name for score in done.scores] == ["d", str(tmp_path / "out")]
    assert dmgd.evaluate(run, **SOON).scores[0].last == done.scores[0].last == done.scores[1].last


def test_a_run_is_verified_against_a_lock_file_by_name(run, tmp_path):
    lock = str(tmp_path / "lock.json")
    dmgd.verify(run, write_lock=lock)
    assert dmgd.verify(str(run.path), lock=lock).checked[-1] == "lock file: equal pixels"


def test_a_wrong_device_is_refused_even_where_none_is_needed(run):
    with pytest.raises(UsageError, match="the device 'tpu' cannot be used"):
        dmgd.verify(run, device="tpu")


def test_equal_settings_are_recorded_equally():
    assert repr(StatisticsConfig(max_bad=1)) == repr(StatisticsConfig(max_bad=1.0))
    assert json.dumps(DistillConfig(ipc=np.int64(2)).to_json()) == json.dumps(DistillConfig(ipc=2).to_json())
    with pytest.raises(UsageError, match="unexpected keyword argument 'kk'"):
        dmgd.fit_statistics("digits", kk=5)


def test_settings_change_a_method_as_its_name():
    assert DistillConfig.of(DMGDPaper(), steps=46) == DistillConfig.of("dmgd-paper", steps=46)
    with pytest.raises(UsageError, match="k must be a whole number, not None"):
        dataclasses.replace(StatisticsConfig(), k=None)
    with pytest.raises(UsageError, match="regenerate must be at least 0, not -2"):
        VerifyConfig(regenerate=-2)
    recorded = {name: value for name, value in DMGDPaper().to_json().items() if name != "rho"}
    with pytest.raises(UsageError, match="not those of dmgd-paper here: rho, tau differ"):
        method_from_json({**recorded, "tau": 1})


def test_a_run_that_was_moved_away_is_not_called_unfinished(tmp_path):
    run = make_run(tmp_path / "run")
    run.path.rename(tmp_path / "moved")
    with pytest.raises(UsageError, match="run is no longer there"):
        run.to_dataset()


@dataclasses.dataclass(frozen=True)
class Settings:
    on: bool = True
    share: float = setting(0.5, at_most=1)
    pair: tuple[int, int] | None = None

    __post_init__ = check_settings


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"on": "no"}, "on must be True or False, not 'no'"),
        ({"share": "0.5"}, "share must be a finite number, not '0.5'"),
        ({"share": True}, "share must be a finite number, not True"),
        ({"share": 2}, "share must be at most 1, not 2.0"),
        ({"pair": [4, 1]}, "pair must be two increasing numbers, at least 0, not 4,1"),
        ({"pair": 3}, "pair must be two increasing numbers, at least 0, not 3"),
        ({"pair": (0.5, 3)}, "pair must be two increasing numbers"),
    ],
)
def test_settings_of_another_kind_are_refused(given, said):
    with pytest.raises(UsageError, match=said):
        Settings(**given)
    assert Settings(pair=[1, 4]) == Settings(pair=(1, 4))


@pytest.mark.parametrize("wrong", [None, 3, ["digits"]])
def test_what_names_nothing_is_refused(wrong, run, tmp_path):
    with pytest.raises(UsageError, match="is neither a name nor a path nor a SourceSpec"):
        dmgd.distill(wrong, out=tmp_path / "run")
    with pytest.raises(UsageError, match="is neither a name nor a path nor a PriorSpec"):
        PriorSpec.of(wrong)
    with pytest.raises(UsageError, match="unknown baseline 'randon'; did you mean 'random'"):
        dmgd.evaluate(run, against=("randon",))
    with pytest.raises(UsageError, match="unknown baseline"):
        dmgd.evaluate(run, against="randoms")


def test_what_is_not_a_run_is_refused_before_work_starts(tmp_path):
    (tmp_path / "photo.png").touch()
    with pytest.raises(UsageError, match="is not a run"):
        dmgd.distill("digits", "a prior that is never looked for", out=tmp_path)


def test_plain_samples_take_any_statistics(tmp_path):
    statistics = dmgd.fit_statistics("digits", k=3)
    assert (
        len(dmgd.distill("digits", ipc=1, out=tmp_path / "run", method="dit", steps=2, statistics=statistics).records())
        == 10
    )


def test_progress_is_shown_on_request(run, tmp_path, capsys):
    dmgd.distill("digits", out=tmp_path / "run", **QUICK)
    assert capsys.readouterr() == ("", "")
    dmgd.export(run, "tensors", tmp_path / "out", progress=True)
    assert capsys.readouterr().err.startswith("export: 20/20 images")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ipcs": 5}, "ipcs has no effect: dmgd has no such setting"),
        ({"method": "dit", "rho": 0.3}, "rho has no effect"),
        ({"config": DistillConfig(), "rho": 0.3}, r"either a config or settings, not both \(rho\)"),
        ({"device": "tpu"}, "the device 'tpu' cannot be used"),
        ({"resume": True}, "is not a run"),
        ({"ipc": 1.5}, "ipc must be a whole number, not 1.5"),
        ({"ipc": True}, "ipc must be a whole number, not True"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"rho": float("inf")}, "rho must be a finite number, not inf"),
        ({"method": DMGD(), "rhoo": 3}, "rhoo has no effect"),
        ({"method": DMGD(distribution=False), "rho": 0.2}, "there is no distribution matching"),
    ],
)
def test_wrong_requests_are_refused_before_work_starts(settings, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        dmgd.distill("digits", out=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_what_is_returned_has_a_short_repr(run):
    assert repr(run) == f"RunDirectory('{run.path}', digits, 20 images of 10 classes, dit, ipc 2)"
    unfinished = dataclasses.replace(run, manifest={**run.manifest, "status": "running"})
    assert repr(unfinished).endswith("ipc 2, unfinished)")
    assert repr(dmgd.open_source("digits")) == "Source('digits', 10 classes, scikit-learn, split 1257/540)"
    prior = dmgd.load_prior("digits", device="cpu")
    assert repr(prior) == "Prior('digits', 10 classes, latents 1×8×8, fp32, cpu)"
    statistics = "Statistics(digits, 1257 images of 10 classes, 3 support points in 64 dimensions each)"
    assert repr(dmgd.fit_statistics("digits", prior, k=3)) == statistics
    said = repr(dmgd.evaluate(run, **SOON))
    assert said.startswith("Evaluation(d ")
    assert said.endswith(" ± 0.0 % top-1 on digits)")


def test_a_notebook_shows_preview_and_settings(tmp_path):
    run = make_run(tmp_path / "run")
    shown = run._repr_html_()
    assert base64.b64encode((run.path / "preview.png").read_bytes()).decode() in shown
    assert "<tr><td>ipc</td><td>3</td></tr>" in shown
    assert "<tr><td>guidance_scale</td><td>1.5</td></tr>" in shown  # the prior's, as it was settled
    specs = {**run.manifest["specs"], "source": SourceSpec("folder:<b>&").to_json()}
    named = RunDirectory(tmp_path / "nowhere", {**run.manifest, "specs": specs})._repr_html_()
    assert "<td>folder:&lt;b&gt;&amp;</td>" in named
    assert "<b>" not in named
    assert "<img" not in named


def test_a_notebook_shows_the_table_of_an_evaluation(run):
    done = dmgd.evaluate(run, **SOON)
    renamed = dataclasses.replace(done.scores[0], name="<d>")
    shown = dataclasses.replace(done, scores=(renamed,))._repr_html_()
    assert "<th>last epoch</th>" in shown
    assert "<td>&lt;d&gt;</td><td>20</td>" in shown


def test_a_run_is_the_dataset_that_its_export_is(tmp_path):
    from datasets import load_dataset

    run = make_run(tmp_path / "run", names=("crane", "crane"))
    dmgd.export(run, "parquet", tmp_path / "out")
    exported = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
    made = dmgd.open_run(tmp_path / "run").to_dataset()
    assert made.features == exported.features
    for one, other in zip(made, exported, strict=True):
        assert one.pop("image").tobytes() == other.pop("image").tobytes()
        assert one == other


def test_the_command_line_is_a_module_too():
    done = subprocess.run([sys.executable, "-m", "dmgd_cli", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"dmgd {dmgd.__version__}\n"


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("dis", "distill"),
        ("distill --see", "--seed"),
        ("distill --method dmgd-", "dmgd-paper dmgd-released"),
        ("fit-stats --source imagew", "imagewoof"),
        ("distill --prior dit", "dit-xl-2-256 dit-xl-2-512"),
        ("export run --format w", "webdataset"),
    ],
)
def test_the_shell_completes_commands_options_and_values(dmgd, typed, completed):
    words = ["dmgd", *typed.split()]
    done = dmgd(_DMGD_COMPLETE="complete_bash", COMP_WORDS=" ".join(words), COMP_CWORD=str(len(words) - 1))
    assert done.stdout.split() == completed.split()
