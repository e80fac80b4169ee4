"""Specs of data and weights are recorded, reused, compared and published; and a plan is resolved once."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from made_run import make_run
from source_stand_ins import WNIDS, as_folder, pictures, small_encoder, small_prior

from dmgd.config import StatisticsConfig
from dmgd.errors import ArtifactError, MismatchError, UsageError
from dmgd.exporters.command import distill_command
from dmgd.generation.config import DistillConfig
from dmgd.generation.plan import Plan, make_plan
from dmgd.matching.methods import method_named
from dmgd.priors.load import load_prior, settled_precision
from dmgd.priors.prior import PriorDefaults
from dmgd.runs.directory import RunDirectory
from dmgd.sources.open import open_source
from dmgd.specs import PriorSpec, SourceSpec
from dmgd.statistics.content import check_statistics
from dmgd.workflows.distill import distill
from dmgd.workflows.fit_stats import fit_statistics

QUICK = DistillConfig(ipc=2, method=method_named("dit", steps=2))
SETTINGS = ("--method", "dit", "--steps", 2, "--ipc", 2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return small_prior(tmp_path_factory.mktemp("secret") / "weights")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("secret") / "photos"
    for split, seed in (("train", 0), ("val", 1)):
        as_folder(root / split, pictures(WNIDS[:2], per_class=4, seed=seed))
    return root


def test_a_run_records_what_it_was_given(weights, photos, tmp_path, monkeypatch):
    """Not the defaults; and a relative path can be opened from another working directory, too."""
    monkeypatch.chdir(photos.parent)
    run = distill(open_source("folder:photos"), load_prior(str(weights), precision="bf16"), QUICK, out=tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert run.specs == (SourceSpec(f"folder:{photos}"), PriorSpec(str(weights), precision="bf16"))
    assert open_source(run.specs[0]).classes == open_source(f"folder:{photos}").classes


def test_options_override_a_spec_and_another_name_resets_it():
    spec = SourceSpec("imagenette", variant="320px", class_map="/map.csv")
    assert spec.with_options(variant="160px", data=None) == replace(spec, variant="160px")
    assert spec.with_options(name="imagenette") == spec
    assert spec.with_options(name="imagewoof") == SourceSpec("imagewoof")
    assert spec.with_options(data="/copy") == SourceSpec("imagenette", data="/copy")
    half = PriorSpec("here", vae="/vae", precision="bf16")
    assert half.with_options(name="there") == PriorSpec("there", precision="bf16")  # a choice, and no name
    assert PriorSpec("here", size=512).with_options(name="there").size == 512
    with pytest.raises(UsageError, match="did you mean 'fp16'"):
        PriorSpec("digits").with_options(precision="fp61")


def test_the_precision_auto_is_settled_by_the_device_and_recorded(monkeypatch):
    """And is left out of a command only where it would be settled the same again."""
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for has_bf16, settled in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has_bf16: has)
        assert settled_precision("auto", gpu) == settled
    assert (settled_precision("auto", cpu), settled_precision("fp16", gpu)) == ("fp32", "fp16")
    assert load_prior("digits", device="cpu").spec.precision == "fp32"
    source, config = SourceSpec("digits"), DistillConfig()
    for precision, device, is_said in (("fp32", "cpu", False), ("bf16", "cuda", False), ("fp32", "cuda", True)):
        command = distill_command(config, source, PriorSpec("digits", precision=precision), device=device)
        assert (f"--precision {precision}" in command) == is_said


def test_a_path_that_was_not_published_is_requested(weights):
    assert PriorSpec(str(weights)).published() == PriorSpec("PATH/weights")
    for opened in (lambda: open_source("folder:PATH/photos"), lambda: load_prior("PATH/weights")):
        with pytest.raises(UsageError, match=r"PATH/\w+ is a path on the machine that the set was made on"):
            opened()


@pytest.fixture(scope="module")
def local(weights, photos, tmp_path_factory):
    """A run of local data with a local prior."""
    out = tmp_path_factory.mktemp("secret") / "run"
    return distill(open_source(f"folder:{photos}"), load_prior(str(weights)), QUICK, out=out)


def test_evaluate_remembers_the_runs_own_prior(local, inline):
    options = ("--epochs", 1, "--repeats", 1, "--against", "dit", "--json")
    assert [s["name"] for s in json.loads(inline("evaluate", local.path, *options).stdout)["scores"]] == ["run", "dit"]


def test_data_and_weights_may_move(local, weights, photos, tmp_path):
    """The run stays the same, and is given their new paths."""
    shutil.copytree(local.path, tmp_path / "run")
    for folder in (photos, weights):
        shutil.copytree(folder, tmp_path / folder.name)
    moved = open_source(f"folder:{tmp_path / 'photos'}"), load_prior(str(tmp_path / "weights"))
    run = distill(*moved, QUICK, out=tmp_path / "run")
    assert run.specs == (
        SourceSpec(f"folder:{tmp_path / 'photos'}"),
        PriorSpec(str(tmp_path / "weights"), precision="fp32"),
    )
    assert RunDirectory.open(tmp_path / "run").complete


def test_a_renamed_prior_is_the_same_prior(local, weights, photos, tmp_path, inline):
    """Its id, the name of its folder, is a label: run, statistics, images and lock file are compared by its digest."""
    shutil.copytree(local.path, tmp_path / "run")
    shutil.copytree(weights, tmp_path / "renamed")
    source, prior = ("--source", f"folder:{photos}"), ("--prior", tmp_path / "renamed")
    inline("verify", local.path, "--write-lock", tmp_path / "lock.json")
    inline("distill", *source, *prior, *SETTINGS, "--out", tmp_path / "run")
    assert RunDirectory.open(tmp_path / "run").manifest["prior"]["id"] == "renamed"
    fitted = tmp_path / "fitted"
    inline("fit-stats", *source, *prior, "--k", local.manifest["statistics"]["k"], "--out", fitted)
    for options in ((), ("--stats", fitted)):
        said = inline("verify", local.path, *prior, "--regenerate", 1, *options).stdout
        assert "1 images regenerated" in said
    assert "equal pixels" in inline("verify", tmp_path / "run", "--lock", tmp_path / "lock.json").stdout


def edited(path, **changes):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **changes}))


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("dmgd.json", {"guidance_scale": 2.5}, "prior.guidance_scale: 4.0 there, 2.5 requested"),
        ("dmgd.json", {"guided_channels": 3}, "prior.guided_channels: null there, 3 requested"),
        ("dmgd.json", {"numerics": "original"}, "prior.network.frequency_divisor: 127 there, 128 requested"),
        ("transformer/config.json", {"norm_eps": 0.1}, "prior.network.norm_eps: 1e-05 there, 0.1 requested"),
        (
            "scheduler/scheduler_config.json",
            {"beta_schedule": "squaredcos_cap_v2"},
            'prior.diffusion.beta_schedule: "linear" there, "squaredcos_cap_v2" requested',
        ),
        ("vae/config.json", {"scaling_factor": 0.5}, "prior.codec.scaling_factor: 0.18215 there, 0.5 requested"),
    ],
)
def test_an_edited_prior_continues_no_run_and_verify_reports_it(local, weights, tmp_path, inline, file, changes, said):
    shutil.copytree(weights, tmp_path / "weights")
    edited(tmp_path / "weights" / "dmgd.json", numerics="diffusers")
    again = ("--source", local.specs[0].name, "--prior", tmp_path / "weights", *SETTINGS, "--out", tmp_path / "run")
    inline("distill", *again)
    edited(tmp_path / "weights" / file, **changes)
    refused = inline("distill", *again, code=1).stderr
    assert said in refused
    assert refused.splitlines()[-1].startswith("error: ")
    assert said.removeprefix("prior.") in inline("verify", tmp_path / "run", "--regenerate", 2, code=1).stderr


def test_a_run_of_other_images_is_not_regenerated(local, photos, weights, tmp_path, inline):
    shutil.copytree(photos, tmp_path / "photos")
    source = ("--source", f"folder:{tmp_path / 'photos'}", "--prior", weights)
    inline("distill", *source, *SETTINGS, "--out", tmp_path / "run")
    inline("verify", tmp_path / "run", "--regenerate", 1)
    first, *_, last = sorted((tmp_path / "photos" / "train").rglob("*.*"))
    shutil.copy(last, first)
    refused = inline("verify", tmp_path / "run", "--regenerate", 1, code=1).stderr
    assert "was made from other images of folder:photos" in refused


def test_a_plan_has_the_rows_of_the_prior_that_is_sampled(local, weights, photos, tmp_path):
    """And not those of the prior, of the same weights, that statistics were fitted with."""
    source, prior = open_source(f"folder:{photos}"), load_prior(str(weights))
    statistics = fit_statistics(source, prior, StatisticsConfig(k=2), cache=False)
    shutil.copytree(weights, tmp_path / "weights")
    edited(
        tmp_path / "weights" / "dmgd.json",
        classes=[info.to_json() | {"prior_index": None} for info in prior.classes[::-1]],
    )
    turned = load_prior(str(tmp_path / "weights"))
    plan = make_plan(QUICK, source.spec, turned, statistics)
    assert [info.prior_index for info in plan.classes] == [
        len(prior.classes) - 1 - info.prior_index for info in statistics.classes
    ]


def test_the_paper_guides_all_channels_of_a_prior_that_guides_some(local):
    source, prior = open_source(local.specs[0]), load_prior(local.specs[1])
    prior.defaults = PriorDefaults(4.0, guided_channels=3)
    statistics = fit_statistics(source, prior, StatisticsConfig())
    plans = [make_plan(DistillConfig.of(name), source.spec, prior, statistics) for name in ("dit", "dmgd-paper")]
    assert [plan.guidance.channels for plan in plans] == [3, None]


def test_regeneration_uses_the_recorded_plan(local):
    source, prior = open_source(local.specs[0]), load_prior(local.specs[1])
    statistics = fit_statistics(source, prior, StatisticsConfig())
    config = DistillConfig(ipc=3, method=method_named("dmgd", steps=9))
    plan = make_plan(config, source.spec, prior, statistics)
    assert None not in (plan.method.window, plan.method.stages, plan.method.keep_detail, plan.config.batch_size)
    assert (plan.method.guidance_scale, plan.prior) == (4.0, prior.spec)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@pytest.fixture
def vae(weights, tmp_path):
    """An autoencoder's folder whose configuration may be edited."""
    return shutil.copytree(weights / "vae", tmp_path / "vae")


PLACEMENTS = [
    {"shift_factor": 0.1},
    {"latents_mean": [0.1, 0.2, -0.3, 0.0], "latents_std": [1.0, 2.0, 0.5, 3.0]},
    {"latents_std": [2, 2, 2, 2]},
]


@pytest.mark.parametrize("changes", PLACEMENTS)
def test_the_autoencoders_shift_mean_and_std_are_honoured(weights, vae, changes):
    """As in diffusers' pipelines, and decoding is the inverse."""
    edited(vae / "config.json", scaling_factor=0.2, **changes)
    plain, prior = load_prior(str(weights)), load_prior(str(weights), vae=str(vae))
    images = torch.randint(256, (2, 16, 16, 3), dtype=torch.uint8)
    z = plain.encode(images) / 0.18215
    mean = torch.tensor(changes.get("latents_mean", [changes.get("shift_factor", 0.0)])).view(1, -1, 1, 1)
    std = torch.tensor(changes.get("latents_std", [1.0])).view(1, -1, 1, 1)
    latents = prior.encode(images)
    torch.testing.assert_close(latents, (z - mean) * 0.2 / std)
    assert (prior.decode(latents).int() - plain.decode(z * 0.18215).int()).abs().max() <= 1


def test_contradictory_latent_means_are_refused(weights, vae):
    edited(vae / "config.json", shift_factor=0.1, latents_mean=[0.0] * 4)
    with pytest.raises(ArtifactError, match="both shift_factor and latents_mean"):
        load_prior(str(weights), vae=str(vae))


def test_latents_and_statistics_of_another_scale_are_not_reused(weights, vae, photos):
    source = open_source(f"folder:{photos}")
    before = fit_statistics(source, load_prior(str(weights), vae=str(vae)), StatisticsConfig(k=2), workers=0)
    edited(vae / "config.json", scaling_factor=2 * 0.18215)
    prior = load_prior(str(weights), vae=str(vae))
    after = fit_statistics(source, prior, StatisticsConfig(k=2), workers=0)
    torch.testing.assert_close(after.support, 2 * before.support)
    with pytest.raises(MismatchError, match="another configuration of the autoencoder"):
        check_statistics(before, source, prior, 2)


def test_the_card_says_the_whole_command_without_local_paths(photos, weights, vae, tmp_path, inline):
    class_map = tmp_path / "map.json"
    class_map.write_text(json.dumps({WNIDS[0]: WNIDS[5]}))
    encoder = small_encoder(tmp_path / "encoder")
    given = ("--source", f"folder:{photos}", "--class-map", class_map, "--prior", weights, "--vae", vae)
    inline("distill", *given, "--encoder", encoder, *SETTINGS, "--out", tmp_path / "run")
    inline("export", tmp_path / "run", "--out", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    command = next(line for line in card.splitlines() if line.startswith("dmgd distill"))
    assert command.startswith(
        "dmgd distill --source folder:PATH/photos --ipc 2 --class-map PATH/map.json --prior PATH/weights "
        "--vae PATH/vae --encoder PATH/encoder --method dit --batch-size "
    )
    assert command.endswith("# PATH: the folder where you keep it")
    assert not any(str(tmp_path) in path.read_text() for path in (tmp_path / "out").glob("*.*"))
    assert "a path on the machine" in inline("verify", tmp_path / "out", "--regenerate", 1, code=2).stderr
    placed = (*given[:2], "--class-map", class_map, "--prior", weights, "--vae", vae, "--encoder", encoder)
    assert "1 images regenerated" in inline("verify", tmp_path / "out", "--regenerate", 1, *placed).stdout


def test_test_data_is_an_option_of_evaluate_only(inline):
    for command in ("fit-stats", "distill", "verify"):
        assert "--test-data" not in inline(command, "--help").stdout
    assert "--test-data" in inline("evaluate", "--help").stdout


def test_an_image_folder_of_ours_keeps_its_classes(tmp_path, inline):
    run = make_run(tmp_path / "run", names=("tabby cat", "n01440764"))
    inline("export", run.path, "--format", "imagefolder", "--out", tmp_path / "out")
    classes = open_source(f"folder:{tmp_path / 'out'}").classes
    assert [(info.name, info.wnid) for info in classes] == [
        ("tench, Tinca tinca", "n01440764"),
        ("tabby cat", None),
    ]
    assert len(list(open_source(f"folder:{tmp_path / 'out'}").images("train"))) == 6


def test_classes_that_a_prior_lacks_are_reported_within_half_a_second(tmp_path):
    """With ImageNet's table in the package, this needs neither weights nor slow libraries."""
    as_folder(tmp_path / "photos", pictures(["cats", "dogs"], per_class=1))
    slow = "print(*{'torch', 'numpy'} & {*sys.modules})"
    script = f"import atexit, sys, dmgd_cli.app as app; atexit.register(lambda: {slow}); app.main()"
    command = [sys.executable, "-c", script, "distill", "--source", f"folder:{tmp_path / 'photos'}"]
    said = subprocess.run(
        [*command, "--out", tmp_path / "run"], capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert said.returncode == 1
    assert said.stdout == "\n"
    assert "'dit-xl-2-256' lacks 2 of the 2 classes: cats, dogs; choose a --prior" in said.stderr
