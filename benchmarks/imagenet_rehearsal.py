"""A rehearsal of ImageNet-1K with two workers: its numbers of classes and images, but small images and a tiny network.

    python benchmarks/imagenet_rehearsal.py --out FOLDER [--images 1281] [--ipc 50] [--workers 2]

Makes 1,000 classes × 1,281 images of 8×8 pixels as WebDataset shards and a random DiT, then runs fit-stats, distill and
export as a user would, and prints for each how long it took, how many images it did a second, and the most memory that
its driver ever had. Last, how many images of 256×256 a second a driver can take in, if workers cost nothing.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from dmgd.classes.imagenet import imagenet_classes

DMGD = str(Path(sys.executable).with_name("dmgd"))
CLASSES = 1000


def make_shards(folder: Path, images: int) -> None:
    """Shard i has image i of every class: a colour of the class, and noise."""
    from webdataset import ShardWriter

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    colours = rng.integers(40, 216, (CLASSES, 1, 1, 3))
    wnids = [info.wnid for info in imagenet_classes()]
    with ShardWriter(f"{folder}/train-%05d.tar", maxcount=CLASSES, verbose=0, mtime=0) as shards:
        for number in range(images):
            pixels = (colours + rng.normal(0, 20, (CLASSES, 8, 8, 3))).clip(0, 255).astype(np.uint8)
            for row, wnid in enumerate(wnids):
                data = io.BytesIO()
                Image.fromarray(pixels[row]).save(data, "PNG", compress_level=1)
                shards.write({"__key__": f"{number:05d}_{row:04d}", "png": data.getvalue(), "cls": wnid})


def make_prior(folder: Path) -> None:
    """A random DiT of ImageNet's classes in pixels."""
    import torch
    from diffusers import DiTTransformer2DModel

    torch.manual_seed(0)
    DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=3, out_channels=3, num_layers=2, sample_size=8,
        patch_size=4, num_embeds_ada_norm=CLASSES,
    ).save_pretrained(folder / "transformer")  # fmt: skip


def measured(name: str, count: int, *arguments: object) -> None:
    """Run a command, and print its time, rate and the peak memory of its own process."""
    command, peak, started = [DMGD, *map(str, arguments)], 0, time.perf_counter()
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
                peak = max(peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")))
            except (OSError, TypeError, ValueError):
                pass  # it has just ended
            time.sleep(0.5)
    seconds = time.perf_counter() - started
    figures = {"seconds": round(seconds), "images_per_second": round(count / seconds), "driver_peak_gb": peak / 1e6}
    print(json.dumps({"stage": name, "exit": process.returncode, **figures}), flush=True)
    if process.returncode:
        sys.exit(process.returncode)


def driver_intake(folder: Path, side: int = 256, batches: int = 12, size: int = 20) -> float:
    """Images a second that the run directory takes in: PNG, checksums and files of pixels that are already there, two
    batches at a time as `distill` writes them."""
    from concurrent.futures import ThreadPoolExecutor

    import torch

    import dmgd
    from dmgd.generation.batches import Batch

    run = dmgd.distill("digits", ipc=1, steps=2, method="dit", out=folder)
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (size, side // 8, side // 8, 3), dtype=np.uint8)
    photos = np.stack(
        [np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC)) for one in smooth]
    )
    photos = (photos + rng.normal(0, 4, photos.shape)).clip(0, 255).astype(np.uint8)
    latents, records = torch.zeros(size, 4, 32, 32), [{"seed": 0, "other_class": None, "ot_cost": None}] * size
    wanted = [Batch(range(1), range(number * size, (number + 1) * size)) for number in range(batches)]
    started = time.perf_counter()
    with ThreadPoolExecutor(2) as writers:
        for future in [writers.submit(run.write_batch, batch, photos, latents, records) for batch in wanted]:
            future.result()
    return batches * size / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1281, help="per class")
    parser.add_argument("--ipc", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    out, ray = arguments.out, ("--ray", "local", "--workers", arguments.workers)
    os.environ |= {"XDG_CACHE_HOME": str(out / "cache"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if not (out / "prior").is_dir():
        make_prior(out / "prior")
    if not (out / "data").is_dir():
        started = time.perf_counter()
        make_shards(out / "data", arguments.images)
        print(f"made {CLASSES * arguments.images:,} images in {time.perf_counter() - started:.0f} s", flush=True)
    common = ("--source", f"wds:{out}/data/train-*.tar", "--prior", out / "prior")
    statistics, run = out / "stats.safetensors", out / f"run-ipc{arguments.ipc}"
    total, made = CLASSES * arguments.images, CLASSES * arguments.ipc
    measured("fit-stats", total, "fit-stats", *common, "--k", arguments.ipc, "--out", statistics, *ray)
    asked = ("--ipc", arguments.ipc, "--steps", 5, "--batch-size", 50, "--stats", statistics)
    measured("distill", made, "distill", *common, *asked, "--out", run, *ray)
    measured("export", made, "export", run, "--format", "webdataset", "--out", out / "webdataset")
    measured("export, Parquet", made, "export", run, "--format", "parquet", "--out", out / "parquet")
    print(json.dumps({"stage": "driver intake, 256×256", "images_per_second": round(driver_intake(out / "intake"), 1)}))


if __name__ == "__main__":
    main()
