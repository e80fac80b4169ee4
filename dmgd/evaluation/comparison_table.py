"""What `bench` returns: all results, and the rows of the table that they make."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dmgd.classes.info import ClassInfo
from dmgd.errors import visible
from dmgd.evaluation.budgets import budget, warnings
from dmgd.evaluation.comparison import details
from dmgd.evaluation.comparison_rows import Row, Rows, pooled, rows_of, seconds, top1
from dmgd.evaluation.comparison_views import tables
from dmgd.evaluation.contrasts import contrasts
from dmgd.evaluation.dd_ranking import dd_ranking_scores
from dmgd.evaluation.published import published
from dmgd.evaluation.results import Result
from dmgd.evaluation.significance import LEVEL
from dmgd.evaluation.students import student_orders
from dmgd.html import table

FORMAT = 1


@dataclass(frozen=True)
class Comparison:
    """The trainings of all methods under the same terms, the `classes`, and the settings of the bench, of which
    "source" has the source's "name"."""

    results: tuple[Result, ...]
    classes: tuple[ClassInfo, ...]
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The content of bench.json: a row for every method, IPC, protocol and network.

        "ipc" is None for all images, "confusion" for more than 100 classes; "images" counts parts if "tiles" is above
        1. Accuracies, "of_full", "lrs" and "ars" are in %, differences, "hlr" and "ior" in points, sizes in bytes,
        times in seconds.
        """
        rows = rows_of(self.results)
        compared, students = contrasts(rows), student_orders(rows)
        ordering = [student["statement"] for student in students if student["statement"]]
        return {
            "format": FORMAT,
            "settings": self.settings,
            "classes": [info.to_json() for info in self.classes],
            "rows": [self._row(row, rows, compared.against[row.key]) for row in rows],
            "students": students,
            "tests": {"count": compared.tests, "level": LEVEL, "correction": "Holm"},
            "summary": compared.summary(rows),
            "statements": [*compared.statements(), *ordering],
            "warnings": warnings(rows),
        }

    def __repr__(self) -> str:
        methods = ", ".join(dict.fromkeys(result.facts.method for result in self.results))
        return visible(f"Comparison({methods}: {len(self.results)} trainings on {self.settings['source']['name']})")

    def _repr_html_(self) -> str:
        """The table of accuracies, for notebooks."""
        first = tables(self.to_json())[0]
        return table(first.columns, first.rows)

    def _row(self, row: Row, rows: Rows, against: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        facts = [result.facts for result in row.results]
        best = [reached for result in row.results if (reached := result.training.best) is not None]
        full = rows.full(row)
        return {
            **row.key._asdict(),
            "tiles": row.tiles,
            "labels": row.labels,
            "images": facts[0].images,
            "stored_images": facts[0].images // row.tiles**2,
            "pixels": facts[0].pixels,
            "image_bytes": round(sum(one.image_bytes for one in facts) / len(facts)),
            "label_bytes": round(sum(one.label_bytes for one in facts) / len(facts)),
            "top1": top1(row.results),
            "top1_best_epoch": pooled(best) if len(best) == len(row.results) else None,
            "top1_without_augmentation": top1(row.plain),
            "by_seed": [
                {"seed": r.facts.seed, "repeat": r.repeat, "top1": round(r.training.last, 3)} for r in row.results
            ],
            "of_full": round(100 * row.mean / full.mean, 3) if full and full.mean else None,
            "against": dict(against),
            **dd_ranking_scores(row, rows),
            "seconds": seconds(row),
            "published": published(row, self.settings["source"]["name"], len(self.classes)),
            "budget": budget(row),
            **details([result.training for result in row.results]),
        }
