"""Class-ordered tensors, as DD-Ranking reads them."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmgd.exporters.example import Description, Example, json_line
from dmgd.exporters.folder import hashed_file, write_hashed
from dmgd.exporters.formats import Layout
from dmgd.images import decode

METADATA = "metadata.jsonl"
IMAGES, LABELS = "images.pt", "labels.pt"
SNIPPET = """\
import torch
images = torch.load("FOLDER/images.pt", weights_only=True)  # (n, channels, h, w), from 0 to 1
labels = torch.load("FOLDER/labels.pt", weights_only=True)"""

PARTS = """\
from torch.nn.functional import interpolate
h, w = (side // {tiles} for side in images.shape[-2:])
parts = images.unfold(2, h, h).unfold(3, w, w).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
parts = interpolate(parts, images.shape[-2:], mode="bicubic", antialias=True).clamp(0, 1)
labels = labels.repeat_interleave({tiles} * {tiles})"""


def write(folder: Path, examples: Iterable[Example], description: Description) -> list[dict[str, Any]]:
    """Write in `folder` `images.pt` (n, c, h, w), float32 in [0, 1], `labels.pt` (n,), int64, `metadata.jsonl`, a line
    for each row, and with soft labels `soft_labels.pt` (n, classes), float32, of mosaics (n, parts, classes)."""
    pixels, labels, lines, logits = [], [], [], []
    for example in examples:
        pixels.append(decode(example.data))
        labels.append(example.label)
        lines.append(json_line({"label": example.label, **example.metadata}) + b"\n")
        logits.append(example.logits)
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous().float().div_(255)
    files = [
        _write(folder, IMAGES, images, len(labels)),
        _write(folder, LABELS, torch.tensor(labels)),
        write_hashed(folder, METADATA, b"".join(lines)),
    ]
    if description.soft_labels:
        files.append(_write(folder, "soft_labels.pt", torch.from_numpy(np.stack(logits))))  # type: ignore[arg-type]
    return files


def _write(folder: Path, path: str, tensor: Tensor, images: int = 0) -> dict[str, Any]:
    """A file that `torch.load(…, weights_only=True)` reads."""
    with hashed_file(folder, path) as file:
        torch.save(tensor, file)  # type: ignore[arg-type]
    return file.entry(path, images)


def read(folder: Path, index: dict[str, Any] | None = None) -> Iterator[Example]:
    images, labels = (_read(folder / name) for name in (IMAGES, LABELS))
    with (folder / METADATA).open(encoding="utf-8") as lines:
        for image, label, line in zip(images, labels.tolist(), lines, strict=True):
            fields = json.loads(line)
            fields.pop("label")
            yield Example(label, fields, image.mul(255).round().byte().permute(1, 2, 0).contiguous().numpy())


def _read(path: Path) -> Tensor:
    try:
        tensor = torch.load(path, weights_only=True)
    except Exception as error:  # the reader raises a dozen types for a damaged file
        raise ValueError(f"{path.name}: {next(iter(str(error).splitlines()), type(error).__name__)[:150]}") from error
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{path.name} is no tensor")
    return tensor


LAYOUT = Layout(write, read, snippet=SNIPPET, parts_snippet=PARTS)
