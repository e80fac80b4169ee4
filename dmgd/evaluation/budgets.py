"""What the rows of a comparison cost to train, and where they are compared on unequal terms."""

import math
from collections.abc import Iterable
from itertools import chain, groupby
from typing import Any

from dmgd.evaluation.comparison_rows import Key, Row, Rows, place
from dmgd.evaluation.planned_set import in_mosaics
from dmgd.evaluation.protocols import Protocol

PIXELS_APART = 1.01  # a larger factor between the pixels of two sets is a difference in budget
STEPS_APART = 1.05  # and one between steps: those of equal budgets differ by less, since epochs are whole
LISTED = 10


def budget(row: Row) -> dict[str, Any]:
    """The terms of a row's trainings, as they are in bench.json."""
    result = row.results[0]
    protocol, images = result.protocol, result.facts.images
    batch = protocol.batch_size or images
    return {
        "epochs": protocol.epochs,
        "steps": (protocol.epochs or 1) * math.ceil(images / batch),
        "batch": batch,
        "optimizer": _optimizer(protocol),
        "augmentation": list(protocol.augmentation),
        "loss": protocol.loss,
        "teacher": dict(result.teacher) if result.teacher else None,
        "size": protocol.size,
    }


def _optimizer(protocol: Protocol) -> str:
    momentum = f", momentum {protocol.momentum:g}" if protocol.optimizer == "sgd" else ""
    name = {"sgd": "SGD", "adamw": "AdamW", "lbfgs": "L-BFGS"}[protocol.optimizer]
    return f"{name} {protocol.learning_rate:g}{momentum}, decay {protocol.weight_decay:g}"


def warnings(rows: Rows) -> list[str]:
    """Where rows that are compared differ in budget or pixels, and where trainings are missing; one line each."""
    found = [*_unequal_budgets(rows), *_more_steps_on_all_images(rows), *_unequal_pixels(rows), *_incomplete(rows)]
    return list(dict.fromkeys(found))


def _unequal_budgets(rows: Rows) -> Iterable[str]:
    labels = dict.fromkeys(row.labels for row in rows)
    alike = (_by_place(row for row in rows if row.key.ipc is not None and row.labels == one) for one in labels)
    for (ipc, protocol, network), own in chain(*alike):
        budgets = [budget(row) for row in own]
        differing = [name for name in budgets[0] if any(one[name] != budgets[0][name] for one in budgets)]
        if differing:
            each = (
                f"{row.key.method} {', '.join(f'{name} {_text(one[name])}' for name in differing)}"
                for row, one in zip(own, budgets, strict=True)
            )
            yield f"unequal budgets, IPC {ipc}, {protocol}, {network}: {'; '.join(each)}"


def _more_steps_on_all_images(rows: Rows) -> Iterable[str]:
    """One line for every protocol: the steps do not depend on the network."""
    steps: dict[tuple[str, int], dict[str, None]] = {}
    for row in rows:
        full = rows.full(row)
        own, most = budget(row)["steps"], budget(full)["steps"] if full else 0
        if full and max(own, most) > STEPS_APART * min(own, most):
            size = in_mosaics(f"IPC {row.key.ipc}", row.tiles, " of ")
            steps.setdefault((row.key.protocol, most), {})[f"{own:,} on a set of {size}"] = None
    for (protocol, most), sets in steps.items():
        steps_of = ", ".join([f"{most:,} steps on all images", *sets])
        yield f"unequal budgets, {protocol}: {steps_of}; HLR and % of full compare them"


def _unequal_pixels(rows: Rows) -> Iterable[str]:
    for (ipc, _, _), own in _by_place(row for row in rows if row.key.ipc is not None):
        pixels = {row.key.method: row.results[0].facts.pixels for row in own}
        if max(pixels.values()) > PIXELS_APART * min(pixels.values()):
            each = "; ".join(f"{method} {count:,}" for method, count in pixels.items())
            yield f"unequal pixels, IPC {ipc}: {each}"


def _incomplete(rows: Rows) -> Iterable[str]:
    sets = [row for row in rows if row.key.ipc is not None]
    seeds = {seed for row in sets for seed in row.by_seed}
    most = max((len(row.results) for row in sets), default=0)
    if len(seeds) == 1:
        yield "only one seed of each set: differences cannot be tested"
    methods, sizes = dict.fromkeys(row.key.method for row in sets), dict.fromkeys(row.key.ipc for row in sets)
    groups = dict.fromkeys((row.key.protocol, row.key.network) for row in sets)
    short = []
    for key in (Key(method, ipc, *group) for ipc in sizes for group in groups for method in methods):
        row = rows.by_key.get(key)
        there, done = (len(row.by_seed), len(row.results)) if row else (0, 0)
        if there < len(seeds) or done < most:
            short.append(f"{key.method} ({place(key)}) {done} of {most} trainings, {there} of {len(seeds)} seeds")
    if short:
        more = f"; and {len(short) - LISTED} more" if len(short) > LISTED else ""
        yield f"incomplete, compared by the seeds that both have: {'; '.join(short[:LISTED])}{more}"


def _by_place(rows: Iterable[Row]) -> Iterable[tuple[tuple[Any, ...], list[Row]]]:
    """The rows of each (IPC, protocol, network)."""
    ordered = sorted(rows, key=lambda row: row.key[1:])
    return ((place, list(own)) for place, own in groupby(ordered, key=lambda row: row.key[1:]))


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['name']} ({value['top1']:.1f} %)"
    return "+".join(value) if isinstance(value, list) else str(value)
