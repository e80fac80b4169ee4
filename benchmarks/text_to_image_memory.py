"""Peak memory of distilling with Stable Diffusion 1.5 at 512 pixels, with random weights of the real sizes.

    python benchmarks/text_to_image_memory.py --out FOLDER [--device cuda] [--batch-size 4]

On a CPU it is the resident memory of the process, libraries included; on a GPU what torch has allocated there. The
weights are random: what is measured does not depend on them. They stay in --out (2.2 GB) and are used again.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import dmgd
from dmgd.priors.load import load_prior


def make_pipeline(folder: Path) -> None:
    import diffusers
    import transformers
    from diffusers.pipelines.stable_diffusion import StableDiffusionPipeline

    torch.set_default_dtype(torch.bfloat16)
    unet = diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    widths = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512}
    vae = diffusers.AutoencoderKL(**blocks, **widths)
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
    # A tokenizer of single letters: how long a prompt is does not matter, it is padded to 77 tokens.
    words = ["<|startoftext|>", "<|endoftext|>", *(f"{letter}{end}" for letter in map(chr, range(33, 127))
                                                  for end in ("", "</w>"))]  # fmt: skip
    tokenizer = transformers.CLIPTokenizer(vocab={word: row for row, word in enumerate(words)}, merges=[])
    tokenizer.model_max_length = 77
    text = transformers.CLIPTextConfig(**sizes, eos_token_id=1, bos_token_id=0, pad_token_id=1)
    StableDiffusionPipeline(
        vae=vae, unet=unet, text_encoder=transformers.CLIPTextModel(text), tokenizer=tokenizer,
        scheduler=diffusers.DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    torch.set_default_dtype(torch.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--make", action="store_true", help="only make the weights, which itself needs memory")
    arguments = parser.parse_args()
    folder, photos = arguments.out / "sd15", arguments.out / "photos"
    if not folder.is_dir():
        make_pipeline(folder)
    if arguments.make:
        return
    rng = np.random.default_rng(0)
    for name in ("church", "tench"):
        (photos / name).mkdir(parents=True, exist_ok=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (512, 512, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(photos / name / f"{number}.png")
    started = time.perf_counter()
    prior = load_prior(folder, precision="bf16", device=arguments.device)
    run = dmgd.distill(
        f"folder:{photos}", prior, ipc=1, steps=2, batch_size=arguments.batch_size,
        out=arguments.out / f"run-{time.time():.0f}", progress=True,
    )  # fmt: skip
    on_gpu = prior.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({
        "prior": repr(prior), "batch_size": run.config.batch_size, "peak_gb": round(peak / 1e9, 2),
        "seconds": round(time.perf_counter() - started, 1), "torch": torch.__version__,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
