"""`report.html`: one self-contained page about an evaluation, or a comparison of methods, to be shown to others."""

from dmgd.evaluation.report.write import write_bench_report, write_report

__all__ = ["write_bench_report", "write_report"]
