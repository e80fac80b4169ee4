"""`dmgd export --push-to-hub`, with the real client against a Hub on the loopback."""

import pytest
from hub_server import running_hub
from made_run import make_run

from dmgd.workflows.export import export

TOKEN = "hf_neverToBeSeen0123456789"


@pytest.fixture
def hub():
    with running_hub() as (state, address):
        state.address = address
        yield state


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


@pytest.fixture
def client(hub, monkeypatch):
    """Point the client of this process to the hub, without delays between retries."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("logging.raiseExceptions", False)  # the client's log holds on to an earlier test's stderr
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def local_files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def push(run, out, *arguments):
    return ("export", run.path, "--format", "parquet", "--out", out, "--push-to-hub", "me/digits", *arguments)


def test_the_stored_bytes_are_the_local_ones_and_a_second_push_sends_nothing(hub, run, tmp_path, dmgd):
    environment = {
        "HF_ENDPOINT": hub.address,
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    said = dmgd(*push(run, tmp_path / "out", "--private"), **environment)
    assert said.stdout.splitlines()[-1] == f"{hub.address}/datasets/me/digits"
    assert hub.repos["me/digits", "main"] == local_files(tmp_path / "out")
    assert hub.private["me/digits"]
    assert (hub.calls["upload"], hub.calls["commit"]) == (1, 1)

    again = dmgd(*push(run, tmp_path / "out"), **environment)
    assert (hub.calls["upload"], hub.calls["commit"]) == (1, 1)
    assert hub.tokens <= {f"Bearer {TOKEN}", None}
    everything = [said.stdout, said.stderr, again.stdout, again.stderr]
    assert TOKEN not in "".join(everything)
    assert TOKEN.encode() not in b"".join(local_files(tmp_path).values())


def test_a_branch_is_made_and_files_of_an_earlier_export_go(hub, client, run, tmp_path, inline):
    inline(*push(run, tmp_path / "three", "--shard-images", 2, "--revision", "v1"))
    assert len(hub.repos["me/digits", "v1"]) == 5
    hub.repos["me/digits", "v1"]["notes.txt"] = b"kept"
    said = inline(*push(run, tmp_path / "one", "--revision", "v1")).stdout
    assert said.splitlines()[-1] == f"{hub.address}/datasets/me/digits/tree/v1"
    assert hub.repos["me/digits", "v1"] == {**local_files(tmp_path / "one"), "notes.txt": b"kept"}
    assert hub.repos["me/digits", "main"] == {}


@pytest.mark.parametrize(
    ("call", "statuses", "advice"),
    [
        ("create", [401, 401], "hf auth login"),
        ("create", [400], "check the name me/digits"),
        ("upload", [402], "no storage left"),
        ("upload", [413], "smaller --shard-mb"),
        ("create", [500], "repeat the command later"),
        ("create", [429], "in a few minutes"),
        ("create", [0], "check the network"),
        ("preupload", [403], "with write access"),
        ("preupload", [404], "taken by a repository of another type"),
        ("preupload", [500] * 9, "repeat the command later"),
        ("batch", [429] * 9, "in a few minutes"),
        ("upload", [403], "with write access"),
        ("upload", [0] * 9, "check the network"),
        ("commit", [409], "changed by somebody else"),
        ("commit", [401], "hf auth login"),
    ],
)
def test_a_refusal_of_the_hub_is_a_one_line_error_and_publishes_nothing(
    hub, client, run, tmp_path, inline, call, statuses, advice
):
    hub.fail[call] = list(statuses)
    if call == "create" and statuses[0] == 401:
        hub.fail["info"] = [401]
    refused = inline(*push(run, tmp_path / "out"), code=1)
    assert advice in refused.stderr.splitlines()[-1]
    assert "nothing was published" in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr
    assert TOKEN not in refused.stderr + refused.stdout
    assert "/datasets/me/digits" not in refused.stdout
    assert not hub.repos.get(("me/digits", "main"))
    hub.fail.clear()
    inline(*push(run, tmp_path / "out"))
    assert hub.repos["me/digits", "main"] == local_files(tmp_path / "out")


@pytest.mark.parametrize(("call", "statuses"), [("upload", [0, 500]), ("preupload", [429]), ("batch", [503, 0])])
def test_a_temporary_failure_is_retried(hub, client, run, tmp_path, inline, call, statuses):
    hub.fail[call] = list(statuses)
    inline(*push(run, tmp_path / "out"))
    assert hub.calls[call] == len(statuses) + 1
    assert hub.repos["me/digits", "main"] == local_files(tmp_path / "out")


def test_nothing_is_done_without_a_token_a_name_or_a_network(hub, client, run, tmp_path, inline, monkeypatch):
    for name in ("digits", "me/di gits", "../x", "me/a/b"):
        arguments = ("export", run.path, "--out", tmp_path / "out", "--push-to-hub", name)
        assert "user/name" in inline(*arguments, code=2).stderr
    assert "--push-to-hub" in inline("export", run.path, "--out", tmp_path / "out", "--private", code=2).stderr
    monkeypatch.setenv("HF_TOKEN", "hf_ключ")
    assert "characters that no token has" in inline(*push(run, tmp_path / "out"), code=1).stderr
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    assert "hf auth login" in inline(*push(run, tmp_path / "out"), code=1).stderr
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in inline(*push(run, tmp_path / "out"), code=1).stderr
    assert not (tmp_path / "out").exists()
    assert not hub.calls


def test_an_unreachable_hub(client, run, tmp_path, inline, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in inline(*push(run, tmp_path / "out"), code=1).stderr
    inline("verify", tmp_path / "out")


def test_a_damaged_export_is_not_pushed(hub, client, run, tmp_path, inline):
    export(run, "parquet", tmp_path / "out")
    (tmp_path / "out" / "README.md").write_text("better")
    assert "README.md" in inline(*push(run, tmp_path / "out"), code=1).stderr
    assert not hub.calls
