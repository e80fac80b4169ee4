"""Makers of careless and hostile sources: shards and Parquet files of exactly the given content."""

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from source_stand_ins import pictures

FOUND = pictures(["0", "1"], 4)
JPEG = FOUND[0].jpeg
SAMPLES = [(f"{i:04d}", {"jpg": picture.jpeg, "cls": picture.label.encode()}) for i, picture in enumerate(FOUND)]
WHOLE = {"bytes": JPEG, "path": None}


def names_of(source, split="train") -> set[str]:
    return {one.name for one in source.images(split)}


def write_shard(path: Path, samples: list[tuple[str, dict[str, bytes]]], mode="w") -> Path:
    with tarfile.open(path, mode, format=tarfile.USTAR_FORMAT) as tar:
        for key, fields in samples:
            for suffix, data in fields.items():
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def parquet_of(root: Path, images: list, labels: list, names=("0", "1")) -> Path:
    """Rows as they are, with features that datasets believes."""
    from datasets import ClassLabel, Features
    from datasets import Image as ImageFeature

    features = Features({"image": ImageFeature(), "label": ClassLabel(names=list(names))})
    table = pa.table({"image": images, "label": labels}, schema=features.arrow_schema)
    root.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, root / "train.parquet")
    return root
