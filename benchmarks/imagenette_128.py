"""What networks learn at 128 pixels from each method's images, with a latent DiT that is trained here.

    python benchmarks/imagenette_128.py --data FOLDER --encoder FOLDER --out DIR          # half an hour on one GPU
    python benchmarks/imagenette_128.py --data FOLDER --encoder FOLDER --out DIR --tiny   # all of it, on one CPU core

`--data` is imagenette, `--encoder` TAESD (diffusers' AutoencoderTiny). The training images and their mirror images
become latents of 4×16×16, a DiT is trained on them, and every seed distils again and trains two networks by `igd-adamw`
at 128 pixels, with the number of optimiser steps in `Plan` instead of the protocol's epochs.

--out keeps latents, prior and finished measurements; an interrupted run continues from them. It also gets the table
(`table.md`) and a contact sheet (`sheet.png`), which contains real images and must not be published. --tiny is a smoke
test; its results mean nothing.
"""

import argparse
import itertools
import json
import math
import platform
import time
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from contact_sheet import contact_sheet
from figures import KEYS, Figures, Results, append_figures, read_figures
from rows import COMPARED, REAL
from safetensors.torch import load_file, save_file
from sets import Bench, measured
from torch import Tensor

from dmgd.display import Display
from dmgd.evaluation.imageset import ImageSet, stack_images
from dmgd.evaluation.protocols import EvaluateConfig, Protocol
from dmgd.files import write_bytes, write_json, written_whole
from dmgd.images import read_image, to_square
from dmgd.priors.codec import AutoencoderCodec
from dmgd.priors.dit import DiTConfig
from dmgd.priors.load import load_prior
from dmgd.priors.recipe import Recipe, TrainingConfig
from dmgd.priors.saving import DIFFUSERS, save_dit
from dmgd.priors.training import Examples, Training, new_network, train
from dmgd.sources.open import open_source
from dmgd.statistics.cache import ClassLatents

ROWS = [*REAL, *(name for name in COMPARED if name != "dmgd-paper")]
PROTOCOL, BATCH = "igd-adamw", 64
DEVIATION = (0.5, 2.0)  # of latents for which the noise schedule is still appropriate
SHOWN = 3  # images of each class and set on the contact sheet
LOG_KEYS = ("network", *KEYS)


@dataclass(frozen=True)
class Plan:
    """The sizes of the experiment. `minutes` limits the prior's training, `steps` are each network's; `train_images`
    and `test_images` per class are used (None: all)."""

    size: int
    recipe: Recipe
    minutes: float
    ipcs: tuple[int, ...]
    seeds: int
    steps: int
    networks: tuple[str, ...] = ("convnet-6", "resnetap-10")
    train_images: int | None = None
    test_images: int | None = None

    def protocol(self, network: str, images: int) -> Protocol:
        """The protocol with the number of epochs that gives `steps`."""
        epochs = math.ceil(self.steps / math.ceil(images / BATCH))
        return EvaluateConfig(PROTOCOL, epochs=epochs, network=network, size=self.size).chosen()


FULL = Plan(
    size=128,
    recipe=Recipe(depth=12, heads=8, head_width=64, patch=2, batch=256, learning_rate=3e-4, snr_cap=None),
    minutes=8,
    ipcs=(10, 50),
    seeds=3,
    steps=1500,
)  # fmt: skip
TINY = Plan(
    size=64,
    recipe=Recipe(depth=2, heads=2, head_width=32, patch=2, batch=16, learning_rate=1e-3, snr_cap=None),
    minutes=0.5,
    ipcs=(2,),
    seeds=2,
    steps=2,
    train_images=10,
    test_images=2,
)


@dataclass(frozen=True)
class Setup:
    """The paths of inputs and outputs, and the device."""

    data: str
    encoder: Path
    out: Path
    device: str

    @property
    def prior(self) -> Path:
        return self.out / "prior"


def require_same(plan: Plan, out: Path) -> None:
    """Store the plan in the folder; exit if there is another one."""
    path, text = out / "plan.json", json.dumps(asdict(plan), indent=1)
    if path.is_file() and path.read_text() != text:
        raise SystemExit(f"{out} was made by another plan; choose another --out")
    write_bytes(path, text.encode())


def images_of(data: str, split: str, size: int, most: int | None) -> ImageSet:
    """The images of a split of imagenette, at most `most` per class, in the source's order."""
    source, seen = open_source("imagenette", data=data), Counter[int]()
    pixels, labels = [], []
    for item in source.images(split):
        if most is None or seen[item.label] < most:
            seen[item.label] += 1
            pixels.append(to_square(read_image(item.image), size, channels=3))
            labels.append(item.label)
    return stack_images(split, pixels, labels, source.classes)


def latents_of(images: ImageSet, setup: Setup) -> tuple[Tensor, Tensor]:
    """The latents (n, c, h, w) of the images and those of their mirror images, in the same order; cached in a file."""
    path = setup.out / "latents.safetensors"
    if not path.is_file():
        codec = AutoencoderCodec(setup.encoder, setup.device)
        views = {"plain": images.images, "mirrored": images.images.flip(3)}
        with written_whole(path) as temporary:
            save_file({name: encoded(pixels, codec) for name, pixels in views.items()}, temporary)
    kept = load_file(path)
    return kept["plain"], kept["mirrored"]


def encoded(pixels: Tensor, codec: AutoencoderCodec) -> Tensor:
    """The latents of uint8 images (n, c, h, w), on the CPU."""
    return torch.cat([codec.encode(part.permute(0, 2, 3, 1)).cpu() for part in pixels.split(BATCH)]).contiguous()


def ensure_prior(images: ImageSet, setup: Setup, plan: Plan) -> None:
    """Train the prior on the images' latents, unless it exists."""
    plain, mirrored = latents_of(images, setup)
    deviation = float(plain.std())
    print(f"{len(plain)} latents of {tuple(plain.shape[1:])}, standard deviation {deviation:.3f}", flush=True)
    if not DEVIATION[0] < deviation < DEVIATION[1]:
        raise SystemExit(
            f"latents should have a deviation near 1; set the encoder's scaling_factor to {1 / deviation:.3f}"
        )
    if (setup.prior / "dmgd.json").is_file():
        return
    channels, side = plain.shape[1:3]
    shape = DiTConfig(
        sample_size=side, patch_size=plan.recipe.patch, in_channels=channels, out_channels=channels,
        width=plan.recipe.width, depth=plan.recipe.depth, num_heads=plan.recipe.heads,
        num_classes=len(images.classes), frequency_divisor=DIFFUSERS[0], norm_eps=DIFFUSERS[1],
    )  # fmt: skip
    examples = Examples(torch.cat([plain, mirrored]).half(), images.labels.repeat(2))
    none = Examples(examples.values[:0], examples.labels[:0])
    training = Training(new_network(shape, 0).to(setup.device), plan.recipe, examples, none, flip=False, seed=0)
    train(training, TrainingConfig(minutes=plan.minutes), setup.out / "checkpoint.pt", Display())
    save_dit(training.average, setup.prior)
    described = {"id": "imagenette-128", "numerics": "diffusers", "guidance_scale": 1.5}
    described |= {"classes": [info.name for info in images.classes], "vae": str(setup.encoder.resolve())}
    write_json(setup.prior / "dmgd.json", described)


@dataclass(frozen=True)
class Comparison:
    """The bench of one process, and its measurements."""

    bench: Bench
    plan: Plan

    def figures(self, row: str, ipc: int, seed: int) -> dict[str, Figures]:
        """The measurements of one set, by the network trained on it."""
        made = self.bench.made(row, ipc, seed)
        where = self.bench.place(made)
        protocols = {network: self.plan.protocol(network, len(made)) for network in self.plan.networks}
        return {
            network: Figures(top1=self.bench.learned(made, protocol, seed), **where)
            for network, protocol in protocols.items()
        }


def open_comparison(setup: Setup, plan: Plan) -> Comparison:
    """The comparison of methods with the trained prior."""
    known = images_of(setup.data, "train", plan.size, plan.train_images)
    test = images_of(setup.data, "test", plan.size, plan.test_images)
    plain, _ = latents_of(known, setup)
    ordinals = [(known.labels == c).nonzero()[:, 0] for c in range(len(known.classes))]
    latents = [ClassLatents(plain[own].flatten(1).numpy(), own.numpy()) for own in ordinals]
    prior = load_prior(str(setup.prior), vae=str(setup.encoder), device=setup.device)
    return Comparison(Bench(known, test, latents, prior), plan)


def compare(setup: Setup, plan: Plan, jobs: int) -> dict[tuple[str, str, int, int], Figures]:
    """All measurements by (network, row, IPC, seed); those of an earlier run are not computed again."""
    log = setup.out / "figures.jsonl"
    found = read_figures(log, LOG_KEYS)
    tasks = [
        (row, ipc, seed)
        for seed, ipc, row in itertools.product(range(plan.seeds), plan.ipcs, ROWS)
        if any((network, row, ipc, seed) not in found for network in plan.networks)
    ]
    for (row, ipc, seed), by_network in measured(tasks, partial(open_comparison, setup, plan), jobs):
        for network, figures in by_network.items():
            found[network, row, ipc, seed] = figures
            append_figures(log, (network, row, ipc, seed), figures, LOG_KEYS)
        learned = "  ".join(f"{network} {figures.top1:.1f}" for network, figures in by_network.items())
        print(f"seed {seed}  IPC {ipc:2}  {row:14} {learned}", flush=True)
    return found


def page_of(found: dict[tuple[str, str, int, int], Figures], plan: Plan, device: str) -> str:
    """The tables in Markdown, below a line about the settings."""
    on = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    recipe = plan.recipe
    parts = [
        f"# Methods on imagenette at {plan.size} pixels\n\n`python benchmarks/imagenette_128.py`; prior: DiT of width "
        f"{recipe.heads * recipe.head_width} and depth {recipe.depth} on TAESD's latents, batch {recipe.batch}, at "
        f"most {recipe.steps} steps and {plan.minutes:g} minutes, guidance scale {recipe.guidance_scale}; protocol "
        f"`{PROTOCOL}` with {plan.steps} steps, last epoch, test split; {plan.seeds} seeds (each distils and trains "
        f"again), mean ± population standard deviation; {on}, torch {version('torch')}.\n\n"
    ]
    for network in plan.networks:
        results = Results({key[1:]: f for key, f in found.items() if key[0] == network}, ROWS, [*plan.ipcs], plan.seeds)
        parts.append(f"## {network}\n\n{results.learned()}")
    return "".join(parts) + f"## Among the real images\n\n{results.placed().rstrip()}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of imagenette")
    parser.add_argument("--encoder", type=Path, required=True, help="folder of TAESD")
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument("--tiny", action="store_true", help="a few images and steps, as a smoke test")
    parser.add_argument("--jobs", type=int, help="sets measured at a time (default: 3 on a GPU, else 1)")
    arguments = parser.parse_args()
    device, plan = "cuda" if torch.cuda.is_available() else "cpu", TINY if arguments.tiny else FULL
    setup = Setup(arguments.data, arguments.encoder, arguments.out, device)
    require_same(plan, setup.out)

    started = time.perf_counter()
    ensure_prior(images_of(setup.data, "train", plan.size, plan.train_images), setup, plan)
    print(f"the prior is ready after {time.perf_counter() - started:.0f} s", flush=True)
    found = compare(setup, plan, arguments.jobs or (3 if device == "cuda" else 1))
    print(f"all measurements are done after {time.perf_counter() - started:.0f} s", flush=True)
    write_bytes(setup.out / "table.md", page_of(found, plan, device).encode())
    bench = open_comparison(setup, plan).bench
    sheet = contact_sheet([bench.made(row, plan.ipcs[0], 0) for row in ROWS], min(SHOWN, plan.ipcs[0]))
    sheet.save(setup.out / "sheet.png")
    print((setup.out / "table.md").read_text())


if __name__ == "__main__":
    main()
