"""The files of a comparison: its data, its tables and its report."""

from pathlib import Path

from dmgd.evaluation.bench_sets import RESULT
from dmgd.evaluation.comparison_formats import comparison_files
from dmgd.evaluation.comparison_table import Comparison
from dmgd.files import write_bytes, write_json


def write_comparison(comparison: Comparison, out: Path) -> None:
    """Write the tables to the folder, and last bench.json."""
    result = comparison.to_json()
    for name, text in comparison_files(result).items():
        write_bytes(out / name, text.encode())
    write_json(out / RESULT, result)
