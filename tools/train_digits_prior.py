"""Trains the prior that ships inside the package (`dmgd/priors/digits/`), sixteen minutes on two cores.

    python tools/train_digits_prior.py --out dmgd/priors/digits

A class-conditional pixel-space DiT on the train part of scikit-learn's handwritten digits; the test part is
never seen. The result is an ordinary diffusers `DiTTransformer2DModel` folder with stock diffusers numerics.
All blocks share one timestep and label embedder, as in the original DiT, so that the conditioning vector can be
computed once a step; the file holds the copies that diffusers expects.
"""

import argparse
import copy
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, DiTTransformer2DModel
from safetensors.torch import save_file

from dmgd.sources.digits import digits_source
from dmgd.sources.image import to_square

STEPS, BATCH, LEARNING_RATE, WARMUP, EMA, SEED = 4000, 256, 1e-3, 200, 0.999, 0


def tied_dit() -> DiTTransformer2DModel:
    """A DiT of 6 blocks of width 128 over 2x2 patches whose blocks share one embedder; 1.8 M parameters."""
    model = DiTTransformer2DModel(
        num_attention_heads=4, attention_head_dim=32, in_channels=1, out_channels=1, num_layers=6,
        sample_size=8, patch_size=2, num_embeds_ada_norm=10,
    )  # fmt: skip
    shared = model.transformer_blocks[0].norm1.emb
    for block in model.transformer_blocks:
        block.norm1.emb = shared
        torch.nn.init.zeros_(block.norm1.linear.weight)  # adaLN-zero, as in the original DiT
        torch.nn.init.zeros_(block.norm1.linear.bias)
    torch.nn.init.normal_(shared.class_embedder.embedding_table.weight, std=0.02)
    for head in (model.proj_out_1, model.proj_out_2):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    return model


def learning_rate(step: int) -> float:
    """Factor of the peak rate: linear warm-up, then half a cosine to zero."""
    return min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / STEPS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out

    torch.manual_seed(SEED)
    samples = list(digits_source().samples("train"))
    pixels = torch.stack([to_square(image, size=8, channels=1) for image, _ in samples])
    images = pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)
    labels = torch.tensor([label for _, label in samples])

    model, noising = tied_dit().train(), DDPMScheduler()  # linear betas 1e-4 ... 0.02
    average = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate)
    recent = 0.0
    for step in range(STEPS):
        pick = torch.randint(len(images), (BATCH,))
        x0, noise, t = images[pick], torch.randn(BATCH, 1, 8, 8), torch.randint(1000, (BATCH,))
        predicted = model(noising.add_noise(x0, noise, t), timestep=t, class_labels=labels[pick]).sample
        loss = F.mse_loss(predicted, noise)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        decay = min(EMA, (step + 1) / (step + 10))
        with torch.no_grad():
            for kept, new in zip(average.parameters(), model.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
        recent += loss.item()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}/{STEPS}  loss {recent / 100:.4f}", flush=True)
            recent = 0.0

    out.mkdir(parents=True, exist_ok=True)
    average.save_config(out)
    weights = {name: tensor.detach().half().clone() for name, tensor in average.state_dict().items()}
    save_file(weights, out / "diffusion_pytorch_model.safetensors")


if __name__ == "__main__":
    main()
