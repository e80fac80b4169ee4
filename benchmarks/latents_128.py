"""The value of guided images in an autoencoder's latents at 128 pixels, with a perfect prior.

    python benchmarks/latents_128.py --data FOLDER --vae FOLDER --out DIR                    # the exact denoiser
    python benchmarks/latents_128.py --data FOLDER --vae FOLDER --out DIR --prior FOLDER     # a trained prior

`--data` is imagenette, `--vae` TAESD (diffusers' AutoencoderTiny). Each class is split in two: statistics are fitted on
one half, and the prior is the exact posterior mean over the other, x̂0 = Σ softmax(−|z − √ᾱ x_i|² / 2(1−ᾱ)) x_i, with
all classes as the null branch of classifier-free guidance. Its plain samples are real images of the class, better than
those of any prior trained on a CPU; but it cannot generalise beyond them. With --prior the statistics are fitted on all
training images and the prior is the one in the folder (`dmgd train-prior --vae` trains one).

Two metrics: `probe`, a linear classifier on EfficientNet-Lite0's features of the set, tested on all real test images;
and `detail`, the mean squared Laplacian relative to that of the real training images. With --conv a ConvNet-4 is
trained on the set at 64 pixels, too. A row is METHOD@GUIDANCE, METHOD alone with a trained prior, `random` or
`kmeans-real`.

--out keeps latents, features and finished measurements; an interrupted run continues from them. Its table is
`table.md`, its contact sheet `sheet.png`, which contains real images and must not be published.
"""

import argparse
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contact_sheet import contact_sheet
from figures import gain, mean_and_spread
from rows import REAL, ROWS
from safetensors.torch import load_file, save_file
from sets import Bench, drawn, statistics_of
from torch import Tensor
from torch.nn.functional import interpolate

from dmgd.classes.info import ClassInfo
from dmgd.diffusion.condition import Condition
from dmgd.diffusion.guidance import Denoised
from dmgd.diffusion.schedule import Schedule, Step, respaced, training_alpha_bar
from dmgd.evaluation.features import feature_network
from dmgd.evaluation.imageset import ImageSet, Shape, source_set
from dmgd.evaluation.measure import linear_probe, standardised
from dmgd.evaluation.protocols import protocol_named
from dmgd.files import written_whole
from dmgd.generation.config import DistillConfig
from dmgd.images import to_square
from dmgd.priors.codec import AutoencoderCodec
from dmgd.priors.load import load_prior
from dmgd.priors.prior import PriorDefaults
from dmgd.progress import SILENT, Progress
from dmgd.sources.detail import detail
from dmgd.sources.open import open_source
from dmgd.sources.source import Source
from dmgd.specs import PriorSpec
from dmgd.statistics.cache import ClassLatents

SIZE, CONV_SIZE = 128, 64
BATCH = 64
COMPARED = ("dit", "dmgd-paper", "mgd3", "dmgd")
EXACT_ROWS = [*REAL, *(f"{name}@{scale}" for name in COMPARED for scale in (1, 4))]
TRAINED_ROWS = [*REAL, *COMPARED]
AGAINST = ("dit", "dmgd-paper")


class ExactDenoiser:  # what sampling asks of a Prior, without weights
    """A prior that is the posterior mean over `latents`, the images (n, c, h, w) of each class.

    A condition is one-hot, the null condition zero.
    """

    device = torch.device("cpu")
    defaults = PriorDefaults(guidance_scale=1.0)
    spec = PriorSpec("exact denoiser")

    def __init__(self, latents: Sequence[Tensor], codec: AutoencoderCodec):
        self._images, self._codec = torch.cat([*latents]).flatten(1), codec
        self._ends = np.cumsum([0, *map(len, latents)])
        self._squared_norm = self._images.square().sum(1)
        self.latent_shape = tuple(latents[0].shape[1:])

    def schedule(self, steps: int, solver: str) -> Schedule:
        return respaced(training_alpha_bar(), steps, solver)

    def match_classes(self, classes: Sequence[ClassInfo]) -> tuple[ClassInfo, ...]:
        return tuple(replace(info, prior_index=c) for c, info in enumerate(classes))

    def prepare(self, classes: Sequence[ClassInfo], progress: Progress = SILENT) -> None:
        pass

    def condition(self, classes: Sequence[ClassInfo]) -> Condition:
        return Condition({"label": torch.eye(len(self._ends) - 1)[[info.prior_index or 0 for info in classes]]})

    def null_condition(self, count: int) -> Condition:
        return Condition({"label": torch.zeros(count, len(self._ends) - 1)})

    def denoise(self, z: Tensor, step: Step, condition: Condition) -> Denoised:
        label, rows, x0 = condition.embeddings["label"], z.flatten(1), torch.empty_like(z).flatten(1)
        of_class = torch.where(label.any(1), label.argmax(1), -1)
        for c in of_class.unique().tolist():
            own = slice(self._ends[c], self._ends[c + 1]) if c >= 0 else slice(None)
            chosen, images = of_class == c, self._images[own]
            # −|z − α x|² / 2σ², without |z|², which is the same for every image
            nearness = 2 * step.alpha * rows[chosen] @ images.T - step.alpha_bar * self._squared_norm[own]
            x0[chosen] = torch.softmax(nearness / (2 * step.sigma**2), 1) @ images
        return x0.reshape(z.shape), None

    def decode(self, latents: Tensor) -> Tensor:
        return self._codec.decode(latents)

    def to_json(self) -> dict[str, Any]:
        return {"id": self.spec.name}


def latents_of(source: Source, vae: Path, kept: Path) -> tuple[Tensor, Tensor]:
    """The latents (n, c, h, w) of a source's training images and their labels (n,), in the source's order; cached in a
    file."""
    if not kept.is_file():
        pixels, labels = zip(
            *((to_square(image, SIZE, 3), label) for image, label in source.decoded("train")), strict=True
        )
        codec = AutoencoderCodec(vae, "cpu")
        latents = torch.cat([codec.encode(part) for part in torch.stack(pixels).split(BATCH)])
        with written_whole(kept) as temporary:
            save_file({"train.latents": latents.contiguous(), "train.labels": torch.tensor(labels)}, temporary)
    read = load_file(kept)
    return read["train.latents"].float(), read["train.labels"].long()


@dataclass
class Testbed:
    """A prior, the images and latents that statistics are fitted on, and the features of all real images."""

    prior: Any
    classes: tuple[ClassInfo, ...]
    bench: Bench
    features: dict[str, Tensor]
    real_detail: float

    def made(self, row: str, ipc: int, seed: int) -> ImageSet:
        """The set of a row of the table."""
        if row in REAL:
            return self.bench.made(row, ipc, seed)
        name, _, scale = row.partition("@")
        # The exact denoiser does not support soft labels.
        method = ROWS[name]
        if scale:
            plain: dict[str, Any] = {"semantic": False} if hasattr(method, "semantic") else {}
            method = replace(method, guidance_scale=float(scale), **plain)
        config = DistillConfig(ipc=ipc, seed=seed, method=method, batch_size=BATCH)
        statistics = statistics_of(self.bench.latents, self.classes, config.k, SIZE)
        return drawn(row, config, self.prior, statistics)

    def figures(self, made: ImageSet, seed: int, conv: bool) -> dict[str, float | None]:
        """The metrics of a set."""
        rows = np.asarray(torch.cat([extractor()(part) for part in made.images.split(BATCH)]))
        real, test = (self.features[split].numpy() for split in ("train", "test"))
        labels, of_test = made.labels.numpy(), self.bench.test.labels.numpy()
        probe = linear_probe(standardised(rows, real), labels, standardised(test, real), of_test, len(self.classes))
        fine = float(detail(made.images.permute(0, 2, 3, 1).numpy()).mean())
        top1 = self.bench.learned(halved(made), protocol_named("quick"), seed) if conv else None
        return {"probe": round(probe, 2), "detail": round(fine / self.real_detail, 4), "conv": top1}


@cache
def extractor() -> Any:
    return feature_network("efficientnet-lite0", "cpu")


def halved(images: ImageSet) -> ImageSet:
    """The set at the size for training a ConvNet."""
    small = interpolate(images.images.float(), size=CONV_SIZE, mode="area").round().byte()
    return replace(images, images=small)


def features_of(sets: dict[str, ImageSet], kept: Path) -> dict[str, Tensor]:
    """The features (n, d) of whole splits, by name; cached in a file."""
    if not kept.is_file():
        found = {name: torch.cat([extractor()(part) for part in s.images.split(BATCH)]) for name, s in sets.items()}
        with written_whole(kept) as temporary:
            save_file(found, temporary)
    return load_file(kept)


def open_testbed(data: str, vae: Path, out: Path, prior: Path | None) -> Testbed:
    """The testbed with the prior in the folder `prior`, or with the exact denoiser of half of the images."""
    source, codec = open_source("imagenette", data=data), AutoencoderCodec(vae, "cpu")
    sets = {split: source_set(source, split, split, Shape(SIZE, SIZE, 3)) for split in ("train", "test")}
    features = features_of(sets, out / "features.safetensors")
    latents, labels = latents_of(source, vae, out / "latents.safetensors")
    generator = torch.Generator().manual_seed(0)
    known, held = [], []
    for c in range(len(source.classes)):
        own = (labels == c).nonzero()[:, 0]
        own = own[torch.randperm(len(own), generator=generator)]
        middle = len(own) if prior else len(own) // 2
        known.append(own[:middle].sort().values)
        held.append(own[middle:])
    chosen = torch.cat(known)
    starts = np.cumsum([0, *map(len, known)])
    of_class = [
        ClassLatents(latents[own].flatten(1).numpy(), np.arange(start, start + len(own)))
        for own, start in zip(known, starts, strict=False)
    ]
    loaded: Any = load_prior(str(prior), vae=str(vae)) if prior else ExactDenoiser([latents[i] for i in held], codec)
    classes = loaded.match_classes(source.classes)
    real_detail = float(detail(sets["train"].images.permute(0, 2, 3, 1).numpy()).mean())
    bench = Bench(sets["train"].select(chosen, "known"), halved(sets["test"]), of_class, loaded)
    return Testbed(loaded, classes, bench, features, real_detail)


def page_of(found: dict[tuple[str, int, int], dict[str, Any]], rows: Sequence[str], ipcs: Sequence[int]) -> str:
    """The tables in Markdown: each metric, mean ± population standard deviation over the seeds, and the gain of `dmgd`
    over the other rows by the probe, ± the paired standard error."""

    def table(title: str, shown: Sequence[str], cell: Any) -> str:
        lines = [[title, *(f"IPC {ipc}" for ipc in ipcs)], ["---"] * (1 + len(ipcs))]
        lines += [[row, *(cell(row, ipc) for ipc in ipcs)] for row in shown]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"

    def values(row: str, ipc: int, judge: str) -> list[float]:
        return [f[judge] for (r, i, _), f in sorted(found.items()) if (r, i) == (row, ipc) and f[judge] is not None]

    def against(row: str, ipc: int) -> str:
        scale = row.partition("@")[2]
        ours = f"dmgd@{scale}" if scale else "dmgd"
        seeds = [s for (r, i, s) in sorted(found) if (r, i) == (row, ipc) and (ours, ipc, s) in found]
        pairs = [[found[r, ipc, s]["probe"] for s in seeds] for r in (ours, row)]
        return f"{gain(*pairs)} ({len(seeds)})" if seeds else "–"

    def ratio(row: str, ipc: int) -> str:
        plain = values("dit" + "".join(row.partition("@")[1:]), ipc, "detail")
        own = values(row, ipc, "detail")
        return f"{np.mean(own) / np.mean(plain):.2f}" if plain and own else "–"

    rivals = [row for row in rows if row.partition("@")[0] in AGAINST]
    guided = [row for row in rows if row.partition("@")[0] not in REAL]
    pages = [
        table("probe, top-1 %", rows, lambda row, ipc: mean_and_spread(values(row, ipc, "probe"))),
        table("gain of dmgd by the probe (seeds)", rivals, against),
        table("detail, of real images", rows, lambda row, ipc: mean_and_spread(values(row, ipc, "detail"), 2)),
        table("detail, of plain samples", guided, ratio),
    ]
    if any(f["conv"] is not None for f in found.values()):
        pages.append(table("ConvNet-4 at 64 px, top-1 %", rows, lambda r, i: mean_and_spread(values(r, i, "conv"))))
    return "\n".join(pages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of imagenette")
    parser.add_argument("--vae", type=Path, required=True, help="folder of TAESD")
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument("--prior", type=Path, help="folder of a trained prior (default: the exact denoiser)")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="default: all")
    parser.add_argument("--ipc", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--conv", action="store_true", help="a ConvNet-4 from scratch as a third metric")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = arguments.rows or (TRAINED_ROWS if arguments.prior else EXACT_ROWS)
    name = "trained" if arguments.prior else "exact"
    log = arguments.out / f"{name}.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    found = {(line["row"], line["ipc"], line["seed"]): line for line in lines}
    bed = open_testbed(arguments.data, arguments.vae, arguments.out, arguments.prior)
    shown: dict[str, ImageSet] = {}
    for seed, ipc, row in itertools.product(range(arguments.seeds), arguments.ipc, rows):
        if (row, ipc, seed) in found and (not arguments.conv or found[row, ipc, seed]["conv"] is not None):
            continue
        made = bed.made(row, ipc, seed)
        if (ipc, seed) == (arguments.ipc[-1], 0):
            shown[row] = made
        figures = bed.figures(made, seed, arguments.conv)
        line = {"row": row, "ipc": ipc, "seed": seed, **figures}
        found[row, ipc, seed] = line
        with log.open("a") as file:
            print(json.dumps(line), file=file)
        print(line, flush=True)
    page = page_of(found, list(dict.fromkeys(row for row, _, _ in found)), arguments.ipc)
    (arguments.out / f"{name}.md").write_text(page)
    pictures = [shown[row] if row in shown else bed.made(row, arguments.ipc[-1], 0) for row in rows]
    sheet = contact_sheet(pictures, min(3, arguments.ipc[-1]))
    sheet.save(arguments.out / f"{name}.png")
    print(page)


if __name__ == "__main__":
    main()
