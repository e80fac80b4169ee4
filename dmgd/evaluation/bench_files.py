"""The files of a comparison: its data, its tables and its report."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from dmgd.evaluation.bench_sets import RESULT
from dmgd.evaluation.comparison_formats import comparison_files
from dmgd.evaluation.comparison_table import Comparison
from dmgd.evaluation.examples import Examples
from dmgd.evaluation.report import write_bench_report
from dmgd.files import write_bytes, write_json

REPORT = "report.html"


def write_comparison(comparison: Comparison, out: Path, examples: Callable[[], Examples | None]) -> Comparison:
    """Write the tables and the report to the folder, and last bench.json. The comparison is returned with the date of
    bench.json, if that is there and says the same.

    The report, whose `examples` take a while, is drawn only if bench.json says something else or there is no report.
    """
    result = comparison.to_json()
    known = _known(out / RESULT)
    date = known.get("settings", {}).get("date")
    settings = {**comparison.settings, "date": date}
    unchanged = {**result, "settings": settings} == known
    if unchanged:
        comparison = replace(comparison, settings=settings)
        result = comparison.to_json()
    if not unchanged:
        (out / RESULT).unlink(missing_ok=True)  # until the report is of this comparison, too
    if not unchanged or not (out / REPORT).is_file():
        write_bench_report(result, out, examples())
    for name, text in comparison_files(result).items():
        write_bytes(out / name, text.encode())
    write_json(out / RESULT, result)
    return comparison


def _known(path: Path) -> dict[str, Any]:
    """The content of bench.json; nothing if it is not there or damaged."""
    with suppress(OSError, ValueError):
        known = json.loads(path.read_bytes())
        if isinstance(known, dict) and isinstance(known.get("settings"), dict):
            return known
    return {}
