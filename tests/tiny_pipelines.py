"""Tiny random text-to-image pipelines in folders that look like the published repositories of their families.

The networks are random, but react to a prompt: what carries it is scaled up. Nothing is downloaded.
"""

import contextlib
import json
import string
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors.torch import save_file

LATENT_SIDE = 8
TEXT_WIDTH = 8  # of every text encoder; SD3's T5 is as wide as both CLIPs together

# Scheduler configurations -----------------------------------------------------------------------------------------

_STABLE_DIFFUSION = {
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000,
    "clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None,
}  # fmt: skip
_DPM_SOLVER = {
    "_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver++", "beta_schedule": "linear",
    "beta_start": 0.0001, "beta_end": 0.02, "dynamic_thresholding_ratio": 0.995, "euler_at_final": False,
    "lambda_min_clipped": float("-inf"), "lower_order_final": True, "num_train_timesteps": 1000,
    "prediction_type": "epsilon", "sample_max_value": 1.0, "solver_order": 2, "solver_type": "midpoint",
    "steps_offset": 0, "thresholding": False, "timestep_spacing": "linspace", "trained_betas": None,
    "use_karras_sigmas": False, "use_lu_lambdas": False, "variance_type": None,
}  # fmt: skip
SCHEDULERS: dict[str, dict[str, Any]] = {
    "sd15": {**_STABLE_DIFFUSION, "_class_name": "PNDMScheduler"},
    "sd21": {**_STABLE_DIFFUSION, "_class_name": "DDIMScheduler", "prediction_type": "v_prediction"},
    "sdxl": {**_STABLE_DIFFUSION, "_class_name": "EulerDiscreteScheduler", "interpolation_type": "linear",
             "prediction_type": "epsilon", "sample_max_value": 1.0, "timestep_spacing": "leading",
             "use_karras_sigmas": False},
    "pixart-alpha": _DPM_SOLVER,
    "pixart-sigma": _DPM_SOLVER,
    "sd3": {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0},
    "sana": {**_DPM_SOLVER, "final_sigmas_type": "zero", "flow_shift": 3.0, "prediction_type": "flow_prediction",
             "rescale_betas_zero_snr": False, "use_beta_sigmas": False, "use_exponential_sigmas": False,
             "use_flow_sigmas": True},
}  # fmt: skip
FAMILIES = tuple(SCHEDULERS)

# By how much is scaled up what carries the prompt; sharper attention differs from place to place, which normalization
# does not take away again.
CARRIERS = {
    "attn2.to_q": 30, "attn2.to_v": 5, "attn2.to_out": 5,
    "add_q_proj": 2, "add_k_proj": 10, "add_v_proj": 5, "text_embedder": 3, "context_embedder": 3,  # SD3's
}  # fmt: skip


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' bars and warnings, and as it was afterwards: what a test makes must not hide what the
    program itself leaves to be seen."""
    libraries = (diffusers.utils.logging, transformers.logging)
    levels = [library.get_verbosity() for library in libraries]
    bars = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # np.array(tensor) in diffusers' schedulers
            yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.set_verbosity(level)
        for library in bars:
            library.enable_progress_bar()


# Building ---------------------------------------------------------------------------------------------------------


@quiet()
def make_pipeline(family: str, folder: Path, **changes: Mapping[str, Any]) -> Path:
    """The folder of a tiny pipeline of `family`, the same bytes each time. Images have 16 × 16 pixels (Sana: 32 × 32),
    latents 8 × 8. `changes` are settings by part: `scheduler`, `network`, `vae`, and `index` (model_index.json)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = _BUILDERS[family](changes.get("network", {}), changes.get("vae", {}))
    for network in (part for part in pipe.components.values() if isinstance(part, torch.nn.Module)):
        _listen_to_the_prompt(network.eval())
    pipe.save_pretrained(folder)
    scheduler = {**SCHEDULERS[family], **changes.get("scheduler", {})}
    _write(folder / "scheduler" / "scheduler_config.json", scheduler)
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", scheduler["_class_name"]]
    index.pop("requires_safety_checker", None)  # as in repositories older than it
    _write(folder / "model_index.json", {**index, **changes.get("index", {})})
    return folder


def _write(file: Path, settings: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(settings, indent=2) + "\n")


def _listen_to_the_prompt(network: torch.nn.Module) -> None:
    """Scale up what carries the prompt, which random weights hardly hear."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith(("token_embedding.weight", "embed_tokens.weight", "shared.weight")):
                torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(len(weight)))
            elif name.endswith("weight"):
                weight.mul_(next((factor for part, factor in CARRIERS.items() if part in name), 1))


def _stable_diffusion(network: Mapping, vae: Mapping, linear: bool = False) -> diffusers.DiffusionPipeline:
    """1.x, and with `linear` 2.x."""
    unet = _unet(use_linear_projection=linear, cross_attention_dim=TEXT_WIDTH, **network)
    return diffusers.StableDiffusionPipeline(
        vae=_autoencoder(**vae), text_encoder=transformers.CLIPTextModel(_clip_config()), unet=unet,
        tokenizer=_clip_tokenizer("!" if linear else "<|endoftext|>"), scheduler=diffusers.DDIMScheduler(**_SAFE),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def _stable_diffusion_xl(network: Mapping, vae: Mapping) -> diffusers.DiffusionPipeline:
    unet = _unet(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        addition_embed_type="text_time", addition_time_embed_dim=4, use_linear_projection=True,
        projection_class_embeddings_input_dim=6 * 4 + TEXT_WIDTH, cross_attention_dim=2 * TEXT_WIDTH,
        **network,
    )  # fmt: skip
    return diffusers.StableDiffusionXLPipeline(
        vae=_autoencoder(**{"scaling_factor": 0.13025, "force_upcast": True, **vae}), unet=unet,
        text_encoder=transformers.CLIPTextModel(_clip_config()),
        text_encoder_2=transformers.CLIPTextModelWithProjection(_clip_config("gelu")),
        tokenizer=_clip_tokenizer(), tokenizer_2=_clip_tokenizer("!"), scheduler=diffusers.EulerDiscreteScheduler(),
        add_watermarker=False,
    )  # fmt: skip


def _pixart(network: Mapping, vae: Mapping, sigma: bool) -> diffusers.DiffusionPipeline:
    pipeline = diffusers.PixArtSigmaPipeline if sigma else diffusers.PixArtAlphaPipeline
    transformer = diffusers.PixArtTransformer2DModel(**{
        "sample_size": LATENT_SIDE, "in_channels": 4, "out_channels": 8, "num_layers": 2, "patch_size": 2,
        "num_attention_heads": 2, "attention_head_dim": 6, "cross_attention_dim": 12, "caption_channels": TEXT_WIDTH,
        "use_additional_conditions": False if sigma else None, **network,
    })  # fmt: skip
    return pipeline(
        tokenizer=_t5_tokenizer(), text_encoder=_t5(TEXT_WIDTH), transformer=transformer,
        vae=_autoencoder(**{"scaling_factor": 0.13025 if sigma else 0.18215, **vae}),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )  # fmt: skip


def _stable_diffusion_3(network: Mapping, vae: Mapping) -> diffusers.DiffusionPipeline:
    transformer = diffusers.SD3Transformer2DModel(**{
        "sample_size": LATENT_SIDE, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 2,
        "attention_head_dim": 8, "num_attention_heads": 2, "joint_attention_dim": 2 * TEXT_WIDTH,
        "caption_projection_dim": 16, "pooled_projection_dim": 2 * TEXT_WIDTH, "pos_embed_max_size": 12, **network,
    })  # fmt: skip
    flow_vae = {"latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609, "force_upcast": True,
                "use_quant_conv": False, "use_post_quant_conv": False}  # fmt: skip
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=_autoencoder(**{**flow_vae, **vae}),
        text_encoder=transformers.CLIPTextModelWithProjection(_clip_config()),
        text_encoder_2=transformers.CLIPTextModelWithProjection(_clip_config("gelu")),
        text_encoder_3=_t5(2 * TEXT_WIDTH),
        tokenizer=_clip_tokenizer(), tokenizer_2=_clip_tokenizer("!"), tokenizer_3=_t5_tokenizer(),
    )  # fmt: skip


def _sana(network: Mapping, vae: Mapping) -> diffusers.DiffusionPipeline:
    transformer = diffusers.SanaTransformer2DModel(**{
        "sample_size": LATENT_SIDE, "patch_size": 1, "in_channels": 8, "out_channels": 8, "num_layers": 1,
        "num_attention_heads": 2, "attention_head_dim": 8, "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 8, "cross_attention_dim": 16, "caption_channels": TEXT_WIDTH, **network,
    })  # fmt: skip
    autoencoder = diffusers.AutoencoderDC(**{
        "in_channels": 3, "latent_channels": 8, "attention_head_dim": 8, "scaling_factor": 0.41407,
        "encoder_block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"),
        "decoder_block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"),
        "encoder_block_out_channels": (8, 8, 16), "decoder_block_out_channels": (8, 8, 16),
        "encoder_layers_per_block": (1, 1, 1), "decoder_layers_per_block": (1, 1, 1),
        "encoder_qkv_multiscales": ((), (), (5,)), "decoder_qkv_multiscales": ((), (), (5,)),
        "decoder_norm_types": "rms_norm", "decoder_act_fns": "silu", "downsample_block_type": "Conv",
        "upsample_block_type": "interpolate", **vae,
    })  # fmt: skip
    gemma = transformers.Gemma2Config(
        vocab_size=len(_GEMMA_PIECES), hidden_size=TEXT_WIDTH, intermediate_size=16, num_hidden_layers=1, head_dim=4,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    tokenizer = transformers.GemmaTokenizer(
        vocab={piece: i for i, piece in enumerate(_GEMMA_PIECES)}, merges=[], add_bos_token=True
    )
    return diffusers.SanaPipeline(
        tokenizer=tokenizer, text_encoder=transformers.Gemma2Model(gemma), vae=autoencoder, transformer=transformer,
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )  # fmt: skip


_SAFE = {"clip_sample": False, "steps_offset": 1}  # or Stable Diffusion complains of the scheduler
_BUILDERS = {
    "sd15": _stable_diffusion,
    "sd21": lambda network, vae: _stable_diffusion(network, vae, linear=True),
    "sdxl": _stable_diffusion_xl,
    "pixart-alpha": lambda network, vae: _pixart(network, vae, sigma=False),
    "pixart-sigma": lambda network, vae: _pixart(network, vae, sigma=True),
    "sd3": _stable_diffusion_3,
    "sana": _sana,
}

_CHARACTERS = [chr(code) for code in range(33, 127)]
_GEMMA_PIECES = ["<pad>", "<eos>", "<bos>", "<unk>", "▁", "\n", *_CHARACTERS]
_T5_PIECES = ["<pad>", "</s>", "<unk>", "▁", *string.ascii_lowercase, *string.digits, *",.'-"]


def _unet(**settings: Any) -> diffusers.UNet2DConditionModel:
    return diffusers.UNet2DConditionModel(**{
        "sample_size": LATENT_SIDE, "in_channels": 4, "out_channels": 4, "layers_per_block": 1,
        "block_out_channels": (8, 16), "norm_num_groups": 4, "attention_head_dim": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), **settings,
    })  # fmt: skip


def _autoencoder(**settings: Any) -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(**{
        "block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": 4, "sample_size": 2 * LATENT_SIDE,
        "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2, **settings,
    })  # fmt: skip


def _clip_pieces() -> dict[str, int]:
    pieces = [*_CHARACTERS, *(f"{character}</w>" for character in _CHARACTERS), "<|startoftext|>", "<|endoftext|>"]
    return {piece: i for i, piece in enumerate(pieces)}


def _clip_tokenizer(pad: str = "<|endoftext|>") -> transformers.CLIPTokenizer:
    return transformers.CLIPTokenizer(vocab=_clip_pieces(), merges=[], model_max_length=77, pad_token=pad)


def _clip_config(activation: str = "quick_gelu") -> transformers.CLIPTextConfig:
    count = len(_clip_pieces())
    return transformers.CLIPTextConfig(
        vocab_size=count, hidden_size=TEXT_WIDTH, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        projection_dim=TEXT_WIDTH, hidden_act=activation, bos_token_id=count - 2, eos_token_id=count - 1,
    )  # fmt: skip


def _t5_tokenizer() -> transformers.T5Tokenizer:
    return transformers.T5Tokenizer(vocab=[(piece, -1.0) for piece in _T5_PIECES], extra_ids=0)


def _t5(width: int) -> transformers.T5EncoderModel:
    return transformers.T5EncoderModel(transformers.T5Config(
        vocab_size=len(_T5_PIECES), d_model=width, d_kv=4, d_ff=16, num_layers=1, num_heads=2,
        feed_forward_proj="gated-gelu",
    ))  # fmt: skip


def save_lora(family: str, folder: Path) -> Path:
    """A LoRA of `family` (not PixArt, whose pipelines take none) in `folder`, pytorch_lora_weights.safetensors in
    peft's names, which visibly changes what the network predicts."""
    pipe = _BUILDERS[family]({}, {})
    part = "unet" if hasattr(pipe, "unet") else "transformer"
    random, tensors = torch.Generator().manual_seed(0), {}
    for name, module in getattr(pipe, part).named_modules():
        if name.endswith((".to_q", ".to_v")):
            for side, shape in {"A": (2, module.in_features), "B": (module.out_features, 2)}.items():
                tensors[f"{part}.{name}.lora_{side}.weight"] = torch.randn(shape, generator=random)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "pytorch_lora_weights.safetensors", {"format": "pt"})
    return folder


@quiet()
def load(folder: Path) -> diffusers.DiffusionPipeline:
    """The pipeline of `folder`, quiet."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe
