"""The default method's window and stages: for digits, the golden tiny DiT, and DiT-XL/2's latents.

    python benchmarks/placement.py --data FOLDER --encoder FOLDER

`--data` is imagenette, `--encoder` TAESD, whose latents approximate those of DiT-XL/2's autoencoder. Images are resized
to 256 pixels, --images per class. Window and stages follow from statistics and schedule alone, so no weights are
needed. Also, for each third of the window from the noise on, the total step size: the fraction of the distance to its
target that an image moves, 1 − Π (1 − ρ w_k) with w_k the weight of ẑ_0 in the posterior mean.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from dmgd.classes.info import ClassInfo
from dmgd.config import StatisticsConfig
from dmgd.diffusion.schedule import respaced, training_alpha_bar
from dmgd.images import to_square
from dmgd.matching.methods import DMGD
from dmgd.priors.codec import AutoencoderCodec
from dmgd.priors.load import load_prior
from dmgd.sources.open import open_source
from dmgd.statistics.file import Statistics
from dmgd.statistics.kmeans import class_seed, quantization_error, quantize
from dmgd.workflows.fit_stats import fit_statistics

GOLDEN = Path(__file__).parent.parent / "tests" / "golden" / "released_default.safetensors"
POINTS, SIZE, BATCH = 20, 256, 10


def statistics_of(support: torch.Tensor, mass: torch.Tensor, image_size: int, w2: list[float]) -> Statistics:
    """Statistics from support points (c, k, d), masses (c, k) and W₂² of each class, with numbered classes."""
    classes = tuple(ClassInfo(str(c)) for c in range(len(support)))
    return Statistics(
        support=support,
        mass=mass / mass.sum(1, keepdim=True),
        covariance=torch.zeros(*mass.shape, mass.shape[1], dtype=torch.float64),
        features=torch.empty(len(support), 0, 0),
        count=torch.ones(len(support), dtype=torch.int64),
        classes=classes,
        header={"encoder": {"pixels": False}, "quality": {"w2": w2}},
    )


def golden_statistics() -> Statistics:
    """The statistics of the golden trajectories: the tiny DiT's 4×8×8 latents."""
    tensors = load_file(GOLDEN)
    names = sorted(name.split(".")[0] for name in tensors if name.endswith(".support"))
    support, mass = (torch.stack([tensors[f"{name}.{part}"].float() for name in names]) for part in ("support", "mass"))
    return statistics_of(support, mass, 64, [float("nan")] * len(support))


def imagenette_statistics(data: str, encoder: str, images: int) -> Statistics:
    """The statistics of `images` images per class at 256 pixels: 4×32×32 latents, as for DiT-XL/2."""
    codec, source = AutoencoderCodec(Path(encoder), "cpu"), open_source("imagenette", data=data)
    pixels: dict[int, list[torch.Tensor]] = {}
    seen: Counter[int] = Counter()
    for image, label in source.decoded("train"):
        if seen[label] < images:
            seen[label] += 1
            pixels.setdefault(label, []).append(to_square(image, SIZE, 3))
    fits, w2 = [], []
    for label, own in sorted(pixels.items()):
        rows = torch.cat([codec.encode(part).flatten(1) for part in torch.stack(own).split(BATCH)])
        fits.append(quantize(rows.numpy(), POINTS, class_seed(0, source.classes[label].identity)))
        w2.append(quantization_error(rows.numpy(), fits[-1][0]))
    support, mass = (torch.from_numpy(np.stack(part)).float() for part in zip(*fits, strict=True))
    return statistics_of(support, mass, SIZE, w2)


def row(name: str, statistics: Statistics, keep_detail: bool | None = None) -> str:
    """One line of the table."""
    schedule, method = respaced(training_alpha_bar()), DMGD(keep_detail=keep_detail)
    chosen = method.settled(schedule, statistics, POINTS // 2)
    assert chosen.window is not None
    assert chosen.stages is not None
    (first, last), (clear, show) = chosen.window, chosen.stages
    thirds = np.array_split(np.arange(last, first - 1, -1), 3)
    moved = [1 - np.prod([1 - method.rho * schedule[k].mean_x0 for k in part]) for part in thirds]
    return (
        f"| {name} | {statistics.support.shape[2]} | {statistics.within:.3g} | {last} … {first} "
        f"(t {schedule[last].timestep} … {schedule[first].timestep}) | "
        f"{statistics.between:.3g} | {show} … {clear} (t {schedule[show].timestep} … {schedule[clear].timestep}) | "
        f"{', '.join(f'{fraction:.2f}' for fraction in moved)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--images", type=int, default=60)
    arguments = parser.parse_args()
    columns = "statistics, dimensions, d within, transport in steps, d between, soft labels in steps, total step size"
    print("| " + columns.replace(", ", " | ") + " |\n" + "|---" * 7 + "|")
    digits = fit_statistics(open_source("digits"), load_prior("digits"), StatisticsConfig(k=POINTS))
    print(row("digits, pixels", digits), flush=True)
    # The images behind the golden support points are unknown: their steps are those without keep_detail.
    print(row("golden tiny DiT", golden_statistics(), keep_detail=False), flush=True)
    xl = imagenette_statistics(arguments.data, arguments.encoder, arguments.images)
    print(row("imagenette in DiT-XL/2's latents (TAESD)", xl))


if __name__ == "__main__":
    main()
