"""What a small network learns from each method's images of the digits, beside real images.

    python benchmarks/digits_methods.py --results benchmarks/results/digits_methods

Every seed distils anew and trains one network by the `quick` protocol, tested on the 540 test images. Finished figures
are kept in RESULTS.jsonl, so that an interrupted run goes on; the table is written to RESULTS.md.
"""

import argparse
import itertools
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dmgd.config import DistillConfig, StatisticsConfig, method_named
from dmgd.evaluation.imageset import ImageSet, stack_images
from dmgd.evaluation.protocols import protocol_named, resolved
from dmgd.evaluation.selection import nearest_distinct, random_selection
from dmgd.evaluation.train import train
from dmgd.fit_stats import fit_statistics
from dmgd.matching.quantize import class_seed, quantize
from dmgd.pipeline.imagesets import Shape, source_set
from dmgd.pipeline.latents import encode_source
from dmgd.pipeline.sampling import plan_units, sample_unit
from dmgd.priors.load import load_prior
from dmgd.sources.source import open_source

METHODS: dict[str, dict[str, Any]] = {
    "dit": {"name": "dit"},
    "mgd3": {"name": "mgd3"},
    "dmgd-paper": {"name": "dmgd-paper"},
    "dmgd-released": {"name": "dmgd-released"},
    "dmgd": {"name": "dmgd"},
    "dmgd, semantic only": {"name": "dmgd", "distribution": False},
    "dmgd, distribution only": {"name": "dmgd", "semantic": False},
}
ROWS = ("random", "kmeans-real", *METHODS)


class Digits:
    """The source, the prior, and the image sets that are compared."""

    def __init__(self) -> None:
        self.source, self.prior = open_source("digits"), load_prior("digits")
        shape = Shape(8, 8, 1)
        self.train, self.test = (source_set(self.source, split, split, shape) for split in ("train", "test"))
        self.latents = encode_source(self.source, self.prior)

    def chosen(self, row: str, ipc: int, seed: int) -> ImageSet:
        """The set of a row of the table."""
        if row == "random":
            return self.train.select(random_selection(self.train.labels, [ipc] * 10, seed), row)
        if row == "kmeans-real":
            picked = [
                own.samples[nearest_distinct(own.rows, quantize(own.rows, ipc, class_seed(seed, info.identity))[0])]
                for own, info in zip(self.latents, self.source.classes, strict=True)
            ]
            return self.train.select([int(i) for part in picked for i in part], row)
        return self.distilled(row, ipc, seed)

    def distilled(self, row: str, ipc: int, seed: int) -> ImageSet:
        """The images of a method, not written to disk."""
        config = DistillConfig(
            ipc=ipc, seed=seed, method_name=METHODS[row]["name"], method=method_named(**METHODS[row])
        )
        statistics = fit_statistics(self.source, self.prior, StatisticsConfig(k=config.k))
        frozen: list[torch.Tensor] = []
        cells: dict[tuple[int, int], torch.Tensor] = {}
        for unit in plan_units(10, config):
            frozen = [] if unit.images[0] == 0 else frozen
            latents, _ = sample_unit(unit, config, self.prior, statistics, frozen)
            if config.method.order == "greedy":
                frozen.append(latents.reshape(len(unit.classes), len(unit.images), -1))
            cells |= dict(zip(unit.cells(), self.prior.decode(latents), strict=True))
        ordered = sorted(cells)
        return stack_images(row, [cells[cell] for cell in ordered], [c for c, _ in ordered], self.train.classes)

    def top1(self, data: ImageSet, seed: int) -> float:
        """Top-1 in % on the test images after the last epoch of `quick`."""
        protocol = resolved(protocol_named("quick"), num_images=len(data), num_classes=10, source_size=8)
        return train(data, self.test, protocol, seed).last


def table(figures: dict[tuple[str, int, int], float], ipcs: list[int], seeds: int) -> str:
    """A Markdown table: mean ± population standard deviation over the seeds that are there."""
    lines = ["| top-1 % | " + " | ".join(f"IPC {ipc}" for ipc in ipcs) + " |", "|---|" + "---|" * len(ipcs)]
    for row in ROWS:
        cells = []
        for ipc in ipcs:
            values = torch.tensor([figures[row, ipc, s] for s in range(seeds) if (row, ipc, s) in figures])
            cells.append(f"{values.mean():.1f} ± {values.std(correction=0):.1f}" if len(values) else "–")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--ipc", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    log, page = arguments.results.with_suffix(".jsonl"), arguments.results.with_suffix(".md")
    log.parent.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    figures = {(entry["row"], entry["ipc"], entry["seed"]): entry["top1"] for entry in known}

    torch.set_num_threads(1)
    digits = Digits()
    for seed, ipc, row in itertools.product(range(arguments.seeds), arguments.ipc, ROWS):
        if (row, ipc, seed) not in figures:
            top1 = figures[row, ipc, seed] = digits.top1(digits.chosen(row, ipc, seed), seed)
            with log.open("a") as file:
                print(json.dumps({"row": row, "ipc": ipc, "seed": seed, "top1": round(top1, 3)}), file=file)
            print(f"seed {seed}  IPC {ipc:2}  {row:25} {top1:.1f}", flush=True)

    machine = f"{platform.processor() or platform.machine()}, one thread, torch {version('torch')}"
    heading = (
        "# Methods on the digits\n\n`python benchmarks/digits_methods.py`; protocol `quick`, last epoch, "
        f"{arguments.seeds} seeds (each distils and trains anew), mean ± population standard deviation; {machine}.\n\n"
    )
    page.write_text(heading + table(figures, arguments.ipc, arguments.seeds) + "\n")
    print(page.read_text())


if __name__ == "__main__":
    main()
