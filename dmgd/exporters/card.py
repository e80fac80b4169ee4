"""The dataset card: README.md, with a YAML header for `load_dataset` and the Hub."""

import math
from collections.abc import Sequence
from importlib.resources import files
from operator import index
from pathlib import Path
from string import Template
from typing import Any

import yaml

from dmgd.errors import ArtifactError, one_line, visible
from dmgd.exporters.command import distill_command
from dmgd.exporters.example import Description, columns
from dmgd.exporters.formats import Layout
from dmgd.files import load_json
from dmgd.generation.config import DistillConfig
from dmgd.matching.method import Method
from dmgd.matching.selections import RDED, Selection
from dmgd.mosaics import counted
from dmgd.runs.directory import RunDirectory
from dmgd.runs.manifest import published, specs_of

CLASSES_SHOWN = 100
TAGS, TAGS_REAL = ("dataset-distillation", "dmgd", "synthetic"), ("coreset-selection", "dmgd")
OWN_TERMS = "the source; its own terms apply"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def card(
    run: RunDirectory,
    description: Description,
    layout: Layout,
    images_per_class: list[int],
    size: int,
    results: str | None,
) -> str:
    """The README.md of an export of `size` bytes: card.md, filled in. `results` of an evaluation are Markdown."""
    manifest = published(run.manifest)
    source, prior = manifest["statistics"]["source"], manifest["prior"]
    source_spec, prior_spec = specs_of(manifest)
    config = DistillConfig.from_json(manifest["config"])
    method, teacher = config.method, manifest["plan"].get("teacher")
    settings = {
        "method": manifest["config"]["method"]["name"],
        "images per class": manifest["config"]["ipc"],
        **({"mosaics": f"`dmgd export RUN --tiles {description.tiles}`"} if description.tiles > 1 else {}),
        "seed": manifest["config"]["seed"],
        "source": f"{source['name']} ({source['variant']})",
        "prior": prior["id"] + (f", revision {prior['revision']}" if prior["revision"] else ""),
        "digest of the prior's weights": f"`{prior['digest']}`",
        "precision, device": f"{prior_spec.precision}, {manifest['device']}",
        **({"teacher": f"{teacher['network']}, digest `{teacher['sha256']}`"} if teacher else {}),
        "versions": ", ".join(f"{name} {number}" for name, number in sorted(manifest["versions"].items())),
    }
    shown = (layout.columns or columns)(description)
    is_real = isinstance(method, Selection)
    title = f"{source['name']}, {'a selection' if is_real else 'distilled'}"
    tags = TAGS_REAL if is_real else TAGS
    head = _head(description, layout, shown, title, tags, sum(images_per_class), size)
    return Template(files(__package__).joinpath("card.md").read_text(encoding="utf-8")).substitute(
        head=yaml.safe_dump(head, sort_keys=False, allow_unicode=True),
        title=_inline(title),
        what=_what(method, _inline(source["name"]), [n * description.tiles**2 for n in images_per_class])
        + _budget(run, description.tiles, images_per_class)
        + (f"\n\n**Soft labels**: {_inline(description.labelled)}" if description.labelled else ""),
        loading=_loading(layout, shown, description),
        settings=_rows(*settings.items()),
        command=visible(distill_command(config, source_spec, prior_spec, manifest["statistics"], manifest["device"])),
        results=f"## Results\n\n{results}\n\n" if results else "",
        class_table=_class_table(description, images_per_class),
        licence=_licence(method, _inline(source.get("licence") or OWN_TERMS), _inline(prior["id"])),
    )


def _what(method: Method, source: str, images_per_class: list[int]) -> str:
    """What the images are and where they come from."""
    few, most = min(images_per_class), max(images_per_class)
    each = f"{few} each" if few == most else f"{few}–{most} each"
    kind = "real" if isinstance(method, Selection) else "synthetic"
    number = f"{sum(images_per_class)} {kind} images of {len(images_per_class)} classes, {each}"
    if isinstance(method, RDED):
        teacher = _inline(method.teacher)
        return (
            f"{number}, to train on in place of the whole {source} dataset. They are crops of images of its training "
            f"split, resized, chosen by `{method.name}`: of {method.crops} random crops of each of {method.pool} "
            f"random images of a class the one whose class `{teacher}` is surest of, and of these the {most} it is "
            "surest of; `source_index`, `source_name` and `source_crop` (left, top, right, bottom) say which. Nothing "
            "was generated."
        )
    if isinstance(method, Selection):
        return (
            f"{number}, to train on in place of the whole {source} dataset. They are members of its training split, "
            f"chosen by `{method.name}` and resized; `source_index` and `source_name` say which. Nothing was generated."
        )
    return (
        f"{number}, to train on in place of the {source} dataset. They were sampled from a frozen diffusion model, "
        "guided towards the source's distribution; they are no photographs and not members of the source."
    )


def _budget(run: RunDirectory, tiles: int, mosaics_per_class: list[int]) -> str:
    """The pixel budget of mosaics, as a paragraph; empty for other sets."""
    if tiles == 1:
        return ""
    height, width, _ = run.pixels(run.records()[0]).shape
    each, total = mosaics_per_class[0], sum(mosaics_per_class)
    return (
        f"\n\n**Mosaics**: every stored image has {tiles}×{tiles} parts, row by row, which are images of its class at "
        f"1/{tiles} of their side (box averaging). {each} stored images a class of {width}×{height} pixels, "
        f"{each * tiles**2} parts: the pixel budget is that of {each} images a class, {total * width * height:,} "
        "pixels in all. Split them, and enlarge the parts, before training; `parts` in the metadata says which image "
        "each is."
    )


def _licence(method: Method, source: str, prior: str) -> str:
    if isinstance(method, Selection):
        return f"The images belong to: {source}."
    return f"The images are derived from: {source}. The prior `{prior}` may bring terms of its own."


def _loading(layout: Layout, columns: list[dict[str, Any]], description: Description) -> str:
    """A few lines of Python for each library that opens the layout."""
    blocks = []
    if layout.data_files:
        image, label, *_ = (column["name"] for column in columns)
        blocks.append(
            "from datasets import load_dataset\n"
            'dataset = load_dataset("FOLDER", split="train")\n'
            f'image, label = dataset[0]["{image}"], dataset[0]["{label}"]'
        )
    if layout.snippet:
        blocks.append(layout.snippet.format(image_format=description.image_format))
    if description.tiles > 1:
        blocks.append(layout.parts_snippet.format(tiles=description.tiles))
    return "\n\n".join(f"```python\n{block}\n```" for block in blocks)


def _class_table(description: Description, images_per_class: list[int]) -> str:
    tiles = description.tiles
    counts = (counted(n * tiles**2, tiles) for n in images_per_class)
    rows = [
        (i, info.name, info.wnid or "", "" if info.prior_index is None else info.prior_index, count)
        for i, (info, count) in enumerate(zip(description.classes, counts, strict=True))
    ]
    more = len(rows) - CLASSES_SHOWN
    return _rows(*rows[:CLASSES_SHOWN]) + (f"\n\n… and {more} more, in `index.json`." if more > 0 else "")


def _rows(*rows: tuple[Any, ...]) -> str:
    return "\n".join(f"| {' | '.join(_cell(str(value)) for value in row)} |" for row in rows)


def _cell(text: str) -> str:
    """`text` as one cell of a Markdown table, shortened."""
    return _inline(text if len(text) <= 120 else text[:119] + "…")


def _inline(text: str) -> str:
    """`text` within a line of Markdown, without effect on it: bars, HTML, links and images are escaped."""
    return one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;").replace("[", "&#91;")


def _head(
    description: Description,
    layout: Layout,
    columns: list[dict[str, Any]],
    title: str,
    tags: Sequence[str],
    images: int,
    size: int,
) -> dict[str, Any]:
    """The YAML header, as a dict, of an export of `size` bytes."""
    head: dict[str, Any] = {
        "pretty_name": title,
        "license": "other",
        "license_name": "as-the-source",
        "task_categories": ["image-classification"],
        "tags": list(tags),
        "size_categories": [next((name for limit, name in SIZES if images < limit), "n>1M")],
    }
    if layout.data_files:
        patterns = [pattern.format(image_format=description.image_format) for pattern in layout.data_files]
        head["configs"] = [{"config_name": "default", "data_files": [{"split": "train", "path": patterns}]}]
        split = {"name": "train", "num_bytes": size, "num_examples": images}
        head["dataset_info"] = {"features": columns, "splits": [split]}
    return head


def read_results(path: Path) -> str:
    """The scores in a JSON of `dmgd evaluate` (`--json`, or a report's `report.json`) as a Markdown table.

    Raises ArtifactError if the file is missing or not such a JSON.
    """
    try:
        evaluation = load_json(path)
        settings, protocol = evaluation["settings"], evaluation["settings"]["protocol"]
        seeds = len(settings["seeds"])
        trained = f"{protocol['epochs']:d} epochs" if "epochs" in protocol else f"on {protocol['features']}"
        lines = [
            f"Protocol `{_inline(protocol['name'])}` ({_inline(protocol['network'])}, {_inline(trained)}), tested on "
            f"{settings['source']['test_images']:d} images of {_inline(settings['source']['name'])}; "
            f"mean ± population standard deviation over {seeds} seeds.\n",
            "| trained on | images | top-1 %, last epoch | best epoch |",
            "|---|---|---|---|",
        ]
        for score in evaluation["scores"]:
            last, best = (_points(score[key]) for key in ("top1", "top1_best_epoch"))
            images = counted(index(score["images"]), index(score.get("tiles", 1)))
            lines.append(f"| {_inline(score['name'])} | {images} | {last} | {best} |")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise ArtifactError(
            f"{path} is not the JSON of an evaluation ({type(error).__name__}: {error}); "
            "make it with dmgd evaluate --json"
        ) from error
    return "\n".join(lines)


def _points(value: dict[str, float] | None) -> str:
    if value is None:
        return "–"
    mean, std = value["mean"], value["std"]
    if not (math.isfinite(mean) and math.isfinite(std)):
        raise ValueError(f"a score of {mean} ± {std}")
    return f"{mean:.1f} ± {std:.1f}"
