"""Codecs between images and latents: plain pixels, or a frozen autoencoder."""

import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from dmgd.errors import ArtifactError, UsageError, is_out_of_memory
from dmgd.priors.description import read_config
from dmgd.priors.fit import fill
from dmgd.priors.weights import read_weights, weight_files

Images = UInt8[Tensor, "b h w c"]
Latents = Float32[Tensor, "b z y x"]
NO_CONFIG: dict[str, Any] = {}
# The names of attention layers before diffusers 0.12, which the weights of many autoencoders still have.
_OLD_ATTENTION = re.compile(r"(?<=\.)(query|key|value|proj_attn)(?=\.(weight|bias)$)")
_NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class Codec(ABC):
    """`factor` is image size over latent size; images have `image_channels` (1 grey, 3 RGB); `config` is what latents
    depend on besides the weights; `is_pixels` says whether they are the pixels themselves."""

    is_pixels: bool = False
    factor: int = 1
    image_channels: int = 3
    config: dict[str, Any] = NO_CONFIG

    @abstractmethod
    def encode(self, images: Images, /) -> Latents:
        """The latents of uint8 images, on the codec's device; deterministic (the posterior mean)."""

    @abstractmethod
    def decode(self, latents: Latents, /) -> Images:
        """The uint8 images of latents, on the codec's device."""


class PixelCodec(Codec):
    """Latents that are the pixels, scaled to [−1, 1]."""

    is_pixels = True

    def __init__(self, image_channels: int, device: torch.device | str):
        self.image_channels, self._device = image_channels, device

    def encode(self, images: Images) -> Latents:
        return _to_unit_range(images.to(self._device))

    def decode(self, latents: Latents) -> Images:
        return _to_uint8(latents)


class NoCodec(Codec):
    """The codec of a prior that is loaded without one; it raises UsageError when used."""

    def encode(self, values: Tensor, /) -> Tensor:
        raise UsageError("this prior was loaded without an autoencoder; give --vae a folder or Hub id")

    decode = encode


class AutoencoderCodec(Codec):
    """A diffusers `AutoencoderKL`, `AutoencoderTiny` or `AutoencoderDC` (Sana's) in float32. `channels` are those of
    its latents.

    Latents are scaled as in diffusers' pipelines: (z − mean) · scaling_factor / std, where mean and std are the
    config's `latents_mean` and `latents_std`, or else `shift_factor` and 1.
    """

    def __init__(self, folder: Path, device: torch.device | str):
        import diffusers
        from diffusers.utils import logging

        logging.set_verbosity_error()  # it warns about settings that it wrote itself
        self._device = device
        described = read_config(folder / "config.json")
        name = str(described.get("_class_name"))
        if name not in _ENCODED:
            raise ArtifactError(f"{folder} contains a {name}, not one of {', '.join(_ENCODED)}")
        state = {
            _OLD_ATTENTION.sub(lambda old: _NEW_ATTENTION[old[0]], key): one
            for key, one in read_weights(*weight_files(folder)).items()
        }
        try:
            with torch.device("meta"):  # no memory for weights that are replaced
                loaded = getattr(diffusers, name).from_config(described)
            self._scale, self._mean, self._std = self._normalisation(loaded.config)
        except Exception as error:  # diffusers raises a dozen types for settings that it cannot use
            if is_out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ArtifactError(f"the autoencoder in {folder} cannot be made from its config.json: {reason}") from error
        try:
            fill(loaded, state, {key: (key,) for key in loaded.state_dict()})
        except ValueError as error:
            raise ArtifactError(
                f"the autoencoder in {folder} has not the tensors that its config.json describes: {error}"
            ) from error
        self._encoded = _ENCODED[name]
        # Channels last: twice as fast on CPUs for the small autoencoders.
        moved = loaded.to(device=device, memory_format=torch.channels_last)
        self._model: nn.Module = moved.eval().requires_grad_(False)
        self.config = {key: value for key, value in described.items() if not key.startswith("_")} | {"class": name}
        self.channels = int(loaded.config["latent_channels"])
        self.factor = 2 ** (len(loaded.config[_STAGES[name]]) - 1)

    def _normalisation(self, config: Any) -> tuple[float, Tensor, Tensor]:
        """scaling_factor, and mean and std per channel. Raises ValueError for values that cannot be used."""
        shift, mean, std = (config.get(key) for key in ("shift_factor", "latents_mean", "latents_std"))
        if shift and mean is not None:
            raise ValueError("it has both shift_factor and latents_mean; remove one of them")
        values = (mean if mean is not None else [shift or 0.0], std if std is not None else [1.0])
        mean, std = (torch.tensor(v, device=self._device, dtype=torch.float32).view(1, -1, 1, 1) for v in values)
        scale = float(config["scaling_factor"])
        usable = all(one.isfinite().all() and one.numel() in (1, config["latent_channels"]) for one in (mean, std))
        if not (usable and 0 < scale < float("inf") and (std > 0).all()):
            raise ValueError("its scaling_factor, shift_factor, latents_mean or latents_std cannot be used")
        return scale, mean, std

    @torch.no_grad()
    def encode(self, images: Images) -> Latents:
        self._tile(images.shape[1])
        z = self._encoded(self._model.encode(_to_unit_range(images.to(self._device))))  # type: ignore[operator]
        return (z - self._mean) * self._scale / self._std

    @torch.no_grad()
    def decode(self, latents: Latents) -> Images:
        self._tile(latents.shape[2] * self.factor)
        z = latents * self._std / self._scale + self._mean
        return _to_uint8(self._model.decode(z).sample)  # type: ignore[operator]

    def _tile(self, side: int) -> None:
        if side > TILED:  # of smaller ones the tiles' seams are not worth the memory
            self._model.enable_tiling()  # type: ignore[operator]


TILED = 1024  # pixels; larger images are encoded and decoded in overlapping tiles
# What the encoders of diffusers' autoencoders return, and the setting that lists their stages.
_ENCODED = {
    "AutoencoderKL": lambda found: found.latent_dist.mean,
    "AutoencoderTiny": lambda found: found.latents,
    "AutoencoderDC": lambda found: found.latent,
}
_STAGES = {
    "AutoencoderKL": "block_out_channels",
    "AutoencoderTiny": "num_encoder_blocks",
    "AutoencoderDC": "encoder_block_out_channels",
}


def _to_unit_range(images: Images) -> Latents:
    return images.permute(0, 3, 1, 2).contiguous().float().div(127.5).sub(1)


def _to_uint8(pixels: Latents) -> Images:
    return pixels.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()
