"""`dmgd distill` and `dmgd fit-stats` as a user types them."""

import functools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmgd.diffusion.schedule import respaced, training_alpha_bar
from dmgd.matching.methods import method_named
from dmgd.runs.directory import RunDirectory


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_same_command_same_bytes(dmgd, inline, tmp_path):
    """In different processes, of which one has the first's statistics in its cache."""
    command = ("distill", "--source", "digits", "--ipc", 2, "--steps", 10)
    for name, run in (("one", dmgd), ("two", inline)):
        run(*command, "--out", tmp_path / name)
    inline(*command, "--seed", 1, "--out", tmp_path / "other")
    one, two, other = (contents(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert sum(name.startswith("images/") for name in one) == 20
    assert not any(one[name] == other[name] for name in one if name.startswith("images/"))


def test_statistics_given_or_fitted_make_the_same_run(inline, tmp_path):
    arguments = ("--source", "digits", "--ipc", 1, "--method", "dit", "--steps", 5)
    inline("fit-stats", "--source", "digits", "--no-cache", "--out", tmp_path / "s.safetensors")
    said = inline("distill", *arguments, "--stats", tmp_path / "s.safetensors", "--out", tmp_path / "given", "--json")
    inline("distill", *arguments, "--out", tmp_path / "fitted")
    fitted = contents(tmp_path / "fitted")
    fitted.pop("weights.json")  # with statistics that are given, the source need not be encoded
    assert contents(tmp_path / "given") == fitted
    result = json.loads(said.stdout)
    assert result["images"] == 10
    assert result["config"]["method"]["guidance_scale"] is None
    run = RunDirectory.open(tmp_path / "given")
    assert run.complete
    assert [info.name for info in run.classes] == list("0123456789")
    assert {record.other_class for record in run.records()} == {None}


def test_solver_and_guidance_interval_reach_the_run(inline, tmp_path):
    arguments = ("--source", "digits", "--ipc", 1, "--steps", 5)
    inline("distill", *arguments, "--out", tmp_path / "ddpm")
    inline("distill", *arguments, "--solver", "dpm++", "--guidance-interval", 1, 3, "--out", tmp_path / "dpm")
    one, other = (RunDirectory.open(tmp_path / name) for name in ("ddpm", "dpm"))
    assert (other.config.method.solver, other.config.method.guidance_interval) == ("dpm++", (1, 3))
    pairs = zip(one.records(), other.records(), strict=True)
    assert all(a.pixels_sha256 != b.pixels_sha256 for a, b in pairs)


def test_fixed_steps_of_a_method_keep_their_noise_level_with_fewer_steps():
    noise = [[step.alpha_bar for step in respaced(training_alpha_bar(), steps)] for steps in (50, 20)]
    for name in ("dmgd-paper", "dmgd-released", "mgd3"):
        whole, fewer = method_named(name), method_named(name, steps=20)
        for first, last in zip(whole.window, fewer.window, strict=True):
            assert abs(noise[0][first] - noise[1][last]) < 0.03
    assert method_named("dmgd-paper", steps=20).stages == (10, 17)
    assert method_named("dmgd-released", steps=20).stages == (500, 900)


REFUSED = [
    (["--source", "digit"], 2, "did you mean 'digits'"),
    (["--prior", "digit"], 2, "did you mean 'digits'"),
    (["--method", "dgmd"], 2, "did you mean 'dmgd'"),
    (["--ipc", "0"], 2, "ipc must be at least 1, not 0"),
    (["--window", "60", "70"], 2, "window 60,70 has no effect: the steps are 0 to 49"),
    (["--steps", "5000"], 2, "steps must be at most 1000"),
    (["--window", "9", "3"], 2, "window must be two increasing numbers"),
    (["--method", "dit", "--rho", "1"], 2, "rho has no effect"),
    (["--guidance-interval", "9", "3"], 2, "guidance-interval must be two increasing numbers"),
    (["--batch-size", "0"], 2, "batch-size must be at least 1, not 0"),
    (["--precision", "fp8"], 2, "known: auto, fp32, bf16, fp16"),
    (["--device", "tpu"], 2, "try --device cpu"),
    (["--vae", "none"], 2, "nothing to decode them with"),
    (["--stats", "missing.safetensors"], 1, "dmgd fit-stats"),
    (["--prior", "dit-xl-2-256"], 1, "lacks 10 of the 10 classes"),
    (["--prior", "facebook/dit"], 1, "HF_HOME"),
    (["--encoder", "./taesdd"], 2, "the encoder ./taesdd does not exist"),
    (["--encoder", "taesdd"], 1, "the encoder 'taesdd' is not in the cache"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), REFUSED)
def test_wrong_input_is_one_line_and_writes_nothing(inline, tmp_path, arguments, code, message):
    assert_refused(inline, tmp_path / "run", arguments, code, message)


def test_a_wrong_choice_is_one_line_and_writes_nothing(dmgd, tmp_path):
    """In a process of its own, because under pytest the types of arguments are checked before they get there."""
    assert_refused(dmgd, tmp_path / "run", ["--solver", "euler"], 2, "known: ddpm, dpm++")


def assert_refused(run, out, arguments, code, message):
    arguments = [*arguments, *([] if "--source" in arguments else ["--source", "digits"])]
    said = run("distill", *arguments, "--out", out, code=code)
    assert message in said.stderr
    assert said.stdout == ""
    assert [line for line in said.stderr.splitlines() if line.startswith("error: ")] == said.stderr.splitlines()[-1:]
    assert not out.exists()


def test_statistics_are_not_written_to_a_folder(inline, tmp_path):
    """Which is said before they are computed."""
    said = inline("fit-stats", "--source", "digits", "--out", tmp_path, code=2)
    assert said.stderr == f"error: --out {tmp_path} is a folder; name a file, such as {tmp_path}/stats.safetensors\n"


def test_help_says_the_defaults_of_settings_and_what_a_pair_is(inline):
    text = " ".join(inline("distill", "--help").stdout.replace("│", " ").split())
    for part in (
        "--window FIRST LAST Step indices of distribution matching. Default: by the data (dmgd), 30 45 (dmgd-paper, "
        "dmgd-released), 26 49 (mgd3).",
        "--stages REFINE EXPLORE",
        "--steps <int> Sampling steps. Default: the prior's own, 50 for most.",
        "--sinkhorn-iterations <int> Sinkhorn iterations. (dmgd-paper, dmgd-released) Default: 5.",
        "Default: the prior's own (dmgd, mgd3, dit), 4.0 (dmgd-paper, dmgd-released).",
    ):
        assert part in text


def test_windows_is_told_at_once():
    for module, code in (("dmgd_cli.app", 1), ("dmgd", 1)):
        script = f"import sys; sys.platform = 'win32'; import {module}"
        said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert said.returncode == code
        assert said.stderr.splitlines()[-1].endswith("dmgd runs on Linux and macOS; on Windows, use it in WSL")
        assert module == "dmgd" or len(said.stderr.splitlines()) == 1


def test_other_peoples_files_are_left_alone(inline, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    said = inline("distill", "--source", "digits", "--out", tmp_path / "mine", code=2)
    assert "is not a run" in said.stderr
    assert contents(tmp_path / "mine") == {"thesis.txt": b"words"}


def test_another_run_and_other_statistics_are_refused(inline, tmp_path):
    inline("distill", "--source", "digits", "--ipc", 1, "--steps", 5, "--out", tmp_path / "run")
    before = contents(tmp_path / "run")
    said = inline("distill", "--source", "digits", "--ipc", 1, "--steps", 6, "--out", tmp_path / "run", code=1)
    assert "config.method.steps: 5 there, 6 requested" in said.stderr
    assert contents(tmp_path / "run") == before

    inline("fit-stats", "--source", "digits", "--k", 3, "--out", tmp_path / "k3")
    paper = ("--method", "dmgd-paper", "--stats", tmp_path / "k3", "--out", tmp_path / "new")
    said = inline("distill", "--source", "digits", *paper, code=1)
    assert "statistics are of another k (3, not this 10)" in said.stderr
    (tmp_path / "k3").write_bytes((tmp_path / "k3").read_bytes()[:-10])
    said = inline("distill", "--source", "digits", "--stats", tmp_path / "k3", "--out", tmp_path / "new", code=1)
    assert "damaged" in said.stderr
    assert not (tmp_path / "new").exists()


def test_an_interrupt_says_how_to_continue(tmp_path):
    """Ctrl-C ends with 130 and the command that continues; finished work is kept."""
    command = [Path(sys.executable).parent / "dmgd", "distill", "--source", "digits", "--ipc", "50"]
    command += ["--method", "dmgd-paper", "--out", tmp_path / "run"]
    # A test suite in the background ignores interrupts, and so would its child processes.
    listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=listen)
    while not list((tmp_path / "run").glob("batches/*.json")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130
    line = f"dmgd distill --source digits --ipc 50 --method dmgd-paper --out {tmp_path}/run"
    assert said.splitlines()[-1] == f"interrupted; finished work is kept, the same command continues: {line}"
    assert not RunDirectory.open(tmp_path / "run").complete
