"""The dataset card: README.md, with the YAML head that tells `load_dataset` and the Hub what lies where."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dmgd.errors import ArtifactError
from dmgd.exporters.command import distill_command
from dmgd.exporters.example import Description
from dmgd.runs.columns import COLUMN_TYPES, label_names
from dmgd.runs.directory import RunDirectory
from dmgd.runs.manifest import published, specs_of

CITATION = """\
@inproceedings{wang2026dmgd,
  title     = {{DMGD}: Train-Free Dataset Distillation with Semantic-Distribution Matching in Diffusion Models},
  author    = {Wang, Qichao and Lu, Yunhong and Cao, Hengyuan and Zhang, Junyi and Zhang, Min},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2026},
  note      = {arXiv:2605.03877}
}"""
CLASSES_SHOWN = 100
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True)
class Provenance:
    """What the card tells of the run: `config` and `versions` as in its manifest, the `source` with a `licence` note,
    the `prior` and its `precision`, the `command` that distils it again, and `evaluation`: results, in Markdown.
    """

    config: dict[str, Any]
    source: dict[str, Any]
    prior: dict[str, Any]
    precision: str
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
            ("method", config["method"]["name"]),
            ("images per class", config["ipc"]),
            ("seed", config["seed"]),
            ("source", f"{source['name']} ({source['variant']})"),
            ("prior", prior["id"] + (f", revision {prior['revision']}" if prior["revision"] else "")),
            ("digest of the prior's weights", f"`{prior['digest']}`"),
            ("precision, device", f"{provenance.precision}, {provenance.device}"),
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


def card_head(description: Description, layout: str, source_name: str, images: int, size: int) -> dict[str, Any]:
    """The head, as a dict, of an export of `size` bytes."""
    head: dict[str, Any] = {
        "pretty_name": f"{source_name}, distilled",
        "license": "other",
        "license_name": "as-the-source",
        "task_categories": ["image-classification"],
        "tags": ["dataset-distillation", "dmgd", "synthetic"],
        "size_categories": [next((name for limit, name in SIZES if images < limit), "n>1M")],
    }
    if layout == "tensors":  # which `load_dataset` does not know
        return head
    files = [{"split": "train", "path": data_files(description, layout)}]
    return {
        **head,
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {
            "features": columns(description, layout),
            "splits": [{"name": "train", "num_bytes": size, "num_examples": images}],
        },
    }


def data_files(description: Description, layout: str) -> list[str]:
    """The patterns that find a layout's data, and nothing else of the export."""
    return {
        "webdataset": ["data/train-*.tar"],
        "parquet": ["data/train-*.parquet"],
        "imagefolder": [f"*/*.{description.image_format}", "metadata.jsonl"],
    }[layout]


def columns(description: Description, layout: str) -> list[dict[str, Any]]:
    """The columns' types."""
    names = {str(i): name for i, name in enumerate(label_names(description.classes))}
    # The image folder's reader infers its types from metadata.jsonl and knows no class labels there.
    label: Any = "int64" if layout == "imagefolder" else {"class_label": {"names": names}}
    metadata: list[dict[str, Any]] = [{"name": name, "dtype": kind} for name, kind in COLUMN_TYPES.items()]
    logits = [{"name": "logits", "sequence": "float32"}] if description.soft_labels else []
    if layout != "webdataset":
        return [{"name": "image", "dtype": "image"}, {"name": "label", "dtype": label}, *metadata, *logits]
    return [
        {"name": description.image_format, "dtype": "image"},
        {"name": "cls", "dtype": label},
        {"name": "json", "struct": metadata},
        *({**column, "name": "logits.npy"} for column in logits),
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
    ]


def read_results(path: Path) -> str:
    """The scores in a JSON of `dmgd evaluate` (`--json`, or a report's `report.json`) as a Markdown table.

    Raises ArtifactError if the file is missing or is something else.
    """
    try:
        evaluation = json.loads(path.read_text())
        settings, protocol = evaluation["settings"], evaluation["settings"]["protocol"]
        seeds = len(settings["seeds"])
        lines = [
            f"Protocol `{protocol['name']}` ({protocol['network']}, {protocol['epochs']} epochs), tested on "
            f"{settings['source']['test_images']} images of {settings['source']['name']}; "
            f"mean ± population standard deviation over {seeds} seeds.\n",
            "| trained on | images | top-1 %, last epoch | best epoch |",
            "|---|---|---|---|",
        ]
        for score in evaluation["scores"]:
            last, best = (f"{score[key]['mean']:.1f} ± {score[key]['std']:.1f}" for key in ("top1", "top1_best_epoch"))
            lines.append(f"| {score['name']} | {score['images']} | {last} | {best} |")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path} is not the JSON of an evaluation ({type(error).__name__}: {error}); "
            "make it with dmgd evaluate --json"
        ) from error
    return "\n".join(lines)


def provenance(run: RunDirectory, results: str | None) -> Provenance:
    """What the card tells of the run."""
    manifest = published(run.manifest)
    source, prior = specs_of(manifest)
    return Provenance(
        config=manifest["config"],
        source=manifest["statistics"]["source"],
        prior=manifest["prior"],
        precision=prior.precision,
        versions=manifest["versions"],
        device=manifest["device"],
        command=distill_command(run.config, source, prior),
        evaluation=results,
    )
