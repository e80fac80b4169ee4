"""Distils a labelled image dataset into a few synthetic images per class, without training.

The public functions are loaded on first access: `import dmgd` itself does not import torch.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and type checkers see
    from dmgd.distribution.ray_engine import RayEngine
    from dmgd.exporters.distilled import open_export
    from dmgd.priors.load import load_prior
    from dmgd.runs.directory import open_run
    from dmgd.sources.open import open_source
    from dmgd.workflows.bench import bench
    from dmgd.workflows.distill import distill
    from dmgd.workflows.evaluate import evaluate
    from dmgd.workflows.export import export
    from dmgd.workflows.fit_stats import fit_statistics
    from dmgd.workflows.relabel import relabel
    from dmgd.workflows.train_prior import train_prior
    from dmgd.workflows.train_teacher import train_teacher
    from dmgd.workflows.verify import verify

if sys.platform == "win32":
    raise ImportError("dmgd runs on Linux and macOS; on Windows, use it in WSL")

__version__ = "0.1.0"
__all__ = [
    "RayEngine",
    "bench",
    "distill",
    "evaluate",
    "export",
    "fit_statistics",
    "load_prior",
    "open_export",
    "open_run",
    "open_source",
    "relabel",
    "train_prior",
    "train_teacher",
    "verify",
]

# The modules of functions that are not in the workflow of their name.
_HOMES = {
    "RayEngine": "distribution.ray_engine",
    "fit_statistics": "workflows.fit_stats",
    "load_prior": "priors.load",
    "open_export": "exporters.distilled",
    "open_run": "runs.directory",
    "open_source": "sources.open",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("dmgd.errors")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"dmgd.{_HOMES.get(name, f'workflows.{name}')}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__", "errors"])
