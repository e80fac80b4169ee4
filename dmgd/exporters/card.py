"""The dataset card: README.md, with the YAML head that `load_dataset` and the Hub read."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import yaml

from dmgd.exporters.card_head import card_head
from dmgd.exporters.example import Description

CITATION = """\
@inproceedings{wang2026dmgd,
  title     = {{DMGD}: Train-Free Dataset Distillation with Semantic-Distribution Matching in Diffusion Models},
  author    = {Wang, Qichao and Lu, Yunhong and Cao, Hengyuan and Zhang, Junyi and Zhang, Min},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2026},
  note      = {arXiv:2605.03877}
}"""
CLASSES_SHOWN = 100


@dataclass(frozen=True)
class Provenance:
    """What the card tells of the run: `config` and `versions` as in its manifest, the `source` with a `licence` note,
    the `prior`, the `command` that distils it again, and `evaluation`, results as a text in Markdown or None."""

    config: dict[str, Any]
    source: dict[str, Any]
    prior: dict[str, Any]
    versions: dict[str, str]
    device: str
    command: str
    evaluation: str | None = None


def card(description: Description, layout: str, images_per_class: list[int], size: int, provenance: Provenance) -> str:
    """The whole README.md of an export of `size` bytes."""
    head = card_head(description, layout, provenance.source["name"], sum(images_per_class), size)
    text = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---\n\n" + "\n\n".join(_sections(description, layout, images_per_class, provenance)) + "\n"


def _sections(description: Description, layout: str, images_per_class: list[int], provenance: Provenance) -> list[str]:
    config, source, prior = provenance.config, provenance.source, provenance.prior
    counts = Counter(images_per_class)
    each = f"{next(iter(counts))} each" if len(counts) == 1 else f"{min(counts)}–{max(counts)} each"
    sections = [
        f"# {source['name']}, distilled",
        f"{sum(images_per_class)} synthetic images of {len(images_per_class)} classes, {each}, to train on in place "
        f"of the {source['name']} dataset. They were sampled from a frozen diffusion model, guided towards the "
        "source's distribution; they are no photographs and not members of the source.",
        "## Load it\n\n" + _loading(description, layout),
        "## How it was made\n\n"
        + _table(
            ("method", config["method_name"]),
            ("images per class", config["ipc"]),
            ("seed", config["seed"]),
            ("source", f"{source['name']} ({source['variant']})"),
            ("prior", prior["id"] + (f", revision {prior['revision']}" if prior["revision"] else "")),
            ("digest of the prior's weights", f"`{prior['digest']}`"),
            ("precision, device", f"{config['precision']}, {provenance.device}"),
            ("versions", ", ".join(f"{name} {number}" for name, number in sorted(provenance.versions.items()))),
        ),
        f"```\n{provenance.command}\n```\n\n`index.json` lists every file with its SHA-256 and holds the full "
        "configuration; `dmgd verify FOLDER` checks them.",
    ]
    if provenance.evaluation:
        sections.append("## Results\n\n" + provenance.evaluation)
    sections += [
        "## Classes\n\n" + _class_table(description, images_per_class),
        f"## Licence\n\nThe images are derived from: {source.get('licence') or 'the source; its own terms apply'}. "
        f"The prior `{prior['id']}` may bring terms of its own.",
        f"## Citation\n\n```bibtex\n{CITATION}\n```",
    ]
    return sections


def _loading(description: Description, layout: str) -> str:
    """Three lines of Python for each library that opens the layout."""
    image = description.image_format if layout == "webdataset" else "image"
    label = "cls" if layout == "webdataset" else "label"
    hugging_face = [
        "from datasets import load_dataset",
        'dataset = load_dataset("FOLDER", split="train")',
        f'image, label = dataset[0]["{image}"], dataset[0]["{label}"]',
    ]
    own = {
        "webdataset": [
            "import glob, webdataset as wds",
            'shards = sorted(glob.glob("FOLDER/data/train-*.tar"))',
            f'dataset = wds.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("{image}", "cls", "json")',
        ],
        "imagefolder": [
            "from torchvision.datasets import ImageFolder",
            'dataset = ImageFolder("FOLDER")',
            "image, label = dataset[0]",
        ],
        "tensors": [
            "import torch",
            'images = torch.load("FOLDER/images.pt", weights_only=True)  # (n, channels, h, w), from 0 to 1',
            'labels = torch.load("FOLDER/labels.pt", weights_only=True)',
        ],
    }
    blocks = [*([hugging_face] if layout != "tensors" else []), *([own[layout]] if layout in own else [])]
    return "\n\n".join("```python\n" + "\n".join(lines) + "\n```" for lines in blocks)


def _class_table(description: Description, images_per_class: list[int]) -> str:
    rows = [
        (str(i), _cell(info.name), info.wnid or "", "" if info.prior_index is None else str(info.prior_index), str(n))
        for i, (info, n) in enumerate(zip(description.classes, images_per_class, strict=True))
    ][:CLASSES_SHOWN]
    head = ["| label | name | WordNet id | prior's class | images |", "|---|---|---|---|---|"]
    more = len(images_per_class) - len(rows)
    tail = [f"\n… and {more} more, in `index.json`."] if more > 0 else []
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows), *tail])


def _table(*rows: tuple[str, Any]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {_cell(str(value))} |" for name, value in rows)])


def _cell(text: str) -> str:
    """`text` as one cell of a Markdown table: on one line, its bars and HTML made harmless."""
    shown = " ".join(text.split())
    for sign, instead in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;")):
        shown = shown.replace(sign, instead)
    return shown if len(shown) <= 120 else shown[:119] + "…"
