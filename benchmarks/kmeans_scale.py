"""Clustering at ImageNet's size: 1,000 classes × 1,280 latents of 4×32×32 on disk, in a shuffled order.

    python benchmarks/kmeans_scale.py [--classes 1000] [--per-class 1280] [--folder DIR]

Needs 21 GB of disk for the full size. Prints the seconds of clustering and the peak memory of the process, from
opening the parts on. Latents are drawn around a dozen modes per class.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from dmgd.classes.info import ClassInfo
from dmgd.config import StatisticsConfig
from dmgd.display import Display
from dmgd.statistics.cache import INDEX, LatentParts, Latents, PartRecord
from dmgd.statistics.encoding import PART_ITEMS
from dmgd.statistics.fitting import fit_classes

SHAPE, MODES = (4, 32, 32), 12
DIMENSION = math.prod(SHAPE)


def write_parts(folder: Path, classes: int, per_class: int) -> None:
    """Write parts as `encode_source` does, with shuffled classes."""
    draw = np.random.default_rng(0)
    labels = draw.permutation(np.repeat(np.arange(classes), per_class))
    parts = LatentParts(folder)
    base = draw.standard_normal((MODES, DIMENSION), dtype=np.float32)
    for start in range(0, len(labels), PART_ITEMS):
        own = labels[start : start + PART_ITEMS]
        index = np.zeros(len(own), INDEX)
        # A mode of a class is one of a few base vectors, rolled: 12,000 separate vectors would not fit in memory.
        mode = draw.integers(0, MODES, len(own))
        noise = draw.standard_normal((len(own), DIMENSION), dtype=np.float32)
        latents = np.stack([np.roll(base[m], c) for m, c in zip(mode, own, strict=True)]) + noise
        index["label"], index["sample"] = own, np.arange(start, start + len(own))
        index["digest"] = draw.integers(0, 2**63, (len(own), 4))
        last = start + PART_ITEMS >= len(labels)
        parts.append(latents, index, PartRecord(len(own), len(own), [], last, True))


def cluster(folder: Path, classes: int, k: int) -> None:
    """Open, check and cluster the parts; print time and memory."""
    infos = tuple(ClassInfo(f"class {index}") for index in range(classes))
    start = time.perf_counter()
    latents = Latents(LatentParts(folder), [info.identity for info in infos])
    opened = time.perf_counter() - start
    _, quality = fit_classes(latents, infos, StatisticsConfig(k=k), latent_shape=SHAPE, progress=Display())
    seconds = time.perf_counter() - start
    result = {
        "classes": classes,
        "latents": latents.total,
        "open_and_check_seconds": round(opened, 1),
        "total_seconds": round(seconds, 1),
        "cpu_seconds": round(time.process_time(), 1),  # two cores take at least half of this
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 3),
        "mean_w2_ratio": round(float(np.divide(quality["w2"], quality["w2_of_one_point"]).mean()), 4),
    }
    print(json.dumps(result, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--per-class", type=int, default=1280)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="folder for the latents (default: a temporary one)")
    parser.add_argument("--cluster-only", action="store_true", help="the latents exist already")
    options = parser.parse_args()
    if options.cluster_only:
        cluster(options.folder, options.classes, options.k)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        start = time.perf_counter()
        write_parts(Path(folder), options.classes, options.per_class)
        print(f"wrote the latents in {time.perf_counter() - start:.0f} s", file=sys.stderr)
        # In a separate process, or the peak would be that of generating the data.
        again = ["--cluster-only", "--folder", folder, "--classes", str(options.classes), "--k", str(options.k)]
        subprocess.run([sys.executable, __file__, *again], check=True)


if __name__ == "__main__":
    main()
