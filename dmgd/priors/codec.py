"""Between images and latents: pixels themselves, or a frozen autoencoder."""

from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from dmgd.errors import ArtifactError, UsageError
from dmgd.priors.checkpoints import read_config

Images = UInt8[Tensor, "b h w c"]
Latents = Float32[Tensor, "b z y x"]


@runtime_checkable
class Codec(Protocol):
    """`factor` image pixels are one latent pixel along each side; images have `image_channels` (1 grey, 3 RGB)."""

    factor: int
    image_channels: int

    def encode(self, images: Images) -> Latents:
        """The latents of uint8 images, on the codec's device; deterministic (a posterior's mean)."""

    def decode(self, latents: Latents) -> Images:
        """The uint8 images of latents, on the codec's device."""


class PixelCodec:
    """Latents that are the pixels, scaled to [−1, 1]."""

    factor = 1

    def __init__(self, image_channels: int, device: torch.device | str):
        self.image_channels, self._device = image_channels, device

    def encode(self, images: Images) -> Latents:
        return _to_unit_range(images.to(self._device))

    def decode(self, latents: Latents) -> Images:
        return _to_uint8(latents)


class NoCodec:
    """For work with latents alone."""

    factor = 1
    image_channels = 3

    def encode(self, images: Images) -> Latents:
        raise UsageError("this prior was loaded without an autoencoder; give --vae a folder or Hub id")

    def decode(self, latents: Latents) -> Images:
        raise UsageError("this prior was loaded without an autoencoder; give --vae a folder or Hub id")


class AutoencoderCodec:
    """A diffusers `AutoencoderKL` or `AutoencoderTiny` in float32."""

    image_channels = 3

    def __init__(self, folder: Path, device: torch.device | str):
        import diffusers
        from diffusers.utils import logging

        logging.set_verbosity_error()  # it warns of settings that it wrote itself
        name = read_config(folder / "config.json").get("_class_name")
        if name not in ("AutoencoderKL", "AutoencoderTiny"):
            raise ArtifactError(f"{folder} holds a {name}, not an AutoencoderKL or AutoencoderTiny")
        try:
            loaded = getattr(diffusers, name).from_pretrained(
                folder, torch_dtype=torch.float32, local_files_only=True, low_cpu_mem_usage=False
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ArtifactError(f"the autoencoder in {folder} cannot be loaded: {str(error)[:200]}") from error
        # Channels last: twice as fast on CPUs for the small autoencoders.
        placed = loaded.to(device=device, memory_format=torch.channels_last)
        self._model: nn.Module = placed.eval().requires_grad_(False)
        self._scale, self._device, self._is_kl = loaded.config.scaling_factor, device, name == "AutoencoderKL"
        self.factor = 2 ** (
            len(loaded.config.block_out_channels if self._is_kl else loaded.config.num_encoder_blocks) - 1
        )

    @torch.no_grad()
    def encode(self, images: Images) -> Latents:
        encoded = self._model.encode(_to_unit_range(images.to(self._device)))  # type: ignore[operator]
        return self._scale * (encoded.latent_dist.mean if self._is_kl else encoded.latents)

    @torch.no_grad()
    def decode(self, latents: Latents) -> Images:
        return _to_uint8(self._model.decode(latents / self._scale).sample)  # type: ignore[operator]


def _to_unit_range(images: Images) -> Latents:
    return images.permute(0, 3, 1, 2).contiguous().float().div(127.5).sub(1)


def _to_uint8(pixels: Latents) -> Images:
    return pixels.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()
