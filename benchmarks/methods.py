"""What a small network learns from each method's images, and ablations of the default method: `dmgd.bench` with named
variants.

    python benchmarks/methods.py digits
    python benchmarks/methods.py imagenette-16 --data FOLDER

`imagenette-16` is imagenette at 16×16 RGB, with a prior that this script trains unless --prior names its folder. Every
seed distils again and trains one network by the `quick` protocol. `--split validation` trains on four fifths of the
training images and tests on the rest, another fifth for every seed, to choose settings; without it, the test split is
used. --out keeps runs and tables; the same command continues.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rows import REAL, ROWS

import dmgd
from dmgd.display import Display
from dmgd.evaluation.bench_files import write_comparison
from dmgd.evaluation.comparison_table import Comparison
from dmgd.sources.source import Source, SourceImage

SIZES = {"digits": 8, "imagenette-16": 16}
FOLDS = 5


class Fold(Source):
    """Of the training images every fifth of a class, from the `fold`-th on, as test images, and the rest."""

    def __init__(self, whole: Source, fold: int):
        self.whole, self.fold = whole, fold
        self.spec, self.variant, self.licence, self.classes = whole.spec, whole.variant, whole.licence, whole.classes
        self.name = f"{whole.name}-fold{fold}"

    def images(self, split: str) -> Iterator[SourceImage[int]]:
        seen = [0] * len(self.classes)
        for one in self.whole.images("train"):
            is_held = seen[one.label] % FOLDS == self.fold
            seen[one.label] += 1
            if is_held == (split == "test"):
                yield one

    def fingerprint(self, split: str) -> str:
        return f"{self.whole.fingerprint('train')}-{split}-{self.fold}"


def on_folds(source: Source, prior: str, out: Path, seeds: int, settings: dict[str, Any]) -> Comparison:
    """The comparison in which seed s is that of the fold s."""
    results = []
    for seed in range(seeds):
        fold = dmgd.bench(Fold(source, seed % FOLDS), prior, out=out / f"fold-{seed}", seeds=1, **settings)
        results += [replace(one, facts=replace(one.facts, seed=seed)) for one in fold.results]
    whole = Comparison(tuple(results), source.classes, {**fold.settings, "source": {"name": f"folds of {source.name}"}})
    write_comparison(whole, out)
    return whole


def ensure_prior(dataset: str, source: Source, given: str | None) -> str:
    """The prior's name or folder; trained here if there is none yet."""
    if given or dataset == "digits":
        return given or "digits"
    folder = Path("build") / f"prior-{dataset}"
    dmgd.train_prior(source, out=folder, steps=4000, size=SIZES[dataset], flip=True, progress=True)
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=SIZES)
    parser.add_argument("--data", help="folder of imagenette")
    parser.add_argument("--prior", help="folder of a trained prior; default: train one")
    parser.add_argument("--out", type=Path, help="folder of runs and tables; default: build/bench-DATASET")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--rows", nargs="+", default=[*REAL, *ROWS], choices=[*REAL, *ROWS], metavar="ROW")
    parser.add_argument("--ipc", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    display, validates = Display(), arguments.split == "validation"
    out = arguments.out or Path("build") / f"bench-{arguments.dataset}{'-validation' if validates else ''}"
    source = dmgd.open_source(arguments.dataset.split("-")[0], data=arguments.data)
    settings: dict[str, Any] = {
        "methods": {row: ROWS.get(row, row) for row in arguments.rows},
        "ipc": tuple(arguments.ipc),
        "size": SIZES[arguments.dataset],
        "progress": display,
        "on_estimate": lambda estimate: display.note(str(estimate)),
    }
    prior = ensure_prior(arguments.dataset, source, arguments.prior)
    if validates:
        on_folds(source, prior, out, arguments.seeds, settings)
    else:
        dmgd.bench(source, prior, out=out, seeds=arguments.seeds, **settings)
    print((out / "table.md").read_text())


if __name__ == "__main__":
    main()
