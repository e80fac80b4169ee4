"""Trains a class-conditional DiT: the embedded prior, and those of the benchmarks.

    python benchmarks/train_prior.py digits --out dmgd/priors/digits                    # 16 minutes on two cores
    python benchmarks/train_prior.py imagenette-16 --data FOLDER --out DIR              # 17 minutes on two cores
    python benchmarks/train_prior.py imagenette-latents --data FOLDER --vae FOLDER --out DIR --minutes 120 --threads 1

Only the training split is used. The last trains on the latents of an autoencoder at 128 pixels and may run for hours in
the background: if interrupted, it continues from `checkpoint.pt` in --out. The result is a standard diffusers
`DiTTransformer2DModel` folder with diffusers' numerics. All blocks share one timestep and label embedder, as in the
original DiT, so that the conditioning vector can be computed once per step; the file has the copies that diffusers
expects.
"""

import argparse
import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDPMScheduler, DiTTransformer2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from dmgd.files import write_json, written_whole
from dmgd.images import to_square
from dmgd.priors.codec import AutoencoderCodec
from dmgd.sources.open import open_source
from dmgd.sources.source import Source

CHECKPOINT_SECONDS = 180


@dataclass(frozen=True)
class Recipe:
    """The shape of a DiT and how it is trained. `ema` is the decay of the averaged weights, which are saved;
    `guidance_scale` becomes the prior's default. `snr_cap` bounds the weight of a noise level in the loss of x̂0 (Hang
    et al. 2023, "Min-SNR"; None: the plain loss of ε), so that a short training learns shapes before texture."""

    depth: int
    heads: int
    head_width: int
    steps: int
    batch: int
    patch: int = 2
    learning_rate: float = 1e-3
    warmup: int = 200
    ema: float = 0.999
    flip: bool = False
    bf16: bool = False
    snr_cap: float | None = None
    guidance_scale: float = 1.5
    seed: int = 0


RECIPES = {
    "digits": Recipe(depth=6, heads=4, head_width=32, steps=4000, batch=256),
    "imagenette-16": Recipe(depth=6, heads=3, head_width=48, steps=2200, batch=128, ema=0.995, flip=True, bf16=True),
    "imagenette-latents": Recipe(
        depth=6, heads=4, head_width=64, steps=100_000, batch=64, learning_rate=6e-4, snr_cap=5.0
    ),
}


def tied_dit(recipe: Recipe, channels: int, size: int, num_classes: int) -> DiTTransformer2DModel:
    """A DiT whose blocks share one embedder, initialised as the original."""
    model = DiTTransformer2DModel(
        num_attention_heads=recipe.heads, attention_head_dim=recipe.head_width, in_channels=channels,
        out_channels=channels, num_layers=recipe.depth, sample_size=size, patch_size=recipe.patch,
        num_embeds_ada_norm=num_classes,
    )  # fmt: skip
    shared = model.transformer_blocks[0].norm1.emb
    for block in model.transformer_blocks:
        block.norm1.emb = shared
        torch.nn.init.zeros_(block.norm1.linear.weight)  # adaLN-zero
        torch.nn.init.zeros_(block.norm1.linear.bias)
    torch.nn.init.normal_(shared.class_embedder.embedding_table.weight, std=0.02)
    for head in (model.proj_out_1, model.proj_out_2):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    return model


def train(
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    *,
    mirrored: Tensor | None = None,
    max_minutes: float = math.inf,
    checkpoint: Path | None = None,
) -> DiTTransformer2DModel:
    """The averaged network after training on `images` (n, c, h, w) in [−1, 1] (or latents) with `labels` (n,).

    `mirrored` (n, c, h, w) are the latents of the mirror images, which are not mirrored latents. Training ends after
    `max_minutes` at the latest; the learning rate decays with steps or time, whichever is further. With `checkpoint`, a
    file that is written every few minutes, an interrupted training is continued.
    """
    torch.manual_seed(recipe.seed)
    device = images.device
    model = tied_dit(recipe, images.shape[1], images.shape[-1], int(labels.max()) + 1).to(device).train()
    noising = DDPMScheduler()  # linear betas 1e-4 ... 0.02
    average = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.01, betas=(0.9, 0.99))
    first, before = 0, 0.0
    if checkpoint and checkpoint.is_file():
        kept = torch.load(checkpoint, weights_only=True, map_location=device)
        for part, name in ((model, "model"), (average, "average"), (optimizer, "optimizer")):
            part.load_state_dict(kept[name])
        torch.set_rng_state(kept["generator"].cpu())
        first, before = kept["step"], kept["seconds"]
        print(f"continuing after step {first} and {before:.0f} s", flush=True)
    started = saved = time.perf_counter()

    def spent() -> float:
        """Seconds of training, including earlier processes."""
        return before + time.perf_counter() - started

    def done(step: int) -> float:
        """The completed fraction of the training, by steps or time."""
        return min(1.0, max(step / recipe.steps, spent() / 60 / max_minutes))

    # The weight of the loss of ε at every timestep: min(SNR, cap) / SNR.
    snr = noising.alphas_cumprod / (1 - noising.alphas_cumprod)
    weight = torch.ones(1000) if recipe.snr_cap is None else snr.clamp_max(recipe.snr_cap) / snr
    weight = weight.to(device)
    # On CPUs the flash kernel's backward pass in bf16 takes longer than all matrix products together.
    attention = [SDPBackend.MATH]
    if not (recipe.bf16 and device.type == "cpu"):
        attention += [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
    recent = torch.zeros((), device=device)
    for step in range(first, recipe.steps):
        if done(step) == 1:
            print(f"time is up after {step} of {recipe.steps} steps", flush=True)
            break
        rate = min(1.0, (step + 1) / recipe.warmup) * 0.5 * (1 + math.cos(math.pi * done(step)))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate
        pick = torch.randint(len(images), (recipe.batch,))
        x0, noise = images[pick], torch.randn(recipe.batch, *images.shape[1:]).to(device)
        t = torch.randint(1000, (recipe.batch,)).to(device)
        if recipe.flip:
            turned = x0.flip(3) if mirrored is None else mirrored[pick]
            x0 = torch.where((torch.rand(recipe.batch) < 0.5)[:, None, None, None].to(device), turned, x0)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16), sdpa_kernel(attention):
            predicted = model(noising.add_noise(x0, noise, t), timestep=t, class_labels=labels[pick]).sample
            loss = ((predicted.float() - noise).square().mean((1, 2, 3)) * weight[t]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay = min(recipe.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        recent += loss.detach()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}/{recipe.steps}  loss {recent.item() / 100:.4f}  {spent():.0f} s", flush=True)
            recent.zero_()
        if checkpoint and time.perf_counter() - saved > CHECKPOINT_SECONDS:
            saved = time.perf_counter()
            states = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
            progress = {"step": step + 1, "seconds": spent(), "generator": torch.get_rng_state()}
            with written_whole(checkpoint) as temporary:
                torch.save(states | progress, temporary)
    return average


def pixels_of(source: Source, size: int, channels: int) -> tuple[Tensor, Tensor]:
    """The training images of a source, (n, c, size, size) in [−1, 1], and their labels (n,)."""
    pixels, labels = [], []
    for image, label in source.decoded("train"):
        pixels.append(to_square(image, size=size, channels=channels))
        labels.append(label)
    return torch.stack(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1), torch.tensor(labels)


def save_prior(
    model: DiTTransformer2DModel,
    out: Path,
    name: str,
    classes: Sequence[str],
    guidance_scale: float,
    vae: Path | None = None,
) -> None:
    """Write the network as a diffusers folder, in half precision, with dmgd's description. `vae` is the folder of the
    autoencoder of its latents."""
    out.mkdir(parents=True, exist_ok=True)
    model.save_config(out)
    weights = {name: tensor.detach().half().cpu().clone() for name, tensor in model.state_dict().items()}
    save_file(weights, out / "diffusion_pytorch_model.safetensors")
    described = {"id": name, "numerics": "diffusers", "guidance_scale": guidance_scale, "classes": list(classes)}
    write_json(out / "dmgd.json", described | ({"vae": str(vae.resolve())} if vae else {}))


def latents_of(source: Source, vae: Path, kept: Path) -> tuple[Tensor, Tensor]:
    """The latents (n, c, h, w) of a source's training images at 128 pixels and their labels (n,), in the source's
    order; cached in a file."""
    if not kept.is_file():
        codec = AutoencoderCodec(vae, "cpu")
        pixels, labels = pixels_of(source, 128, 3)
        images = pixels.add(1).mul(127.5).round().byte().permute(0, 2, 3, 1)
        latents = torch.cat([codec.encode(part) for part in images.split(64)])
        with written_whole(kept) as temporary:
            save_file({"train.latents": latents.contiguous(), "train.labels": labels}, temporary)
    read = load_file(kept)
    return read["train.latents"].float(), read["train.labels"].long()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--data", help="folder of imagenette")
    parser.add_argument("--vae", type=Path, help="folder of an autoencoder, for imagenette-latents")
    parser.add_argument("--minutes", type=float, default=math.inf, help="maximum training time")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    recipe = RECIPES[arguments.recipe]
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.recipe == "imagenette-latents":
        source = open_source("imagenette", data=arguments.data)
        images, labels = latents_of(source, arguments.vae, arguments.out / "latents.safetensors")
        print(f"{len(images)} latents of {tuple(images.shape[1:])}, standard deviation {images.std():.3f}", flush=True)
    elif arguments.recipe == "digits":
        source = open_source("digits")
        images, labels = pixels_of(source, 8, 1)
    else:
        source = open_source("imagenette", data=arguments.data)
        images, labels = pixels_of(source, 16, 3)
    model = train(
        images,
        labels,
        recipe,
        max_minutes=arguments.minutes,
        checkpoint=arguments.out / "checkpoint.pt",
    )
    names = [info.name for info in source.classes]
    save_prior(model, arguments.out, arguments.recipe, names, recipe.guidance_scale, vae=arguments.vae)


if __name__ == "__main__":
    main()
