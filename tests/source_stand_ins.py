"""Small local data for the tests of sources: ten classes of small images in every layout, and a prior."""

import io
import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dmgd.classes.imagenet import imagenet_subset

PER_CLASS = 14  # 140 images: more than one chunk, so that worker processes are used
WNIDS = [str(info.wnid) for info in imagenet_subset("imagenette")]


@dataclass(frozen=True)
class Picture:
    label: str
    name: str
    jpeg: bytes


def pictures(labels=WNIDS, per_class=PER_CLASS, seed=0) -> list[Picture]:
    """Small JPEG files, bright or dark by class."""
    draw = np.random.default_rng(seed)
    found = []
    for row, label in enumerate(labels):
        for number in range(per_class):
            pixels = draw.normal(25 * (row % 10), 20, (20 + number, 24, 3)).clip(0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
            found.append(Picture(label, f"{label}_{number}", buffer.getvalue()))
    return found


def as_folder(root: Path, found: list[Picture]) -> Path:
    for picture in found:
        (root / picture.label).mkdir(parents=True, exist_ok=True)
        (root / picture.label / f"{picture.name}.JPEG").write_bytes(picture.jpeg)
    return root


def as_parquet(root: Path, found: list[Picture], split="train") -> Path:
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    names = sorted({picture.label for picture in found}, reverse=True)  # an order of its own
    rows = {
        "image": [{"bytes": picture.jpeg, "path": None} for picture in found],
        "label": [names.index(picture.label) for picture in found],
    }
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=names)})
    root.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(rows, features=features).to_parquet(root / f"{split}-00000-of-00001.parquet")
    return root


def as_shards(root: Path, found: list[Picture], prefix="train") -> Path:
    import webdataset

    root.mkdir(parents=True, exist_ok=True)
    with webdataset.ShardWriter(str(root / f"{prefix}-%03d.tar"), maxcount=60, verbose=0) as writer:
        for number, picture in enumerate(found):
            about = json.dumps({"wnid": picture.label}).encode()
            writer.write({"__key__": f"{number:06d}", "jpg": picture.jpeg, "cls": b"0", "json": about})
    return root


def shuffled(found: list[Picture]) -> list[Picture]:
    return random.Random(1).sample(found, len(found))


def small_prior(folder: Path) -> Path:
    """A DiT of ImageNet's 1,000 classes over 4 × 8 × 8 latents with its autoencoder, for images of 16 pixels."""
    from diffusers import AutoencoderKL, DiTTransformer2DModel

    torch.manual_seed(0)
    DiTTransformer2DModel(
        num_attention_heads=1, attention_head_dim=16, in_channels=4, out_channels=8, num_layers=1,
        sample_size=8, patch_size=2, num_embeds_ada_norm=1000,
    ).save_pretrained(folder / "transformer")  # fmt: skip
    AutoencoderKL(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, layers_per_block=1,
    ).save_pretrained(folder / "vae")  # fmt: skip
    return folder


def small_encoder(folder: Path, latent_channels=4) -> Path:
    """An AutoencoderTiny that halves the image size once, where TAESD does so three times."""
    from diffusers import AutoencoderTiny

    torch.manual_seed(1)
    AutoencoderTiny(
        encoder_block_out_channels=(16, 16), decoder_block_out_channels=(16, 16), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1), latent_channels=latent_channels,
    ).save_pretrained(folder)  # fmt: skip
    return folder
