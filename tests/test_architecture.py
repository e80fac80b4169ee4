"""The import order of packages, and that the command line loads no heavy library early."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A package may import from those before it and from itself; `dmgd_cli` from all of them.
PACKAGES = (
    *("errors", "display", "html", "progress", "files", "guard", "network", "images", "mosaics", "specs", "config"),
    *("distribution", "classes", "diffusion", "sources", "priors"),
    *("statistics", "matching", "generation", "runs", "exporters", "evaluation", "workflows"),
)
STANDARD_LIBRARY_ONLY = {"errors", "html", "progress", "files", "guard", "specs", "config", "classes"}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("dmgd", "dmgd_cli")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def imports(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES)
            found |= submodules or {node.module or ""}
    return found


def package_of(module: str) -> str:
    return module.split(".")[1]


def test_every_package_is_in_the_list():
    assert {package_of(module) for module in MODULES if module.startswith("dmgd.")} == set(PACKAGES)


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("dmgd.")])
def test_imports_point_up_the_list(module):
    found = imports(MODULES[module])
    assert not {name for name in found if name.split(".")[0] == "dmgd_cli"}
    if package_of(module) in STANDARD_LIBRARY_ONLY:
        assert not {name.split(".")[0] for name in found} - set(sys.stdlib_module_names) - {"dmgd"}
    allowed = PACKAGES[: PACKAGES.index(package_of(module)) + 1]
    for other in {package_of(name) for name in found if name.startswith("dmgd.")}:
        assert other in allowed, f"{package_of(module)} imports {other}"


def test_no_modules_import_each_other():
    """Not even within a package, and not by imports inside functions."""
    graph = {module: imports(path) & set(MODULES) for module, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_only_the_engine_of_ray_knows_ray():
    knowing = {
        module for module, path in MODULES.items() if any(f"{name}.".startswith("ray.") for name in imports(path))
    }
    assert knowing == {f"dmgd.distribution.{name}" for name in ("ray_engine", "ray_local", "ray_workers")}


def test_pot_is_loaded_in_one_place():
    """Which keeps JAX from a GPU's memory."""
    loading = {name for name, path in MODULES.items() if "ot" in {one.split(".")[0] for one in imports(path)}}
    assert loading == {"dmgd.matching.pot"}


def public_functions(path: Path) -> list[ast.FunctionDef]:
    return [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]


def test_no_public_function_has_more_than_eight_parameters():
    for path in (ROOT / "dmgd").rglob("*.py"):
        for function in public_functions(path):
            arguments = function.args
            assert len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs) <= 8, f"{path}: {function.name}"


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("dmgd.workflows.")])
def test_a_workflow_is_one_function(module):
    top = {node for node in ast.parse(MODULES[module].read_text()).body if isinstance(node, ast.FunctionDef)}
    assert len([function for function in top if not function.name.startswith("_")]) == 1


def test_importing_dmgd_loads_no_subpackage():
    script = "import sys, dmgd; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {name for name in loaded if name.startswith("dmgd.")}


def test_the_command_line_is_light():
    """`dmgd --help` and `import dmgd` load none of the heavy libraries."""
    heavy = {"torch", "diffusers", "ot", "datasets", "webdataset", "sklearn", "numpy", "huggingface_hub"}
    script = "import sys, dmgd_cli.app, dmgd, dmgd.config; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not heavy & {name.split(".")[0] for name in loaded}


def test_every_command_has_two_examples_and_fits_a_terminal(inline):
    root = inline("--help").stdout
    for command in [path.stem.replace("_", "-") for path in (ROOT / "dmgd_cli").glob("*.py") if is_command(path)]:
        assert f" {command} " in root
        said = inline(command, "--help").stdout
        assert said.count(f"dmgd {command} ") >= 3  # usage and two examples
        assert max(map(len, said.splitlines())) <= 80


def is_command(path: Path) -> bool:
    return "\ndef command(" in path.read_text()
