"""The speed of `export`, compared with bare writers of the same bytes: `python benchmarks/export_speed.py`.

Makes a run of 10,000 noisy 256×256 images (about 1.2 GB) in a temporary folder, then writes the same image files
with `webdataset.ShardWriter` and with `datasets.Dataset.to_parquet`, each reading them from the run like the export,
and with `dmgd.export`. They alternate; the best of several rounds counts.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from dmgd.classes.info import ClassInfo
from dmgd.exporters.example import Example, Limits
from dmgd.exporters.parquet import row
from dmgd.exporters.webdataset import tar_fields
from dmgd.files import sha256_bytes, write_sealed
from dmgd.generation.batches import Batch
from dmgd.generation.config import DistillConfig
from dmgd.images import encode
from dmgd.runs.columns import metadata
from dmgd.runs.directory import FORMAT, RunDirectory
from dmgd.runs.record import ImageRecord
from dmgd.specs import PriorSpec, SourceSpec
from dmgd.workflows.export import export

CLASSES = 100
SHARD_IMAGES = 2_000


def make_run(path: Path, images: int, size: int = 256) -> RunDirectory:
    """A finished run of images of `size` pixels, a multiple of 32, written directly, as only the export is timed."""
    rng = np.random.default_rng(0)
    ipc = images // CLASSES
    classes = [ClassInfo(f"class {c}", prior_index=c) for c in range(CLASSES)]
    manifest = {
        "specs": {"source": SourceSpec("noise").to_json(), "prior": PriorSpec("none").to_json()},
        "config": DistillConfig(ipc=ipc).to_json(),
        "plan": {},
        "classes": [info.to_json() for info in classes],
        "prior": {"id": "none", "revision": None, "digest": "0" * 64, "numerics": "original"},
        "statistics": {"source": {"name": "noise", "variant": "made"}},
        "device": "cpu",
        "versions": {},
    }
    # 64 different images, each in many files, as encoding is not timed.
    smooth = np.kron(
        rng.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8), np.ones((1, size // 32, size // 32, 1), np.uint8)
    )
    pictures = [image // 2 + rng.integers(0, 40, image.shape, dtype=np.uint8) for image in smooth]
    files = [(encode(pixels), sha256_bytes(pixels.tobytes())) for pixels in pictures]
    with RunDirectory.writer(path, manifest) as run:
        for c in range(CLASSES):
            batch = Batch(range(c, c + 1), range(ipc))
            records = []
            for _, i in batch.indices():
                (data, pixels_sha256), file = files[(c + i) % len(files)], f"images/{c:04d}-class_{c}/{i:05d}.png"
                (path / file).parent.mkdir(parents=True, exist_ok=True)
                (path / file).write_bytes(data)
                records.append(ImageRecord(c, i, i, None, None, file, sha256_bytes(data), pixels_sha256))
            content = {"format": FORMAT, "images": [record.to_json() for record in records], "latents_sha256": "0" * 64}
            write_sealed(path / "batches" / f"{batch.name}.json", content)
        return run.finish()


def examples(run: RunDirectory):
    """The run's images with their metadata, read from its files without checks."""
    classes = run.classes
    for record in run.records():
        fields = metadata(record, classes[record.class_index], record.sha256)
        yield Example(record.class_index, fields, (run.path / record.path).read_bytes())


def bare_webdataset(run: RunDirectory, out: Path) -> None:
    import webdataset as wds

    out.mkdir()
    with wds.ShardWriter(str(out / "train-%05d.tar"), maxcount=SHARD_IMAGES, encoder=False, mtime=0, verbose=0) as tar:
        for example in examples(run):
            tar.write({"__key__": example.key, **tar_fields(example, "png")})


def bare_parquet(run: RunDirectory, out: Path) -> None:
    import datasets

    def rows():
        yield from (row(example, "png") for example in examples(run))

    datasets.disable_progress_bars()
    out.mkdir()
    dataset = datasets.Dataset.from_generator(rows, cache_dir=str(out / "cache"))
    shards = -(-len(dataset) // SHARD_IMAGES)
    for i in range(shards):
        dataset.shard(shards, i, contiguous=True).to_parquet(out / f"train-{i:05d}-of-{shards:05d}.parquet")


def timed(work, *arguments) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=256, help="their side in pixels, a multiple of 32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="working folder; default: the system's temporary folder")
    options = parser.parse_args()
    import datasets  # noqa: F401 — not to be timed with the first writer
    import webdataset  # noqa: F401

    limits = Limits(images=SHARD_IMAGES)
    writers = {
        "webdataset, bare": bare_webdataset,
        "webdataset, dmgd": lambda run, out: export(run, "webdataset", out, limits=limits),
        "parquet, bare": bare_parquet,
        "parquet, dmgd": lambda run, out: export(run, "parquet", out, limits=limits),
    }
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        run = make_run(Path(folder) / "run", options.images, options.size)
        seconds: dict[str, list[float]] = {name: [] for name in writers}
        for number in range(options.rounds):
            for name, write in writers.items():
                out = Path(folder) / f"{name.replace(', ', '-')}-{number}"
                seconds[name].append(timed(write, run, out))
                shutil.rmtree(out)
    best = {name: round(min(times), 2) for name, times in seconds.items()}
    ratios = {kind: round(best[f"{kind}, dmgd"] / best[f"{kind}, bare"], 2) for kind in ("webdataset", "parquet")}
    print(json.dumps({"images": options.images, "seconds": best, "dmgd / bare": ratios}, indent=2))


if __name__ == "__main__":
    main()
