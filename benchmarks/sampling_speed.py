"""The speed of sampling: each method by batch size, compared with the device's measured matrix-product ceiling.

    python benchmarks/sampling_speed.py digits
    python benchmarks/sampling_speed.py dit-xl-2 --precision bf16 --compile --profile     # on a GPU
    python benchmarks/sampling_speed.py dit-small --steps 4 --batches 1 4                 # the same, on a CPU

`digits` samples the embedded prior; the others are DiTs with random weights and synthetic statistics, so nothing is
downloaded. Seconds are the minimum of --repeats alternating passes. "of the ceiling" is the network's FLOPs (counted by
torch) per second, relative to those of one large matrix product in the same precision; "overhead" is the time that a
method spends outside the network beyond what plain sampling (`dit`) with the same batch size spends there, relative to
plain sampling's whole time; it and the memory come from one pass, and on a busy machine the overhead is uncertain by
several points. With `digits`, all rows of a method sample the same 100 images, and their largest difference is shown;
batch size "plain" (`--batches 0`) is a simple loop over single images with diffusers' module, which computes the
conditioning in every block. Results are appended to --results, with versions.
"""

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import DiTTransformer2DModel
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import dmgd.priors
from dmgd.classes.info import ClassInfo
from dmgd.config import StatisticsConfig
from dmgd.diffusion.condition import Condition
from dmgd.diffusion.guidance import Denoised, Denoiser
from dmgd.diffusion.schedule import Step
from dmgd.generation.config import DistillConfig
from dmgd.generation.micro_batches import micro_batched, suitable_batch
from dmgd.generation.plan import make_plan
from dmgd.generation.sampling import sample_batch
from dmgd.matching.methods import METHODS
from dmgd.priors.codec import NoCodec
from dmgd.priors.dit import DiT, DiTConfig
from dmgd.priors.dit_prior import DiTPrior
from dmgd.priors.load import PRECISIONS, load_prior
from dmgd.priors.prior import Prior, PriorDefaults, PriorIdentity
from dmgd.sources.open import open_source
from dmgd.specs import PriorSpec, SourceSpec
from dmgd.statistics.file import Statistics
from dmgd.statistics.untrained import mean_features
from dmgd.workflows.fit_stats import fit_statistics

LATENTS = {"patch_size": 2, "in_channels": 4, "out_channels": 8, "num_classes": 1000}
SHAPES = {
    "dit-xl-2": DiTConfig(sample_size=32, width=1152, depth=28, num_heads=16, **LATENTS),
    "dit-small": DiTConfig(sample_size=16, width=384, depth=12, num_heads=6, **LATENTS),
}
PLAIN = 0  # batch size: a loop over single images with diffusers' module
BATCHES = {"digits": (PLAIN, 1, 10, 20, 100), "dit-xl-2": (1, 8, 32, 64, 128, 256), "dit-small": (1, 8, 32)}
METHOD_NAMES = ("dit", "dmgd")
CLASSES, IPC = 10, 10
DIGITS = Path(dmgd.priors.__file__).parent / "digits"


@dataclass(frozen=True)
class Row:
    """One line of the table; memory is the peak in MiB beyond the weights and statistics."""

    method: str
    batch: int
    seconds_per_image: float
    of_ceiling: float
    overhead: float | None
    peak_mib: float


def random_prior(shape: DiTConfig, device: str, precision: str) -> Prior:
    """A prior of random weights without an autoencoder."""
    torch.manual_seed(0)
    network = DiT(shape).to(device, PRECISIONS[precision]).eval().requires_grad_(False)
    classes = tuple(ClassInfo(str(i)) for i in range(shape.num_classes))
    identity = PriorIdentity("random", None, "", "original")
    spec = PriorSpec("random", precision=precision)
    return DiTPrior(
        spec=spec,
        identity=identity,
        classes=classes,
        defaults=PriorDefaults(4.0, 3),
        codec=NoCodec(),
        device=torch.device(device),
        network=network,
    )


def random_statistics(prior: Prior, classes: int, k: int) -> Statistics:
    """`k` support points of unequal masses per class, about as far apart as those of real latents."""
    generator = torch.Generator().manual_seed(0)
    mass = 0.1 + torch.rand(classes, k, generator=generator)
    support = torch.randn(classes, k, math.prod(prior.latent_shape), generator=generator)
    features = torch.from_numpy(mean_features(support[0].numpy(), prior.latent_shape))
    return Statistics(
        support=support,
        mass=mass / mass.sum(1, keepdim=True),
        covariance=(support @ support.mT).double(),
        features=features.expand(classes, -1, -1),
        count=torch.full((classes,), 100),
        classes=tuple(ClassInfo(str(c), None, c) for c in range(classes)),
        header={"encoder": {"pixels": False}, "quality": {"w2": [1.0] * classes}},
    )


class PlainDiT(torch.nn.Module):
    """The network of a diffusers folder as diffusers' own module, conditioned on label embeddings."""

    def __init__(self, folder: Path):
        super().__init__()
        self.model = DiTTransformer2DModel.from_pretrained(folder, low_cpu_mem_usage=False).float().eval()
        for block in self.model.transformer_blocks:
            block.norm1.emb.class_embedder = torch.nn.Identity()

    def forward(self, z: Tensor, t: float, label: Tensor) -> Tensor:
        return self.model(z, timestep=torch.full((len(z),), t), class_labels=label[:, 0]).sample


class Sampling:
    """A prior and statistics to sample with."""

    def __init__(
        self, name: str, device: str, precision: str, compiled: bool, steps: int, grid: tuple[int, int] | None
    ):
        self.name, self.steps, self._grid = name, steps, grid
        self._inside: float | None = None  # the seconds in the network, while they are counted
        if name == "digits":
            self.prior = load_prior("digits", device=device, precision=precision)  # type: ignore[arg-type]
            source = open_source("digits")
            self.fitted = {k: fit_statistics(source, self.prior, StatisticsConfig(k=k)) for k in (10, 2 * IPC)}
            self.plain = replace(self.prior, network=PlainDiT(DIGITS)).denoise
        else:
            self.prior = random_prior(SHAPES[name], device, precision)
            classes = grid[0] if grid else CLASSES
            self.fitted = {k: random_statistics(self.prior, classes, k) for k in (10, 2 * IPC)}
        self.flop = self._flop_of_an_image()
        if compiled:
            self.prior = self.prior.compiled()

    def _flop_of_an_image(self) -> int:
        """The FLOPs of an image's two rows in one step."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            z = torch.zeros(2, *self.prior.latent_shape, device=self.prior.device)
            self.prior.denoise(z, self.prior.schedule(2, "ddpm")[0], self.prior.null_condition(2))
        return counter.get_total_flops()

    def outside(self, method: str, batch: int) -> float:
        """The seconds of one pass outside the network, with a synchronised device."""
        self._inside, started = 0.0, finished(self.prior.device)
        self.latents(method, batch)
        outside = finished(self.prior.device) - started - self._inside
        self._inside = None
        return outside

    def _counted(self, denoise: Denoiser) -> Denoiser:
        def counted(z: Tensor, step: Step, condition: Condition) -> Denoised:
            if self._inside is None:
                return denoise(z, step, condition)
            started = finished(self.prior.device)
            output = denoise(z, step, condition)
            self._inside += finished(self.prior.device) - started
            return output

        return counted

    def grid(self, batch: int) -> tuple[int, int]:
        """The numbers of classes and of images per class to sample: as given, for digits the same for all rows, else
        about one batch."""
        if self._grid or self.name == "digits":
            return self._grid or (CLASSES, IPC)
        return max(1, min(CLASSES, batch // IPC)), min(IPC, batch) if batch <= CLASSES * IPC else batch // CLASSES

    def latents(self, method: str, batch: int) -> Tensor:
        """The latents of a method's images, by class, sampled as by `dmgd distill` with `batch` images per network
        call. Joint matching always gets all images of a class; only the network gets micro-batches."""
        classes, ipc = self.grid(batch)
        config = DistillConfig(ipc=ipc, method=replace(METHODS[method](), steps=self.steps), batch_size=batch or 1)
        statistics = self.fitted[config.k if config.k in self.fitted else 2 * IPC]
        network = self._counted(self.prior.denoise if batch else self.plain)
        made: list[list[Tensor]] = [[] for _ in range(classes)]
        plan = replace(
            make_plan(config, SourceSpec(self.name), self.prior, statistics), classes=statistics.classes[:classes]
        )
        for part in plan.batches:
            greedy = config.method.matching_order == "greedy" and part.images[0] > 0
            frozen = [torch.stack([torch.stack(made[c]) for c in part.classes]).flatten(2)] if greedy else []
            latents, _ = sample_batch(part, plan, self.prior, statistics, frozen, micro_batched(network, batch or 1))
            for (c, _), latent in zip(part.indices(), latents, strict=True):
                made[c].append(latent)
        return torch.stack([latent for own in made for latent in own])


def finished(device: torch.device) -> float:
    """The time, after waiting for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def cpu_name() -> str:
    """The processor's model name (Linux), or its architecture."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of one large matrix product, the best of several."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        started = finished(device)
        a @ b
        best = min(best, finished(device) - started)
    return 2 * size**3 / best


def peak_mib(device: torch.device, work: Callable[[], object]) -> float:
    """The peak memory of `work` beyond the current use: allocated on a GPU, resident (Linux) on a CPU."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = resident("VmRSS")
    work()
    return (resident("VmHWM") - before) / 1024


def resident(what: str) -> int:
    """VmRSS, the resident memory, or VmHWM, its peak, in KiB."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if what in line)


def measured(sampling: Sampling, batches: list[int], methods: list[str], repeats: int, ceiling: float) -> list[Row]:
    """The rows of the table: every method with every batch size, alternating."""
    device, cells = sampling.prior.device, [(method, batch) for batch in batches for method in methods]
    best = dict.fromkeys(cells, float("inf"))
    peaks: dict[tuple[str, int], float] = {}
    outside: dict[tuple[str, int], float] = {}
    for cell in cells:
        count = len(sampling.latents(*cell))  # allocates, chooses kernels, compiles

        def counted(cell: tuple[str, int] = cell, count: int = count) -> None:
            outside[cell] = sampling.outside(*cell) / count

        peaks[cell] = peak_mib(device, counted)
    for cell in cells * repeats:
        started = finished(device)
        count = len(sampling.latents(*cell))
        best[cell] = min(best[cell], (finished(device) - started) / count)

    def overhead(method: str, batch: int) -> float | None:
        if "dit" not in methods or method == "dit":
            return None
        return (outside[method, batch] - outside["dit", batch]) / best["dit", batch]

    return [
        Row(
            method,
            batch,
            best[method, batch],
            sampling.flop * sampling.steps / best[method, batch] / ceiling,
            overhead(method, batch),
            peaks[method, batch],
        )
        for method, batch in cells
    ]


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| method | batch size | s/image | × one by one | of the ceiling | overhead | peak MiB |",
        "|---|" + "--:|" * 6,
    ]
    slowest = {row.method: row.seconds_per_image for row in rows if row.batch == min(r.batch for r in rows)}
    for row in rows:
        over = "" if row.overhead is None else f"{100 * row.overhead:+.1f} %"
        lines.append(
            f"| {row.method} | {row.batch or 'plain'} | {row.seconds_per_image:.4f} | "
            f"{slowest[row.method] / row.seconds_per_image:.1f} | {100 * row.of_ceiling:.0f} % | {over} | "
            f"{row.peak_mib:.0f} |"
        )
    return "\n".join(lines)


def largest_distance(sampling: Sampling, batches: list[int], methods: list[str]) -> float:
    """The largest relative difference between the images of the smallest and the largest batch size."""
    worst = 0.0
    for method in methods:
        one, other = (sampling.latents(method, batch) for batch in (min(batches), max(batches)))
        worst = max(worst, ((one - other).flatten(1).norm(dim=1) / one.flatten(1).norm(dim=1)).max().item())
    return worst


def profiled(sampling: Sampling, batch: int) -> str:
    """The time of `dmgd` by operator."""
    on_gpu = sampling.prior.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as found:
        sampling.latents("dmgd", batch)
        finished(sampling.prior.device)
    order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    return found.key_averages().table(sort_by=order, row_limit=15, max_name_column_width=48)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=("digits", *SHAPES))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS)
    parser.add_argument(
        "--tf32", action="store_true", help="allow TF32 in fp32 matrix products, as the released code does"
    )
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batches", type=int, nargs="+", help="batch sizes")
    parser.add_argument(
        "--grid", type=int, nargs=2, metavar=("CLASSES", "IPC"), help="images to sample, whatever the batch size"
    )
    parser.add_argument("--methods", nargs="+", default=METHOD_NAMES, choices=METHODS, metavar="METHOD")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, help="a .jsonl file to append the results to")
    arguments = parser.parse_args()
    if arguments.model != "digits" and PLAIN in (arguments.batches or ()):
        parser.error(f"--batches {PLAIN}, the plain loop, is for digits: {arguments.model} has no folder of diffusers")
    torch.backends.cuda.matmul.allow_tf32 = arguments.tf32
    sampling = Sampling(
        arguments.model, arguments.device, arguments.precision, arguments.compile, arguments.steps, arguments.grid
    )
    device, batches = sampling.prior.device, arguments.batches or list(BATCHES[arguments.model])
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    ceiling = matmul_ceiling(device, PRECISIONS[arguments.precision])
    setting = {
        "model": arguments.model, "device": named, "threads": torch.get_num_threads(), "steps": arguments.steps,
        "grid": arguments.grid, "precision": arguments.precision, "tf32": arguments.tf32, "compile": arguments.compile,
        "ceiling_tflops": round(ceiling / 1e12, 3), "suitable_batch": suitable_batch(sampling.prior),
        "versions": {name: version(name) for name in ("dmgd", "torch", "pot")}, "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    print(json.dumps(setting))
    rows = measured(sampling, batches, list(arguments.methods), arguments.repeats, ceiling)
    print(table(rows))
    if arguments.model == "digits":
        print(f"\nlargest relative distance of images: {largest_distance(sampling, batches, arguments.methods):.1e}")
    if arguments.results:
        with arguments.results.open("a") as file:
            for row in rows:
                print(json.dumps({**setting, **asdict(row)}), file=file)
    if arguments.profile:
        print(profiled(sampling, max(batches)))


if __name__ == "__main__":
    main()
