"""What is printed: names in the data reach a terminal, a file or a page as text and never as commands to it."""

import ast
import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hub_server import running_hub
from made_run import forge, make_run, tree
from PIL import Image
from rich.console import Console

from dmgd.display import Display
from dmgd.errors import one_line, visible
from dmgd.evaluation.comparison import metrics_table
from dmgd_cli.output import print_table

HOSTILE = (":cat:", "[/x]", "[red]b", "|é|")


def shard(path, names, seed):
    """Two random grey images of each class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with tarfile.open(path, "w") as tar:
        for number, name in enumerate(names * 2):
            image = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(image, "PNG")
            about = json.dumps({"class_name": name}).encode()
            for suffix, content in (("png", image.getvalue()), ("json", about)):
                member = tarfile.TarInfo(f"{number}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def data(tmp_path):
    """A source and a set, which have hostile names, and hostile names of classes."""
    source, own = tmp_path / "[red]data", tmp_path / "[bold]\x1b]0;set"
    shard(source / "train-0.tar", HOSTILE, 0)
    shard(source / "val-0.tar", HOSTILE, 1)
    shard(own / "train-0.tar", HOSTILE, 2)
    return source, own


def test_names_in_the_data_are_shown_as_text(data, inline):
    source, own = data
    settings = ("--source", f"wds:{source}", "--epochs", 1, "--repeats", 1)
    done = inline("evaluate", own, *settings)
    assert "[bold]\\x1b]0;set" in done.stdout
    assert "wds:[red]data" in done.stdout
    for said in (done.stdout, done.stderr):
        assert all(c.isprintable() or c == "\n" for c in said)
    shard(own / "train-0.tar", ("[/y]",), 2)
    refused = inline("evaluate", own, *settings, code=1).stderr
    assert "error: [bold]\\x1b]0;set has 1 classes that the test source lacks: [/y] (it has: :cat:, [/x], " in refused
    assert len(refused.splitlines()) == 1


def test_bars_show_names_as_text(monkeypatch):
    display, shown = Display(), io.StringIO()
    display._console = Console(file=shown, force_terminal=True, width=200, color_system=None)
    display._draws_bars = True
    with display.task("train [/x]\x1b[2J", 2, "epochs") as task:
        task.describe("[/y]\x1b[2K:cat:")
        task._bars.refresh()
        task.advance()
    assert "train [/x]\\x1b[2J" in shown.getvalue()
    assert "[/y]\\x1b[2K:cat:" in shown.getvalue()


def test_all_output_passes_one_place():
    """No command prints by itself."""
    for path in Path(__file__).parent.parent.glob("dmgd_cli/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "typer.echo", "click.echo"):
                said = ast.unparse(node)
                own = path.name == "output.py" or "one_line(" in said or "__version__" in said
                assert own, f"{path.name}: {said}; use dmgd_cli.output"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_without_unicode_gets_its_results(tmp_path, inline, encoding):
    said = inline("fit-stats", "--source", "digits", "--out", tmp_path / "out", encoding=encoding).stdout
    assert f"wrote {tmp_path / 'out'}" in said
    assert "W\\u2082" in said


def test_a_table_that_is_piped_is_whole_and_a_narrow_one_is_folded(capsys, monkeypatch):
    name = "a-set-with-a-name-" + "x" * 120
    print_table("title", ["set", "value"], [[name, 1.0]])
    assert name in capsys.readouterr().out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    measured = {
        one: dict.fromkeys(("OT", "coverage", "near copies", "Fréchet"), 123.4) for one in ("run", "kmeans-real")
    }
    print_table("title", *metrics_table(measured))
    print_table("title", ["set", "value"], [[name, 1.0]])
    said = capsys.readouterr().out
    assert "…" not in said
    assert "near copies" in said
    assert said.count("x") == 120


def test_json_is_exact_whatever_the_names(data, inline):
    source, own = data
    settings = ("--source", f"wds:{source}", "--epochs", 1, "--repeats", 1, "--against", "", "--json")
    said = inline("evaluate", own, *settings).stdout
    assert said.isascii()
    assert json.loads(said)["scores"][0]["name"] == own.name
    assert [info["name"] for info in json.loads(said)["settings"]["classes"]] == sorted(HOSTILE)


def test_headings_of_a_card_cannot_be_forged(tmp_path, inline):
    run = make_run(tmp_path / "run", names=("a|b", "[c](http://d)"))
    hostile = {"name": "x\n# Forged\n<img src=y>", "variant": "v", "licence": "l\n\n![z](http://z)"}
    forge(run.path / "run.json", lambda manifest: manifest["statistics"].update(source=hostile))
    scores = {"mean": 1.0, "std": 0.5}
    score = {"name": "n|\n## Forged", "images": 3, "top1": scores, "top1_best_epoch": scores}
    settings = {"protocol": {"name": "probe", "network": "linear", "features": "f"}, "seeds": [0]}
    settings["source"] = {"test_images": 5, "name": "s"}
    (tmp_path / "scores.json").write_text(json.dumps({"settings": settings, "scores": [score]}))
    inline("export", run.path, "--out", tmp_path / "out", "--evaluation", tmp_path / "scores.json")
    text = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)[2]
    assert "# x # Forged &lt;img src=y>, distilled" in text
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert [line for line in headings if "Forged" in line] == [headings[0]]
    assert "<img" not in text
    assert "| &#91;c](http" in text
    assert not re.search(r"\[[cz]\]\(", text)
    assert "| n&#124; ## Forged | 3 | 1.0 ± 0.5 | 1.0 ± 0.5 |" in text


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("scores", 0, "top1", "mean"), float("nan")),
        (("scores", 0, "top1", "std"), "1"),
        (("scores", 0, "name"), 5),
        (("scores", 0, "images"), "many"),
        (("scores",), {"a": 1}),
        (("settings", "seeds"), 5),
        (("settings", "protocol", "epochs"), "many"),
        (("settings",), []),
    ],
)
def test_results_with_values_of_another_type_are_refused(tmp_path, keys, value):
    from dmgd.errors import ArtifactError
    from dmgd.exporters.card import read_results

    scores = {"mean": 1.0, "std": 0.5}
    result = {
        "scores": [{"name": "n", "images": 3, "top1": scores, "top1_best_epoch": dict(scores)}],
        "settings": {
            "protocol": {"name": "quick", "network": "convnet-3", "epochs": 5},
            "seeds": [0],
            "source": {"test_images": 5, "name": "s"},
        },
    }
    (tmp_path / "scores.json").write_text(json.dumps(result))
    assert "| n | 3 | 1.0 ± 0.5 |" in read_results(tmp_path / "scores.json")
    *path, last = keys
    at = result
    for key in path:
        at = at[key]
    at[last] = value
    (tmp_path / "scores.json").write_text(json.dumps(result))
    with pytest.raises(ArtifactError, match="is not the JSON of an evaluation"):
        read_results(tmp_path / "scores.json")


def test_results_that_never_end_are_refused(tmp_path):
    from dmgd.errors import ArtifactError
    from dmgd.exporters.card import read_results

    (tmp_path / "deep.json").write_text("[" * 100_000)
    for path in (Path("/dev/zero"), tmp_path / "deep.json", tmp_path / "none.json"):
        with pytest.raises(ArtifactError, match="is not the JSON of an evaluation"):
            read_results(path)


def test_credentials_in_an_address_are_never_printed(tmp_path, dmgd):
    assert visible("see https://me:pass@host/x and http://t@h") == "see https://host/x and http://h"
    assert one_line("mail me@host:\n a  b") == "mail me@host: a b"
    run = make_run(tmp_path / "run")
    with running_hub() as (hub, address):
        hub.fail["upload"], hub.fail["preupload"] = [503], [429]  # the client tells its log of these
        environment = {"HF_ENDPOINT": address.replace("://", "://me:hidden-word@"), "HF_TOKEN": "hf_x"}
        environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        push = ("--format", "parquet", "--out", tmp_path / "out", "--push-to-hub", "me/digits")
        done = dmgd("export", run.path, *push, "--json", **environment)
        assert json.loads(done.stdout)["url"] == f"{address}/datasets/me/digits"
        assert "hidden-word" not in done.stdout + done.stderr
    refused = dmgd("fit-stats", "--source", "imagenette", "--out", tmp_path / "x", code=1, **environment)
    assert "hidden-word" not in refused.stdout + refused.stderr


def test_nothing_is_written_into_a_run_or_an_export(tmp_path, inline):
    run = make_run(tmp_path / "run")
    inline("export", run.path, "--out", tmp_path / "out")
    before = tree(tmp_path)
    for where in (run.path, tmp_path / "out", tmp_path / "out" / "data"):
        commands = (
            ("evaluate", run.path, "--report", where / "report"),
            ("export", run.path, "--out", where / "inner"),
            ("distill", "--source", "digits", "--out", where / "inner"),
            ("fit-stats", "--source", "digits", "--out", where / "stats.safetensors"),
            ("verify", run.path, "--write-lock", where / "lock.json"),
        )
        for command in commands:
            assert "which is a run or an export; choose a place outside" in inline(*command, code=2).stderr
    inline("evaluate", run.path, "--report", run.path, code=2)
    assert tree(tmp_path) == before
