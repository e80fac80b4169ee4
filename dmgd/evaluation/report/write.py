"""`write_report` and `write_bench_report`."""

from pathlib import Path
from typing import Any

from dmgd.evaluation.comparison import Evaluation
from dmgd.evaluation.examples import Examples
from dmgd.evaluation.report.comparison_page import comparison_page
from dmgd.evaluation.report.evaluation_page import evaluation_page
from dmgd.exporters.distilled import require_outside_sets
from dmgd.files import write_bytes, write_json


def write_report(evaluation: Evaluation, folder: Path) -> None:
    """Write report.json and report.html to `folder`, which may exist. Raises UsageError if it lies in a run or an
    export."""
    require_outside_sets(folder / "report.json")
    result = evaluation.to_json()
    write_json(folder / "report.json", result)
    write_bytes(folder / "report.html", evaluation_page(result, evaluation.examples).encode())


def write_bench_report(result: dict[str, Any], folder: Path, examples: Examples | None = None) -> None:
    """Write report.html to `folder`, which may exist: the page of a comparison, whose JSON is `result`.

    `examples` are the images to show: of each method its set of one IPC and the first seed, named by the method, and
    real ones; `comparison_examples` makes them. Without them the page has no images and no map. Raises UsageError if
    the folder lies in a run or an export.
    """
    require_outside_sets(folder / "report.html")
    write_bytes(folder / "report.html", comparison_page(result, examples).encode())
