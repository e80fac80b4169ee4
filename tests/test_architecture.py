"""The house: who may import whom, and what the command line loads before it must."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOUNDATION = {"classnames", "command_line", "config", "errors", "files", "imagenet", "lock", "progress", "records"}
ROOMS = {"matching", "diffusion", "priors", "sources", "artifacts", "exporters", "evaluation"}
ALLOWED_NEIGHBOURS = {("evaluation", "artifacts")}


def imports(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


def level(part: str) -> int:
    """foundation ← rooms ← pipeline (what several workflows share) ← workflows"""
    return 0 if part in FOUNDATION else 1 if part in ROOMS else 2 if part == "pipeline" else 3


@pytest.mark.parametrize("path", sorted((ROOT / "dmgd").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    own = path.relative_to(ROOT / "dmgd").parts[0].removesuffix(".py")
    if own == "__init__":
        assert not {m for m in imports(path) if m.startswith("dmgd.")}
        return
    modules = imports(path)
    assert not {m for m in modules if m.split(".")[0] == "dmgd_cli"}
    if own in FOUNDATION:
        assert not {m.split(".")[0] for m in modules} - set(sys.stdlib_module_names) - {"dmgd"}
    for other in {m.split(".")[1] for m in modules if m.startswith("dmgd.")} - {own}:
        beside = level(own) == level(other) == 0 or (own, other) in ALLOWED_NEIGHBOURS
        assert level(other) < level(own) or beside, f"{own} imports {other}"


def test_the_command_line_is_light():
    """`dmgd --help` and `import dmgd` load none of the heavy libraries."""
    heavy = {"torch", "diffusers", "ot", "datasets", "webdataset", "sklearn", "numpy", "huggingface_hub"}
    script = "import sys, dmgd_cli.app, dmgd, dmgd.config; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not heavy & {name.split(".")[0] for name in loaded}


def test_every_command_has_two_examples_and_fits_a_terminal(dmgd):
    root = dmgd("--help").stdout
    for command in [path.stem.replace("_", "-") for path in (ROOT / "dmgd_cli").glob("*.py") if is_command(path)]:
        assert f" {command} " in root
        said = dmgd(command, "--help").stdout
        assert said.count(f"dmgd {command} ") >= 3  # usage and two examples
        assert max(map(len, said.splitlines())) <= 80


def is_command(path: Path) -> bool:
    return "\ndef command(" in path.read_text()
