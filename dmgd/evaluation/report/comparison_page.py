"""The page of a comparison of methods: methods × IPC × (protocol, network)."""

from collections.abc import Sequence
from typing import Any

from dmgd.errors import visible
from dmgd.evaluation.comparison_formats import as_csv
from dmgd.evaluation.comparison_views import tables
from dmgd.evaluation.examples import Examples, compared_classes
from dmgd.evaluation.report.charts import bars, learning_curves, percent_ticks
from dmgd.evaluation.report.page import Section, Tile, csv_link, facts, folded, grid, listed, page, tiles
from dmgd.evaluation.report.rows import FULL, Row, comparison_rows
from dmgd.evaluation.report.sections import (
    BARS,
    CURVES,
    classes_section,
    confusion_section,
    images_section,
    map_section,
    settings_section,
)

MOST_TILES = 6
STUDENTS = "Top-1 in %: does a set rank the networks as all images do? τ is 1 for the same order, −1 for its reverse."
Groups = dict[tuple[int | None, str, str], list[Row]]


def comparison_page(result: dict[str, Any], examples: Examples | None) -> str:
    """The page; `result` is the content of bench.json."""
    settings, groups = result["settings"], comparison_rows(result)
    names = [visible(info["name"]) for info in result["classes"]]
    ipc = examples.ipc if examples else max(key[0] or 0 for key in groups) or None
    shown = compared_classes(result, ipc)
    of_ipc = {_label(key): rows for key, rows in groups.items() if key[0] == ipc}
    methods = list(dict.fromkeys(row["method"] for row in result["rows"] if row["method"] != FULL))
    return page(
        "dmgd bench",
        visible(f"{len(methods)} methods on {settings['source']['name']}"),
        facts(_facts(result, methods), settings.get("command")),
        [
            Section("Accuracy", _accuracy(result, groups), f"{BARS} A diamond is a published figure."),
            images_section(examples, names, shown, f"{_ipc(ipc)}, for the first seed"),
            Section("Tables", _tables(result)),
            Section("Students", _students(result), STUDENTS),
            Section("Learning", _curves(groups, ipc), CURVES),
            classes_section(of_ipc, names, shown),
            confusion_section(next(iter(of_ipc.values())), names, f"{next(iter(of_ipc))}, all trainings together"),
            map_section(examples, names, shown),
            settings_section(settings),
        ],
        "All numbers are in bench.json beside this page.",
    )


def _facts(result: dict[str, Any], methods: Sequence[str]) -> dict[str, object]:
    settings, rows = result["settings"], result["rows"]
    source, prior = settings["source"], settings.get("prior")
    seeds = sorted({one["seed"] for row in rows for one in row["by_seed"]})
    repeats = 1 + max(one["repeat"] for row in rows for one in row["by_seed"])

    def each(name: str) -> str:
        return ", ".join(dict.fromkeys(str(row[name]) for row in rows if row[name] is not None))

    return {
        "Source": f"{source['name']}, {source['variant']}" if source.get("variant") else source["name"],
        "Methods": ", ".join(methods),
        "Prior": prior.get("id") if isinstance(prior, dict) else prior,
        "Images per class": each("ipc"),
        "Classes": f"{len(result['classes']):,}",
        "Test images": f"{source['test_images']:,}" if source.get("test_images") else None,
        "Protocols": each("protocol"),
        "Networks": each("network"),
        "Seeds of the sets": ", ".join(map(str, seeds)),
        "Trainings on a set": f"{repeats}" if repeats == 1 else f"up to {repeats}",
        "Date": settings.get("date"),
        "Versions": ", ".join(f"{name} {settings[name]}" for name in ("dmgd", "torch") if settings.get(name)),
        "Device": settings.get("device"),
    }


def _accuracy(result: dict[str, Any], groups: Groups) -> str:
    scale = percent_ticks([row for rows in groups.values() for row in rows])
    charts = "".join(bars(rows, scale, _label(key)) for key, rows in groups.items())
    return (
        listed(result["warnings"], "warnings")
        + tiles(_best(groups))
        + f'<div class="groups">{charts}</div>'
        + listed(result.get("summary", []))
        + folded("Each comparison as a sentence", listed(result.get("statements", [])))
    )


def _best(groups: Groups) -> list[Tile]:
    """The best method of every group."""
    shown = []
    for key, rows in list(groups.items())[:MOST_TILES]:
        if own := [row for row in rows if row.name != FULL]:
            best = max(own, key=lambda row: row.top1["mean"])
            value, deviation = f"{best.top1['mean']:.1f} %", f"± {best.top1['std']:.1f}"
            shown.append(Tile(f"best at {_label(key)}", value, deviation, f"{best.name} {best.versus}"))
    return shown


def _tables(result: dict[str, Any]) -> str:
    """All tables, and the link that downloads their numbers."""
    grids = [
        grid(one.columns, one.rows, caption=one.title, best=one.best, notes=one.notes, ends=one.section_ends)
        for one in tables(result)
    ]
    shown = "".join(f"<div>{one}</div>" for one in grids)
    return f'<div class="columns">{shown}</div>{csv_link(as_csv(result), "bench.csv")}'


def _students(result: dict[str, Any]) -> str:
    """For every IPC and protocol a table of networks × methods, with Kendall's τ to the order on all images."""
    groups: dict[tuple[int | None, str], dict[str, dict[str, Any]]] = {}
    for one in result["students"]:
        groups.setdefault((one["ipc"], one["protocol"]), {})[one["method"]] = one
    return "".join(_student_grid(result["rows"], *key, students) for key, students in groups.items())


def _student_grid(rows: Sequence[dict[str, Any]], ipc: int | None, protocol: str, students: dict[str, Any]) -> str:
    values = {
        (row["method"], row["network"]): row["top1"]["mean"]
        for row in rows
        if row["protocol"] == protocol and row["ipc"] in (ipc, None)
    }
    methods = [*students, *([FULL] if any(method == FULL for method, _ in values) else [])]
    networks = list(dict.fromkeys(network for _, network in values))
    lines = [
        [network, *(f"{values[method, network]:.1f}" if (method, network) in values else "–" for method in methods)]
        for network in networks
    ]
    best = {
        (max(range(len(networks)), key=lambda i: values.get((method, networks[i]), -1)), j + 1)
        for j, method in enumerate(methods)
    }
    taus = [students[method]["tau"] if method in students else None for method in methods]
    lines.append(["Kendall’s τ", *("–" if tau is None else f"{tau:+.2f}" for tau in taus)])
    return grid(["network", *methods], lines, caption=f"{_ipc(ipc)}, {protocol}", best=frozenset(best))


def _curves(groups: Groups, ipc: int | None) -> str:
    """The curves of one IPC; those of the others are folded away."""
    shown = "".join(learning_curves(rows, _label(key)) for key, rows in groups.items() if key[0] == ipc)
    others = "".join(learning_curves(rows, _label(key)) for key, rows in groups.items() if key[0] != ipc)
    others = folded("Other numbers of images", f'<div class="groups">{others}</div>') if others else ""
    return f'<div class="groups">{shown}</div>{others}' if shown else others


def _label(key: tuple[int | None, str, str]) -> str:
    ipc, protocol, network = key
    return f"{_ipc(ipc)}, {protocol}, {network}"


def _ipc(ipc: int | None) -> str:
    return "all images" if ipc is None else f"IPC {ipc}"
