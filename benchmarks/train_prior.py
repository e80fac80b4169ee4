"""Trains a class-conditional DiT: the prior inside the package, and those of the benchmarks.

    python benchmarks/train_prior.py digits --out dmgd/priors/digits                    # 16 minutes on two cores
    python benchmarks/train_prior.py imagenette-16 --data FOLDER --out DIR              # 17 minutes on two cores

Only the train part is seen. The result is an ordinary diffusers `DiTTransformer2DModel` folder with stock diffusers
numerics. All blocks share one timestep and label embedder, as in the original DiT, so that the conditioning vector can
be computed once a step; the file holds the copies that diffusers expects.
"""

import argparse
import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, DiTTransformer2DModel
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from dmgd.files import write_json
from dmgd.images import to_square
from dmgd.sources.open import open_source
from dmgd.sources.source import Source


@dataclass(frozen=True)
class Recipe:
    """The shape of a DiT and how it is trained. `ema` is the decay of the averaged weights, which are kept;
    `guidance_scale` becomes the prior's own."""

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
    guidance_scale: float = 1.5
    seed: int = 0


RECIPES = {
    "digits": Recipe(depth=6, heads=4, head_width=32, steps=4000, batch=256),
    "imagenette-16": Recipe(depth=6, heads=3, head_width=48, steps=2200, batch=128, ema=0.995, flip=True, bf16=True),
}


def tied_dit(recipe: Recipe, channels: int, size: int, num_classes: int) -> DiTTransformer2DModel:
    """A DiT whose blocks share one embedder, with the initial weights of the original."""
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
    images: Tensor, labels: Tensor, recipe: Recipe, *, mirrored: Tensor | None = None, max_minutes: float = math.inf
) -> DiTTransformer2DModel:
    """The averaged network after training on `images` (n, c, h, w) in [−1, 1] (or latents) with `labels` (n,).

    `mirrored` (n, c, h, w) are the latents of the mirror images: turning a latent round is not the same. Training ends
    after `max_minutes` if its steps are not done by then; the learning rate falls with whichever goes on faster.
    """
    torch.manual_seed(recipe.seed)
    device, started = images.device, time.perf_counter()
    model = tied_dit(recipe, *images.shape[1:3], int(labels.max()) + 1).to(device).train()
    noising = DDPMScheduler()  # linear betas 1e-4 ... 0.02
    average = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.01, betas=(0.9, 0.99))

    def done(step: int) -> float:
        """The share of the training that lies behind, in steps or in time."""
        return min(1.0, max(step / recipe.steps, (time.perf_counter() - started) / 60 / max_minutes))

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / recipe.warmup) * 0.5 * (1 + math.cos(math.pi * done(step)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    # On CPUs the flash kernel's backward pass in bf16 takes longer than all matrix products together.
    attention = [SDPBackend.MATH]
    if not (recipe.bf16 and device.type == "cpu"):
        attention += [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
    recent = torch.zeros((), device=device)
    for step in range(recipe.steps):
        if done(step) == 1:
            print(f"time is up after {step} of {recipe.steps} steps", flush=True)
            break
        pick = torch.randint(len(images), (recipe.batch,))
        x0, noise = images[pick], torch.randn(recipe.batch, *images.shape[1:]).to(device)
        t = torch.randint(1000, (recipe.batch,)).to(device)
        if recipe.flip:
            turned = x0.flip(3) if mirrored is None else mirrored[pick]
            x0 = torch.where((torch.rand(recipe.batch) < 0.5)[:, None, None, None].to(device), turned, x0)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16), sdpa_kernel(attention):
            predicted = model(noising.add_noise(x0, noise, t), timestep=t, class_labels=labels[pick]).sample
            loss = F.mse_loss(predicted.float(), noise)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        decay = min(recipe.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        recent += loss.detach()
        if (step + 1) % 100 == 0:
            spent = time.perf_counter() - started
            print(f"step {step + 1}/{recipe.steps}  loss {recent.item() / 100:.4f}  {spent:.0f} s", flush=True)
            recent.zero_()
    return average


def pixels_of(source: Source, size: int, channels: int) -> tuple[Tensor, Tensor]:
    """The training images of a source, (n, c, size, size) in [−1, 1], and their labels (n,)."""
    pixels, labels = [], []
    for image, label in source.samples("train"):
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
    """Write the network as a diffusers folder, in half precision, with the description that dmgd reads. `vae` is the
    folder of the autoencoder that its latents are of."""
    out.mkdir(parents=True, exist_ok=True)
    model.save_config(out)
    weights = {name: tensor.detach().half().cpu().clone() for name, tensor in model.state_dict().items()}
    save_file(weights, out / "diffusion_pytorch_model.safetensors")
    described = {"id": name, "numerics": "diffusers", "guidance_scale": guidance_scale, "classes": list(classes)}
    write_json(out / "dmgd.json", described | ({"vae": str(vae.resolve())} if vae else {}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--data", help="folder of imagenette")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    recipe = RECIPES[arguments.recipe]
    if arguments.recipe == "digits":
        source, size, channels = open_source("digits"), 8, 1
    else:
        source, size, channels = open_source("imagenette", data=arguments.data), 16, 3
    images, labels = pixels_of(source, size, channels)
    model = train(images, labels, recipe)
    names = [info.name for info in source.classes]
    save_prior(model, arguments.out, arguments.recipe, names, recipe.guidance_scale)


if __name__ == "__main__":
    main()
