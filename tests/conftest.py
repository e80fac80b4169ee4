"""Every test has its own empty home and cache, no token, and no network but the loopback."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # what a test expects is a CPU's, on a machine with a GPU, too

import pytest
import torch

torch.set_num_threads(1)  # the networks here are too small for more


@pytest.fixture(scope="session", autouse=True)
def _away_from_home(tmp_path_factory):
    """Shared fixtures must not use the user's cache, either."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("shared-cache")))
        yield


@pytest.fixture(autouse=True)
def _isolated(tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    monkeypatch.setenv("DMGD_ARCHIVES", "http://127.0.0.1:9")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of the commands that tests run
    monkeypatch.delenv("HF_TOKEN", raising=False)
    connect = socket.socket.connect

    def loopback_only(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"the tests have no network (asked for {address})")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", loopback_only)


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


@pytest.fixture
def inline(monkeypatch, capsys):
    """Like the fixture `dmgd`, but in this process, which is faster."""

    from dmgd_cli.app import main

    def run(*arguments, code=0):
        monkeypatch.setattr("sys.argv", ["dmgd", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert (ended.value.code or 0) == code, said.err
        return SimpleNamespace(stdout=said.out, stderr=said.err)

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
