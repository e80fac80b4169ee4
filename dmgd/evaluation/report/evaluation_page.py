"""The page of an evaluation: a set beside baselines and other sets."""

from collections.abc import Sequence
from typing import Any

from dmgd.errors import visible
from dmgd.evaluation.comparison import ddranking_lines
from dmgd.evaluation.examples import Examples, shown_classes
from dmgd.evaluation.report.charts import bars, learning_curves, percent_ticks
from dmgd.evaluation.report.metrics import metrics_section
from dmgd.evaluation.report.page import Section, Tile, as_csv, csv_link, facts, listed, page, tiles
from dmgd.evaluation.report.rows import Row, evaluation_rows, short_names
from dmgd.evaluation.report.sections import (
    BARS,
    CURVES,
    classes_section,
    confusion_section,
    images_section,
    map_section,
    renamed,
    settings_section,
    trainings,
)

MOST_TILES = 5


def evaluation_page(result: dict[str, Any], examples: Examples | None) -> str:
    """The page; `result` is the content of report.json."""
    settings, called = result["settings"], short_names([score["name"] for score in result["scores"]])
    rows, examples = evaluation_rows(result, called), renamed(examples, called)
    names = [visible(info["name"]) for info in settings["classes"]]
    shown = shown_classes(rows[0].json["per_class"])
    return page(
        "dmgd evaluate",
        visible(f"{rows[0].name} on {settings['source']['name']}"),
        facts(_facts(settings), settings.get("command")),
        [
            Section("Accuracy", _accuracy(result, rows), BARS),
            images_section(examples, names, shown, "for the first seed"),
            Section("Learning", learning_curves(rows, "Top-1 on the test images"), CURVES),
            classes_section({"": rows}, names, shown),
            confusion_section(rows, names, "all repeats together"),
            map_section(examples, names, shown),
            metrics_section(result, called),
            settings_section(settings),
        ],
        "All numbers are in report.json beside this page.",
    )


def _facts(settings: dict[str, Any]) -> dict[str, object]:
    own, source, protocol = settings["set"], settings["source"], settings["protocol"]
    counts, teacher = own["images_per_class"], settings.get("teacher")
    stored = next((one for one in settings.get("labels", ()) if own["name"] == f"{one['set']} (soft labels)"), None)
    teacher = stored["teacher"] if stored else teacher
    labels = f"soft labels by {teacher['name']} ({teacher['top1']:.1f} %)" if teacher else "hard labels"
    labels += f", stored in {stored['bytes']:,} bytes" if stored else ""
    return {
        "Source": f"{source['name']}, {source['variant']}" if source.get("variant") else source["name"],
        "Method": own.get("method"),
        "Prior": own.get("prior"),
        "Images per class": min(counts) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}",
        "Images": f"{own['images']:,} of {len(counts):,} classes",
        "Test images": f"{source['test_images']:,}",
        "Protocol": f"{protocol['name']}, {labels}",
        "Network": f"{protocol['network']}, {settings['parameters']:,} parameters",
        "Seeds": ", ".join(map(str, settings["seeds"])),
        "Date": settings.get("date"),
        "Versions": f"dmgd {settings.get('dmgd', '')}, torch {settings['torch']}",
        "Device": settings["device"],
    }


def _accuracy(result: dict[str, Any], rows: Sequence[Row]) -> str:
    first, called = rows[0], {score["name"]: row.name for score, row in zip(result["scores"], rows, strict=True)}
    top1 = first.top1
    shown = [Tile(f"{first.name}, top-1", f"{top1['mean']:.1f} %", f"± {top1['std']:.1f}", trainings(first))]
    for one in result["paired"][: MOST_TILES - 1]:
        interval = one["interval"]
        said = "one seed: no test" if interval is None else "95 % interval {:+.1f} to {:+.1f}".format(*interval)
        shown.append(
            Tile(f"against {called[one['against']]}", f"{one['difference']:+.1f}".replace("-", "−"), "points", said)
        )
    lines = (*result["statements"], *ddranking_lines(result))
    return tiles(shown) + bars(rows, percent_ticks(rows), "Trained on") + listed(lines) + _download(rows)


def _download(rows: Sequence[Row]) -> str:
    seeds = [f"top1_seed_{seed}" for seed in rows[0].json["top1_by_seed"]]
    columns = ["set", "images", "top1_mean", "top1_std", "best_epoch_mean", "best_epoch_std", *seeds, "seconds"]
    lines = []
    for row in rows:
        best = row.json["top1_best_epoch"] or {"mean": "", "std": ""}
        lines.append([row.json["name"], row.images, row.top1["mean"], row.top1["std"], best["mean"], best["std"]])
        lines[-1] += [*row.json["top1_by_seed"].values(), row.json["seconds"]]
    return csv_link(as_csv(columns, lines), "report.csv")
