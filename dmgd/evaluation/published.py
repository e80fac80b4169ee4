"""Published accuracies, to stand beside those that were measured here.

Papers report the best of about a hundred validations. Their sets have the training images of the ImageNet folders,
about 1,300 of each class; fastai's imagenette2 and imagewoof2 have fewer.
"""

from dataclasses import dataclass
from typing import Any

from dmgd.evaluation.comparison_rows import Row
from dmgd.evaluation.protocols import epochs_by_ipc

HARD, SOFT = ("minimax-sgd", "igd-adamw"), ("rded-soft",)
SIZE = 224
SECOND_HAND = "second-hand"
NAMES = {"dmgd-paper": "dmgd", "dmgd-released": "dmgd"}  # our names of a paper's method


@dataclass(frozen=True)
class Published:
    """A top-1 in %. `ipc` None: all images; `protocols` are those of the same family."""

    dataset: str
    method: str
    ipc: int | None
    value: float
    protocols: tuple[str, ...] = HARD
    network: str = "resnetap-10"
    note: str = ""


def published(row: Row, source: str, num_classes: int) -> list[dict[str, Any]]:
    """The published figures for a row: "value" in %, "ipc", "source" and "note", which names the terms that differ."""
    method, ipc, protocol, network = row.key
    name = NAMES.get(method.casefold(), method.casefold())
    return [
        {"value": one.value, "ipc": ipc, "source": _described(one), "note": "; ".join(_notes(one, row, num_classes))}
        for one in FIGURES
        if (one.dataset, one.method, one.ipc, one.network) == (source, name, ipc, network) and protocol in one.protocols
    ]


def _described(one: Published) -> str:
    family = "hard labels" if one.protocols == HARD else "soft labels"
    return f"{one.network}, {family}, {SIZE} pixels"


def _notes(one: Published, row: Row, num_classes: int) -> list[str]:
    protocol = row.results[0].protocol
    epochs = 300 if one.protocols == SOFT else epochs_by_ipc(one.ipc or 1000, num_classes)
    found = [one.note] if one.note else []
    if row.key.method == "dmgd":
        found.append("the paper's method, not the default here")
    if protocol.size != SIZE:
        found.append(f"here {protocol.size} pixels")
    if protocol.epochs != epochs:
        found.append(f"here {protocol.epochs} epochs, not {epochs}")
    return found


def _row_of(dataset: str, method: str, values: dict[int, float], note: str = "", **terms: Any) -> list[Published]:
    return [Published(dataset, method, ipc, value, note=note, **terms) for ipc, value in values.items()]


NETTE, WOOF, IMAGENET = "imagenette", "imagewoof", "imagenet-1k"
RESNET: dict[str, Any] = {"protocols": SOFT, "network": "resnet-18"}
RD3 = "re-run by RD3, 400 epochs, batch 50"
FIGURES = (
    *_row_of(NETTE, "random", {10: 54.2, 20: 63.5, 50: 76.1}),
    *_row_of(WOOF, "random", {10: 29.4, 20: 32.7, 50: 47.2}),
    *_row_of(NETTE, "dit", {10: 59.1, 20: 64.8, 50: 73.3}),
    *_row_of(WOOF, "dit", {10: 34.7, 20: 41.1, 50: 49.3}),
    *_row_of(NETTE, "minimax", {10: 62.0, 20: 66.8, 50: 76.6}, "fine-tuned"),
    *_row_of(WOOF, "minimax", {10: 39.2, 20: 45.8, 50: 56.3}, "fine-tuned"),
    *_row_of(NETTE, "mgd3", {10: 66.4, 20: 71.2, 50: 79.5}),
    *_row_of(WOOF, "mgd3", {10: 40.4, 20: 43.6, 50: 56.5}),
    *_row_of(NETTE, "mgd3", {10: 61.9}, "lowest re-run by others"),
    *_row_of(NETTE, "mgd3", {10: 64.3}, "highest re-run by others"),
    *_row_of(WOOF, "mgd3", {10: 36.6}, "lowest re-run by others"),
    *_row_of(WOOF, "mgd3", {10: 37.6}, "highest re-run by others"),
    *_row_of(NETTE, "dmgd", {10: 68.4, 20: 72.6, 50: 80.6}),
    *_row_of(WOOF, "dmgd", {10: 40.8, 20: 46.7, 50: 60.1}),
    *_row_of(NETTE, "minimax+dmgd", {10: 68.7, 50: 80.7}, "fine-tuned"),
    *_row_of(WOOF, "minimax+dmgd", {10: 42.4, 50: 60.8}, "fine-tuned"),
    Published(NETTE, "full", None, 94.6),
    Published(WOOF, "full", None, 87.5),
    *_row_of(WOOF, "ims3", {10: 41.8, 20: 45.8, 50: 61.0}, SECOND_HAND),
    *_row_of(NETTE, "manifoldgd", {10: 64.1, 20: 69.7, 50: 78.4}, SECOND_HAND),
    *_row_of(WOOF, "manifoldgd", {10: 38.3}, SECOND_HAND),
    *_row_of(NETTE, "evlf+mgd3", {10: 66.0, 20: 72.5, 50: 79.5}),
    *_row_of(WOOF, "evlf+mgd3", {10: 39.3, 20: 45.1, 50: 59.0}),
    *_row_of(NETTE, "otg", {10: 68.0}, SECOND_HAND),
    Published(NETTE, "otg", 10, 77.8, SOFT, note=SECOND_HAND),
    *_row_of(IMAGENET, "d4m", {10: 27.9, 50: 55.2}, **RESNET),
    *_row_of(IMAGENET, "d4m", {10: 45.4}, RD3, **RESNET),
    *_row_of(IMAGENET, "rded", {10: 42.0, 50: 56.5}, **RESNET),
    *_row_of(IMAGENET, "rded", {10: 46.3}, RD3, **RESNET),
    *_row_of(IMAGENET, "sre2l", {10: 21.3}, **RESNET),
    *_row_of(IMAGENET, "sre2l", {10: 40.2}, RD3, **RESNET),
    *_row_of(IMAGENET, "dit", {50: 52.9}, **RESNET),
    *_row_of(IMAGENET, "minimax", {10: 44.3, 50: 58.6}, "fine-tuned", **RESNET),
    *_row_of(IMAGENET, "minimax", {10: 45.9}, RD3, **RESNET),
    *_row_of(IMAGENET, "igd", {10: 45.5, 50: 59.8}, **RESNET),
    *_row_of(IMAGENET, "mgd3", {10: 45.6, 50: 60.2}, **RESNET),
    *_row_of(IMAGENET, "dmgd", {10: 46.3, 50: 61.4}, **RESNET),
    *_row_of(IMAGENET, "dap", {10: 49.1, 50: 62.7}, **RESNET),
    *_row_of(IMAGENET, "otg", {10: 52.9, 50: 61.9}, "own recipe", **RESNET),
    *_row_of(IMAGENET, "ddoq", {10: 53.0}, SECOND_HAND, **RESNET),
    *_row_of(IMAGENET, "hieramp", {10: 47.6, 50: 60.8}, SECOND_HAND, **RESNET),
    *_row_of(IMAGENET, "coda", {50: 60.4}, **RESNET),
)
