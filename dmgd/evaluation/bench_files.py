"""The files of a comparison: its data, its tables and its report."""

from pathlib import Path

from dmgd.evaluation.bench_sets import RESULT
from dmgd.evaluation.comparison_table import Comparison
from dmgd.files import write_json


def write_comparison(comparison: Comparison, out: Path) -> None:
    """Write bench.json to the folder."""
    write_json(out / RESULT, comparison.to_json())
