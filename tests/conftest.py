"""Every test has its own empty home and cache, no token, and no network but the loopback."""

import atexit
import io
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

# Libraries read these when they are imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="dmgd-tests-")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # what a test expects is a CPU's, on a machine with a GPU, too

import pytest
import torch

atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)
torch.set_num_threads(1)  # the networks here are too small for more


def is_own(host):
    """Whether it is a numeric address of this machine, as that of a Ray cluster's head."""
    try:
        address = ipaddress.ip_address(host)
        with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6) as own:
            own.bind((host, 0))
    except (ValueError, OSError):
        return False
    return True


def isolate(patch, home):
    patch.setenv("HOME", str(home))
    patch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    patch.setenv("HF_HOME", str(home / "hf"))
    patch.setenv("DMGD_ARCHIVES", "http://127.0.0.1:9")
    patch.setenv("COLUMNS", "80")
    patch.setenv("OMP_NUM_THREADS", "1")  # of the commands that tests run
    patch.delenv("HF_TOKEN", raising=False)
    connect = socket.socket.connect

    def loopback_only(self, address):
        if self.family != socket.AF_UNIX and address[0] != "localhost" and not is_own(address[0]):
            raise OSError(f"the tests have no network (asked for {address})")
        return connect(self, address)

    patch.setattr(socket.socket, "connect", loopback_only)


@pytest.fixture(scope="session", autouse=True)
def _away_from_home(tmp_path_factory):
    """Shared fixtures have one home together."""
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, tmp_path_factory.mktemp("shared-home"))
        yield


@pytest.fixture(autouse=True)
def _isolated(tmp_path_factory, monkeypatch):
    isolate(monkeypatch, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def dmgd():
    """Runs the installed `dmgd` command: dmgd("distill", …, code=0) → the finished process."""

    def run(*arguments, code=0, cwd=None, **environment):
        command = [str(Path(sys.executable).parent / "dmgd"), *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment}, check=False
        )
        assert done.returncode == code, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def golden():
    """The folder of recorded trajectories and tiny networks; see its README."""
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def inline():
    """Like the fixture `dmgd`, but in this process, which is faster; `encoding` is that of the terminal."""

    def run(*arguments, code=0, encoding="utf-8"):
        from dmgd_cli.app import main

        stdout, stderr = (io.TextIOWrapper(io.BytesIO(), encoding, write_through=True) for _ in range(2))
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
            patch.setattr("sys.argv", ["dmgd", *map(str, arguments)])
            with pytest.raises(SystemExit) as ended:
                main()
        said = SimpleNamespace(
            stdout=stdout.buffer.getvalue().decode(encoding), stderr=stderr.buffer.getvalue().decode(encoding)
        )
        assert (ended.value.code or 0) == code, said.stderr
        return said

    return run


@pytest.fixture
def fitted(inline, tmp_path):
    """Runs `dmgd fit-stats` on a source: the images of each class, or the one line of the error; and the warnings."""

    def run(source, *options, code=0):
        command = ["fit-stats", "--prior", "digits", "--k", 1, "--workers", 0, "--no-cache", "--json", "--max-bad", 0.9]
        out = tmp_path / "out" / "statistics"
        done = inline(*command, "--out", out, "--source", source, *options, code=code)
        lines = done.stderr.splitlines()
        if code:
            assert [line for line in lines if line.startswith("error: ")] == lines[-1:], done.stderr
            return lines[-1]
        counts = {row["class"]: row["images"] for row in json.loads(done.stdout)["classes"]}
        return counts, [line for line in lines if line.startswith("warning: ")]

    return run


@pytest.fixture
def pipeline(tmp_path, golden):
    """A pipeline folder as on the Hub: transformer/ and a small AutoencoderKL in vae/."""
    import diffusers

    shutil.copytree(golden / "dit-tiny-diffusers", tmp_path / "pipeline" / "transformer")
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, latent_channels=4, scaling_factor=0.2,
    )  # fmt: skip
    vae.save_pretrained(tmp_path / "pipeline" / "vae")
    return tmp_path / "pipeline"
