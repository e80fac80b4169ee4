"""What networks learn from each method's images, in the testbeds that the default has to earn its place in.

    python benchmarks/testbeds.py digits
    python benchmarks/testbeds.py digits-writers
    python benchmarks/testbeds.py imagenette-16 --data FOLDER
    python benchmarks/testbeds.py exact-32 --data FOLDER
    python benchmarks/testbeds.py exact-latents --data FOLDER --vae FOLDER
    python benchmarks/testbeds.py cifar10 --data FOLDER --prior FOLDER
    python benchmarks/testbeds.py imagenette-128 --data FOLDER --vae FOLDER --prior FOLDER
    python benchmarks/testbeds.py imagenette-128-gpu --data FOLDER --vae FOLDER

| testbed | prior | trained on the sets |
|---|---|---|
| `digits` | the embedded one, 8 × 8 | `quick` |
| `digits-writers`, tested on other writers | a trained one, 8 × 8 | `quick` |
| `imagenette-16` | a trained one, pixels | `quick` |
| `exact-32` | the exact denoiser of half of imagenette, pixels | `quick`, linear probe |
| `exact-latents` | the same in TAESD's latents of 128 pixels | `quick` at 64 pixels with ConvNet-4, linear probe |
| `cifar10` | a trained one, pixels | `dsa` |
| `imagenette-128` | a trained one, TAESD's latents | `igd-adamw` with ConvNet-6 and ResNetAP-10, STEPS steps; probe |
| `imagenette-128-gpu` | the same, a larger network, trained on a GPU | `quick` with the same networks; probe |

`igd-adamw` tests a hundred times, which takes most of a short training: hence `quick`, which tests once, on a GPU.

All of it is done by `dmgd.bench`; every seed distils again and trains one network. `--data` is a folder of imagenette
or CIFAR-10, `--vae` TAESD (diffusers' AutoencoderTiny). A prior that is not given is trained first. Rows are NAME at
the method's own guidance scale, or NAME@SCALE; by default all methods at the prior's scale and at 4 (priors of latents
have 4 themselves), with the exact denoiser at 1, 2 and 4. The probe is a linear classifier on EfficientNet-Lite0's
features of the set.

`--split validation` trains on four fifths of the training images and tests on the rest, another fifth for every seed,
to choose settings; without it, the test split is used. A prior that was trained on all training images knows the folds'
test images, too; the exact denoiser does not.

--out keeps everything; the same command continues after an interrupt, on any later day. It ends with the tables
(`table.md`), the gains of `dmgd` over every row (`gains.md`), and a contact sheet (`sheet.png`), which contains real
images and must not be published where these must not.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from contact_sheet import contact_sheet
from divided import FOLDS, DigitsByWriter, fold
from exact import with_exact_prior
from figures import gains
from probe import probed
from rows import method_of, usual_rows

import dmgd
from dmgd.display import Display
from dmgd.distribution.engine import as_engine
from dmgd.evaluation.bench_config import BenchConfig
from dmgd.evaluation.bench_files import write_comparison
from dmgd.evaluation.bench_sets import BenchSets
from dmgd.evaluation.comparison_table import Comparison
from dmgd.evaluation.imageset import ImageSet, Shape
from dmgd.evaluation.protocols import protocol_named
from dmgd.evaluation.results import Result
from dmgd.files import write_bytes
from dmgd.priors.load import as_prior, torch_device
from dmgd.priors.prior import Prior
from dmgd.progress import SILENT
from dmgd.sources.source import Source

SHOWN = ("dit", "dmgd-paper", "dmgd", "random")  # on the contact sheet
EACH = 3  # images of each class and set on the contact sheet


@dataclass(frozen=True)
class Testbed:
    """A source (None: that in the folder of the data), the side of the prior's images, and what is trained on the sets,
    as settings of `BenchConfig`. With `steps` every training has so many instead of the protocol's epochs. `training`
    are the settings of `train_prior` for a prior that is not given."""

    source: str | None
    size: int
    training: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    is_exact: bool = False
    in_latents: bool = False
    probes: bool = False
    steps: int | None = None

    def opened(self, data: str | None) -> Source:
        if self.source == "digits":
            return dmgd.open_source("digits")
        if self.source == DigitsByWriter.name:
            return DigitsByWriter()
        if data is None:
            raise SystemExit("give the folder of the images with --data")
        return dmgd.open_source(self.source, data=data) if self.source else dmgd.open_source(f"hf:{data}")


_AT_128 = Testbed(
    "imagenette",
    128,
    training={"minutes": 180},
    settings={"protocols": ("igd-adamw",), "networks": ("convnet-6", "resnetap-10"), "size": 128},
    in_latents=True,
    probes=True,
    steps=300,
)
BEDS = {
    "digits": Testbed("digits", 8),
    "digits-writers": Testbed(DigitsByWriter.name, 8, training={"steps": 2000}),
    "imagenette-16": Testbed("imagenette", 16, training={"steps": 4000, "flip": True}, settings={"size": 16}),
    "exact-32": Testbed("imagenette", 32, settings={"size": 32}, is_exact=True, probes=True),
    "exact-latents": Testbed(
        "imagenette",
        128,
        settings={"size": 64, "networks": ("convnet-4-w64",)},
        is_exact=True,
        in_latents=True,
        probes=True,
    ),
    "cifar10": Testbed(None, 32, training={"minutes": 240}, settings={"protocols": ("dsa",)}),
    "imagenette-128": _AT_128,
    "imagenette-128-gpu": replace(
        _AT_128,
        training={"minutes": 8},
        settings={"networks": ("convnet-6", "resnetap-10"), "size": 128},
        steps=None,
    ),
}


@dataclass(frozen=True)
class Part:
    """One bench of a testbed, in a folder of its own. Its first seed is that of the whole, `seed`."""

    folder: Path
    source: Source
    prior: Prior
    config: BenchConfig
    seed: int

    def sets(self, device: str) -> BenchSets:
        prior = self.prior
        return BenchSets(
            self.folder, self.source, prior, prior.image_size, prior.image_channels, as_engine(device), SILENT
        )


def parts_of(bed: Testbed, arguments: argparse.Namespace, display: Display) -> Iterator[Part]:
    """The benches of a testbed: one for every fold, and where epochs are by the number of images, for every IPC."""
    whole, steps = bed.opened(arguments.data), arguments.steps or bed.steps
    folds = range(arguments.seeds) if arguments.split == "validation" else [None]
    for number in folds:
        source = whole if number is None else fold(whole, number % FOLDS)
        own, prior = with_prior(bed, source, whole, arguments, display)
        scale = prior.defaults.guidance_scale
        scales = (1.0, 2.0, 4.0) if bed.is_exact else tuple(dict.fromkeys((scale, 4.0)))
        rows = arguments.rows or usual_rows(scales, plain=bed.is_exact)
        config = BenchConfig(
            methods={row: method_of(row, scale, plain=bed.is_exact) for row in rows},
            ipc=tuple(arguments.ipc),
            seeds=arguments.seeds if number is None else 1,
            **bed.settings,
        )
        folder, seed = arguments.out / ("bench" if number is None else f"fold-{number}"), number or 0
        if steps is None:
            yield Part(folder, own, prior, config, seed)
            continue
        (protocol,) = config.protocols
        batch = protocol_named(protocol).batch_size
        assert batch  # only rded-soft has none
        for ipc in sorted(arguments.ipc):
            epochs = math.ceil(steps / math.ceil(ipc * len(own.classes) / batch))
            yield Part(folder / f"ipc{ipc}", own, prior, replace(config, ipc=(ipc,), epochs=epochs), seed)


def with_prior(
    bed: Testbed, source: Source, whole: Source, arguments: argparse.Namespace, display: Display
) -> tuple[Source, Prior]:
    """The source of the sets, all of it or the half that the exact denoiser does not have; and the prior, trained on
    all training images if there is none yet."""
    device = torch_device(arguments.device)
    vae = arguments.vae if bed.in_latents else None
    if bed.is_exact:
        return with_exact_prior(source, bed.size, vae, device, display)
    if bed.source == "digits" or arguments.prior:
        return source, as_prior(arguments.prior or "digits", device, source.classes)
    folder = arguments.out.parent / f"prior-{arguments.testbed}"
    asked = {"size": bed.size, "vae": vae, **bed.training}
    dmgd.train_prior(whole, out=folder, device=arguments.device, progress=display, **asked)
    return source, as_prior(str(folder), device, source.classes)


def results_of(part: Part, bed: Testbed, arguments: argparse.Namespace, display: Display) -> list[Result]:
    """The results of a bench, and of the probe on its sets, with the seeds of the whole."""
    done = dmgd.bench(
        part.source,
        part.prior,
        part.config,
        out=part.folder,
        device=arguments.device,
        progress=display,
        on_estimate=lambda estimate: display.note(str(estimate)),
    )
    results = list(done.results)
    if bed.probes:
        on = str(torch_device(arguments.device))
        results += probed(part.config.sets(), part.sets(arguments.device), part.source, on, display)
    return [replace(one, facts=replace(one.facts, seed=one.facts.seed + part.seed)) for one in results]


def shown_sets(part: Part, device: str) -> list[ImageSet]:
    """The sets of the largest IPC and the first seed that the contact sheet shows: SHOWN at all scales, and real
    images."""
    sets, prior = part.sets(device), part.prior
    planned = [one for one in part.config.sets() if (one.seed, one.ipc) == (0, max(part.config.ipc))]
    shape = Shape(prior.image_size, prior.image_size, prior.image_channels)
    shown = [one for name in SHOWN for one in planned if one.row.partition("@")[0] == name]
    called = {"random": "real images"}
    return [replace(sets.at(one, shape), name=called.get(one.row, one.row)) for one in shown]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("testbed", choices=BEDS)
    parser.add_argument("--data", help="folder of the images")
    parser.add_argument("--vae", help="folder of TAESD")
    parser.add_argument("--prior", help="folder of a trained prior; default: train one, beside --out")
    parser.add_argument("--out", type=Path, help="folder of all that is made; default: build/bed-TESTBED")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="default: all methods, at all scales")
    parser.add_argument("--networks", nargs="+", help="to train, in place of the testbed's")
    parser.add_argument("--ipc", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="of each training, in place of its epochs (IPC 1: fewer images each)")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    bed, display = BEDS[arguments.testbed], Display()
    if arguments.networks:
        bed = replace(bed, settings={**bed.settings, "networks": tuple(arguments.networks)})
    validates = "-validation" if arguments.split == "validation" else ""
    arguments.out = arguments.out or Path("build") / f"bed-{arguments.testbed}{validates}"
    if bed.is_exact and bed.in_latents and not arguments.vae:
        parser.error(f"{arguments.testbed} needs --vae")
    if bed.source == DigitsByWriter.name and arguments.split == "validation":
        parser.error("folds have the same writers on both sides: digits-writers has no --split validation")

    parts, results = [], []
    for part in parts_of(bed, arguments, display):
        results += results_of(part, bed, arguments, display)
        parts.append(part)
    last, source = parts[-1], parts[0].source
    settings = {
        **last.config.to_json(),
        "ipc": arguments.ipc,
        "source": {"name": source.name, "variant": source.variant},
    }
    comparison = Comparison(tuple(results), source.classes, settings)
    write_comparison(comparison, arguments.out, lambda: None)
    ours = [name for name in last.config.rows if name.partition("@")[0] == "dmgd"]
    write_bytes(arguments.out / "gains.md", gains(comparison.to_json(), ours).encode())
    if shown := shown_sets(last, arguments.device):
        contact_sheet(shown, min(EACH, max(last.config.ipc))).save(arguments.out / "sheet.png")
    print((arguments.out / "table.md").read_text())
    print((arguments.out / "gains.md").read_text())


if __name__ == "__main__":
    main()
