"""Every row's differences to random images and to the strongest selection of real images, tested together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dmgd.evaluation.comparison_rows import SELECTIONS, Key, Row, Rows, place
from dmgd.evaluation.planned_set import OWN
from dmgd.evaluation.significance import corrected, is_significant, paired_difference, statement

RANDOM, STRONGEST, PLAIN, OWN_LABELS = "random", "strongest selection", "without mosaics", "own labels"


@dataclass(frozen=True)
class Contrasts:
    """`against` holds for every key the differences to `RANDOM` and `STRONGEST` in equal mosaics and with equal labels;
    of mosaics also to the same method without them, `PLAIN`, and of stored labels to the same images with the
    protocol's, `OWN_LABELS`. They are as of `paired_difference`, with the "name" of the other row and "p_holm", which
    is corrected for the number of `tests`."""

    against: Mapping[Key, Mapping[str, dict[str, Any]]]
    tests: int

    def statements(self) -> list[str]:
        """Each comparison as a sentence."""
        return [
            statement(f"{key.method} ({place(key)})", one["name"], one, self.tests)
            for key, both in self.against.items()
            for one in _distinct(both)
        ]

    def summary(self, rows: Rows) -> list[str]:
        """Of every method, how often it is above its opponents, and how often significantly."""
        lines = []
        for method, row in {row.key.method: row for row in rows}.items():
            own = [both for key, both in self.against.items() if key.method == method]
            strongest = f"the {STRONGEST}" if row.tiles == 1 else f"the {STRONGEST} in {row.tiles}×{row.tiles}"
            strongest += "" if row.labels == OWN else f" with {row.labels}"
            said = [
                _counted(there, strongest if title == STRONGEST else there[0]["name"])
                for title in (RANDOM, STRONGEST, PLAIN, OWN_LABELS)
                if (there := [both[title] for both in own if title in both])
            ]
            lines += [f"{method} is {', '.join(said)}"] if said else []
        return lines


def contrasts(rows: Rows) -> Contrasts:
    """The paired differences of all rows, by the seeds that both have (means over the trainings of a seed).

    A selection is compared with random alone, and all images with nothing; mosaics with equal mosaics, and with the
    same method without them; stored labels with equal ones, and with the protocol's. Where random is the strongest
    selection, the comparison counts once.
    """
    made: list[dict[str, Any]] = []
    places: dict[Key, dict[str, int]] = {}
    for row in rows:
        own = places[row.key] = {}
        for title, other in _opponents(row, rows).items():
            common = sorted(set(row.by_seed) & set(other.by_seed))
            if title == STRONGEST and other.method == RANDOM and RANDOM in own:
                own[title] = own[RANDOM]
            elif common:
                pair = paired_difference([row.by_seed[s] for s in common], [other.by_seed[s] for s in common])
                own[title] = len(made)
                made.append({"name": other.key.method, **pair})
    final = corrected(made)
    against = {key: {title: final[number] for title, number in own.items()} for key, own in places.items()}
    return Contrasts(against, sum(one["p"] is not None for one in final))


def _opponents(row: Row, rows: Rows) -> dict[str, Row]:
    if row.key.ipc is None:
        return {}
    found = {
        RANDOM: rows.of(row, RANDOM) if row.method != RANDOM else None,
        STRONGEST: rows.strongest_selection(row) if row.method not in SELECTIONS else None,
        PLAIN: rows.without_mosaics(row),
        OWN_LABELS: rows.with_own_labels(row),
    }
    return {title: other for title, other in found.items() if other}


def _distinct(both: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return list({one["name"]: one for one in both.values()}.values())


def _counted(ones: Sequence[dict[str, Any]], other: str) -> str:
    """Such as "above random (significant)", or for several "above random in 3 of 4 settings (2 significant)"."""
    above, below = ([one for one in ones if sign * one["difference"] > 0] for sign in (1, -1))
    if len(ones) == 1:
        return f"{'above' if above else 'below' if below else 'equal to'} {other} ({_verdict(ones[0])})"
    if all(one["p"] is None for one in ones):
        return f"above {other} in {len(above)} of {len(ones)} settings (not tested)"
    worse = f" and below in {len(below)} ({sum(map(is_significant, below))} significant)" if below else ""
    significant = sum(map(is_significant, above))
    return f"above {other} in {len(above)} of {len(ones)} settings ({significant} significant){worse}"


def _verdict(one: dict[str, Any]) -> str:
    return "not tested" if one["p"] is None else "significant" if is_significant(one) else "not significant"
