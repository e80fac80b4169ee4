"""What `bench` returns: all results, and the table of methods that they make."""

import math
from dataclasses import dataclass
from typing import Any

from dmgd.classes.info import ClassInfo
from dmgd.errors import visible
from dmgd.evaluation.comparison import details
from dmgd.evaluation.comparison_rows import SELECTIONS, Row, Rows, dd_ranking, pooled, rows_of, seconds, top1
from dmgd.evaluation.results import Result
from dmgd.evaluation.significance import LEVEL, corrected, paired_difference, statement

FORMAT = 1


@dataclass(frozen=True)
class Comparison:
    """The trainings of all methods under the same terms, the `classes`, and the settings of the bench, of which
    "source" has the source's "name"."""

    results: tuple[Result, ...]
    classes: tuple[ClassInfo, ...]
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The content of bench.json: a row for every method, IPC, protocol and network; accuracies in %, differences in
        points, sizes in bytes, times in seconds."""
        rows = rows_of(self.results)
        against = _comparisons(rows)
        tests = sum(one["p"] is not None for ones in against for one in {id(o): o for o in ones.values()}.values())
        return {
            "format": FORMAT,
            "settings": self.settings,
            "classes": [info.to_json() for info in self.classes],
            "rows": [_row(row, rows, compared) for row, compared in zip(rows, against, strict=True)],
            "students": [],
            "tests": {"count": tests, "level": LEVEL, "correction": "Holm"},
            "statements": _statements(rows, against, tests),
            "warnings": [],
        }

    def __repr__(self) -> str:
        rows = rows_of(self.results).by_key
        methods = ", ".join(dict.fromkeys(key.method for key in rows))
        return visible(f"Comparison({methods}: {len(self.results)} trainings on {self.settings['source']['name']})")


def _comparisons(rows: Rows) -> list[dict[str, dict[str, Any]]]:
    """For every row its differences to "random" and, unless it is a selection itself, to the "strongest selection";
    p-values are corrected over all of them. The same comparison, if random is the strongest, is made once."""
    made: list[dict[str, Any]] = []
    places: list[dict[str, int]] = []
    for row in rows:
        own: dict[str, int] = {}
        for title, other in _opponents(row, rows).items():
            common = sorted(set(row.by_seed) & set(other.by_seed))
            if title != "random" and other.key.method == "random" and "random" in own:
                own[title] = own["random"]
            elif common:
                pair = paired_difference([row.by_seed[s] for s in common], [other.by_seed[s] for s in common])
                own[title] = len(made)
                made.append({"name": other.key.method, **pair})
        places.append(own)
    final = corrected(made)
    return [{title: final[index] for title, index in own.items()} for own in places]


def _opponents(row: Row, rows: Rows) -> dict[str, Row]:
    if row.key.ipc is None:
        return {}
    random, strongest = rows.of(row, "random"), rows.strongest_selection(row)
    found = {"random": random if row.key.method != "random" else None}
    found["strongest selection"] = strongest if row.key.method not in SELECTIONS else None
    return {title: other for title, other in found.items() if other}


def _row(row: Row, rows: Rows, against: dict[str, dict[str, Any]]) -> dict[str, Any]:
    facts = [result.facts for result in row.results]
    best = [result.training.best for result in row.results]
    full = rows.of(row, "full")
    return {
        **row.key._asdict(),
        "images": facts[0].images,
        "pixels": facts[0].pixels,
        "image_bytes": round(sum(one.image_bytes for one in facts) / len(facts)),
        "label_bytes": round(sum(one.label_bytes for one in facts) / len(facts)),
        "top1": top1(row.results),
        "top1_best_epoch": pooled(best),
        "top1_without_augmentation": top1(row.plain),
        "by_seed": [{"seed": r.facts.seed, "repeat": r.repeat, "top1": round(r.training.last, 3)} for r in row.results],
        "of_full": round(100 * row.mean / full.mean, 3) if full and full.mean else None,
        "against": against,
        **dd_ranking(row, rows),
        "seconds": seconds(row),
        "published": [],
        "budget": _budget(row),
        **details([result.training for result in row.results]),
    }


def _budget(row: Row) -> dict[str, Any]:
    result = row.results[0]
    protocol, images = result.protocol, result.facts.images
    batch = protocol.batch_size or images
    return {
        "epochs": protocol.epochs,
        "steps": (protocol.epochs or 1) * math.ceil(images / batch),
        "batch": batch,
        "optimizer": f"{protocol.optimizer} {protocol.learning_rate:g}, decay {protocol.weight_decay:g}",
        "augmentation": list(protocol.augmentation),
        "loss": protocol.loss,
        "teacher": dict(result.teacher) if result.teacher else None,
        "size": protocol.size,
    }


def _statements(rows: Rows, against: list[dict[str, dict[str, Any]]], tests: int) -> list[str]:
    said = []
    for row, ones in zip(rows, against, strict=True):
        for one in {one["name"]: one for one in ones.values()}.values():
            name = f"{row.key.method} (IPC {row.key.ipc}, {row.key.protocol}, {row.key.network})"
            said.append(statement(name, one["name"], one, tests))
    return said
