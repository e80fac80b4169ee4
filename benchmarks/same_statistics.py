"""Checks that a dataset gives the same statistics, to the last bit, as parquet, image folder and WebDataset shards.

    python benchmarks/same_statistics.py --data DATA/imagenette-128 --encoder DATA/taesd [--per-class 20]
    python benchmarks/same_statistics.py --data DATA/imagenette-128 --size 32 --per-class 2000

Takes the first images of every class of `--data`, writes them in three layouts, in part reshuffled,
and compares the statistics files. Without `--encoder` the latents are the pixels, which is fast enough for all images.
The prior is the stand-in of fit_stats_speed.py.
"""

import argparse
import json
import random
import tempfile
from collections import Counter
from pathlib import Path

from fit_stats_speed import stand_in

from dmgd.config import StatisticsConfig
from dmgd.display import Display
from dmgd.files import sha256_file
from dmgd.priors.load import load_prior, with_encoder
from dmgd.sources.open import open_source
from dmgd.workflows.fit_stats import fit_statistics

Pictures = list[tuple[str, bytes]]


def first_of_each(name: str, data: str, per_class: int) -> Pictures:
    """(WordNet id, file) of the first images of every class, shuffled with a fixed seed."""
    source, seen, found = open_source(name, data=data), Counter[int](), []
    for item in source.images("train"):
        if seen[item.label] < per_class:
            seen[item.label] += 1
            content = item.image if isinstance(item.image, bytes) else Path(str(item.image)).read_bytes()
            found.append((str(source.classes[item.label].wnid), content))
    return random.Random(0).sample(found, len(found))


def write_folder(root: Path, pictures: Pictures) -> None:
    for number, (label, content) in enumerate(pictures):
        (root / label).mkdir(parents=True, exist_ok=True)
        (root / label / f"{number:06d}.jpg").write_bytes(content)


def write_parquet(root: Path, pictures: Pictures) -> None:
    from datasets import ClassLabel, Dataset, Features, Image

    names = sorted({label for label, _ in pictures})
    rows = {
        "image": [{"bytes": content, "path": None} for _, content in pictures],
        "label": [names.index(label) for label, _ in pictures],
    }
    root.mkdir()
    features = Features({"image": Image(), "label": ClassLabel(names=names)})
    Dataset.from_dict(rows, features=features).to_parquet(root / "train-00000-of-00001.parquet")


def write_shards(root: Path, pictures: Pictures) -> None:
    import webdataset

    root.mkdir()
    with webdataset.ShardWriter(str(root / "train-%03d.tar"), maxcount=100, verbose=0) as writer:
        for number, (label, content) in enumerate(pictures):
            writer.write({"__key__": f"{number:06d}", "jpg": content, "cls": label})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="imagenette")
    parser.add_argument("--data", required=True)
    parser.add_argument("--encoder", help="an AutoencoderTiny's folder")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--per-class", type=int, default=20)
    options = parser.parse_args()

    pictures = first_of_each(options.source, options.data, options.per_class)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if options.encoder:
            prior = load_prior(str(stand_in(root / "prior", options.size // 8)), vae=options.encoder)
            prior = with_encoder(prior, options.encoder)
        else:
            prior = load_prior(str(stand_in(root / "prior", options.size, channels=3)))
        write_parquet(root / "parquet", pictures)
        write_folder(root / "folder", pictures)
        write_shards(root / "shards", pictures)
        write_shards(root / "shards-shuffled", pictures[::-1])
        digests = {}
        for layout in ("parquet", "folder", "shards", "shards-shuffled"):
            source = open_source(options.source, data=str(root / layout))
            config = StatisticsConfig()
            statistics = fit_statistics(source, prior, config, cache=False, progress=Display())
            statistics.save(root / "stats.safetensors")
            digests[layout] = sha256_file(root / "stats.safetensors")
    equal = len(set(digests.values())) == 1
    print(json.dumps({"images": len(pictures), "equal": equal, "sha256": digests}, indent=2))


if __name__ == "__main__":
    main()
