"""The speed of `fit-stats` on a real dataset, compared with the bare encoder in the same process at the same batch
size.

    python benchmarks/fit_stats_speed.py --data DATA/imagenette-128 --encoder DATA/taesd [--source imagenette]

The prior is a stand-in with random weights, of the right shape for images of 128 pixels in Stable Diffusion's latent
space: statistics do not use its network. The bare encoder is timed before and after the run on decoded images in
memory, because the load of the machine varies; the ratio is to the mean of the two.
"""

import argparse
import itertools
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from dmgd.config import StatisticsConfig
from dmgd.display import Display
from dmgd.images import to_square
from dmgd.priors.load import load_prior, with_encoder
from dmgd.priors.prior import Prior
from dmgd.sources.open import open_source
from dmgd.sources.source import Source
from dmgd.statistics.encoding_work import encode_batch
from dmgd.workflows.fit_stats import fit_statistics


def stand_in(folder: Path, sample_size: int, channels: int = 4) -> Path:
    """A tiny diffusers DiT of ImageNet's 1,000 classes with random weights, for latents or (3 channels) pixels."""
    from diffusers import DiTTransformer2DModel

    torch.manual_seed(0)
    DiTTransformer2DModel(
        num_attention_heads=1, attention_head_dim=16, in_channels=channels, out_channels=channels, num_layers=1,
        sample_size=sample_size, patch_size=2, num_embeds_ada_norm=1000,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def bare_rate(source: Source, prior: Prior, batches: int) -> float:
    """Images per second of the encoder alone, on images in memory."""
    samples = itertools.islice(source.decoded("train"), encode_batch(prior.image_size))
    images = torch.stack([to_square(image, prior.image_size, 3) for image, _ in samples])
    prior.encode(images)
    start = time.perf_counter()
    for _ in range(batches):
        prior.encode(images)
    return batches * len(images) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="imagenette")
    parser.add_argument("--data", required=True)
    parser.add_argument("--encoder", required=True, help="an AutoencoderTiny's folder")
    parser.add_argument("--size", type=int, default=128, help="image size in pixels")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--bare-batches", type=int, default=6)
    parser.add_argument("--out", type=Path, help="path for the statistics")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        prior = load_prior(str(stand_in(Path(folder), options.size // 8)), vae=options.encoder)
    prior = with_encoder(replace(prior), options.encoder)
    source = open_source(options.source, data=options.data)
    before = bare_rate(source, prior, options.bare_batches)

    encoding = _Stopwatch()
    config = StatisticsConfig()
    statistics = fit_statistics(source, prior, config, cache=False, workers=options.workers, progress=encoding)
    if options.out:
        statistics.save(options.out)

    after = bare_rate(source, prior, options.bare_batches)
    images = int(statistics.count.sum())
    rate, bare = images / encoding.seconds["encode"], (before + after) / 2
    print(
        json.dumps(
            {
                "images": images,
                "classes": len(statistics.classes),
                "encode_seconds": round(encoding.seconds["encode"], 1),
                "k_means_seconds": round(encoding.seconds["k-means"], 1),
                "images_per_second": round(rate, 2),
                "bare_images_per_second": [round(before, 2), round(after, 2)],
                "ratio": round(rate / bare, 3),
                "cores": torch.get_num_threads(),
                "batch": encode_batch(options.size),
                "fingerprint": statistics.header["source"]["fingerprint"],
            },
            indent=2,
        )
    )


class _Stopwatch(Display):
    """The usual display, which also records the duration of every task."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = {}

    def task(self, name, total, unit):  # type: ignore[no-untyped-def]
        from contextlib import contextmanager

        inner = super().task(name, total, unit)

        @contextmanager
        def timed():  # type: ignore[no-untyped-def]
            start = time.perf_counter()
            with inner as running:
                yield running
            self.seconds[name] = time.perf_counter() - start

        return timed()


if __name__ == "__main__":
    main()
