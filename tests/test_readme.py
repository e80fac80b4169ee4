"""README and docs are correct: commands and options exist, the demo is the one shown, the Python runs."""

import re
import shutil
import subprocess
import sys
import tarfile
from functools import cache
from pathlib import Path

import pytest
from made_run import make_run

from dmgd.evaluation import protocols
from dmgd.workflows.export import export

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(text):
    """The `dmgd …` command lines in a page's blocks, comments removed and continuations joined."""
    blocks = re.findall(r"```(?:sh|yaml)?\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = (re.search(r"(?:^|run: |\s)(dmgd [a-z-]+ .*)", line.split("  #")[0]) for line in lines)
    return [match[1] for match in found if match]


@pytest.fixture(scope="module")
def help_of(inline):
    return cache(lambda command: inline(command, "--help").stdout)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_that_is_shown_exists(page, help_of):
    for line in commands(page.read_text()):
        _, command, *words = line.split()
        for option in (word.split("=")[0] for word in words if word.startswith("--")):
            assert re.search(rf"{option}\b", help_of(command)), f"{page.name}: {line}"


def test_the_demo_runs_what_the_readme_shows():
    makefile = (ROOT / "Makefile").read_text()
    demo = re.findall(r"\$\(BIN\)/(dmgd .*demo.*)", makefile)
    assert len(demo) == 5
    assert [line for line in commands((ROOT / "README.md").read_text()) if line in demo] == demo


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="what is to be packed is what git knows")
def test_the_source_distribution_has_what_the_demo_and_the_tests_need(tmp_path):
    pytest.importorskip("setuptools")
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, files):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    script = "import setuptools.build_meta as build; build.build_sdist('out')"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, check=True)
    with tarfile.open(next((tmp_path / "out").iterdir())) as tar:
        packed = {name.partition("/")[2] for name in tar.getnames()}
        (about,) = [member for member in tar if member.name.count("/") == 1 and member.name.endswith("PKG-INFO")]
        text = tar.extractfile(about).read().decode()
    assert not {name for name in files if name and not name.startswith(".git")} - packed
    # What an index shows: no link into the repository, which would lead nowhere there.
    assert not re.findall(r"\]\((?!https://)", text)


def test_make_says_what_it_installs_and_refuses_an_old_python(tmp_path):
    old = tmp_path / "python"
    old.write_text(f'#!/bin/sh\nshift; exec {sys.executable} -c "import sys; sys.version_info = (3, 9); $1"\n')
    old.chmod(0o755)
    command = ["make", "-C", ROOT, "install", f"VENV={tmp_path / 'venv'}"]
    said = subprocess.run([*command, f"PYTHON={old}"], capture_output=True, text=True, check=False)
    assert "dmgd needs Python 3.10 or later" in said.stderr
    assert not (tmp_path / "venv").exists()
    shown = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=True).stdout
    assert "0.4 GB are downloaded" in shown
    assert "--quiet" not in shown


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.filterwarnings(r"ignore:unclosed file.*train-\d+\.tar:ResourceWarning")  # webdataset leaves them open
@pytest.mark.filterwarnings(r"ignore:.*train-\d+\.tar:pytest.PytestUnraisableExceptionWarning")
def test_the_python_examples_run(tmp_path, monkeypatch):
    """Each by itself; an evaluation trains for a moment."""
    run = make_run(tmp_path / "run")
    export(run, "webdataset", tmp_path / "demo" / "webdataset")
    export(run, "parquet", tmp_path / "demo" / "huggingface")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(protocols, "QUICK_STEPS", 1)
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        exec(block, {"__name__": "__main__"})
    assert len(list((tmp_path / "runs" / "one").rglob("images/*/*.png"))) == 10


def test_the_changelog_is_about_this_version():
    from dmgd import __version__

    assert __version__ in (ROOT / "pyproject.toml").read_text()
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text()
