"""The space that a prior is trained in, before there is one: pixels, or the latents of an autoencoder."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from dmgd.files import sha256_bytes
from dmgd.priors.codec import AutoencoderCodec, Codec, PixelCodec
from dmgd.priors.weights import fetch, weight_files, weights_digest


@dataclass(frozen=True)
class LatentSpaceSpec:
    """What another process opens a latent space from: the autoencoder's folder or Hub id, or None for pixels of so many
    channels, and the side of the images."""

    vae: str | None
    channels: int
    size: int

    def open(self, device: torch.device | str) -> "LatentSpace":
        codec, folder = open_codec(self.vae, self.channels, torch.device(device))
        return latent_space(codec, folder, self.vae, self.size, torch.device(device))


@dataclass(frozen=True)
class LatentSpace:
    """Images of side `image_size` as the latents of a `codec`. `vae` is the folder of the autoencoder, None for pixels;
    `id` and `digest` say which it is, and `spec` opens it again."""

    spec: LatentSpaceSpec
    codec: Codec
    image_size: int
    device: torch.device
    vae: Path | None = None
    id: str = "pixels"
    digest: str = ""

    @property
    def image_channels(self) -> int:
        return self.codec.image_channels

    @cached_property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one latent."""
        side, channels = self.image_size, self.image_channels
        return tuple(self.encode(torch.zeros(1, side, side, channels, dtype=torch.uint8)).shape[1:])  # type: ignore[return-value]

    @property
    def encoder_identity(self) -> dict[str, Any]:
        """What latents depend on, as `Prior.encoder_identity`."""
        known = {"id": self.id, "digest": self.digest, "approximate": False}
        return {**known, "pixels": self.codec.is_pixels, "config": self.codec.config}

    def encode(self, images: UInt8[Tensor, "b h w c"]) -> Float32[Tensor, "b z y x"]:
        return self.codec.encode(images)


def open_codec(vae: str | None, channels: int, device: torch.device) -> tuple[Codec, Path | None]:
    """The codec and the folder of the autoencoder `vae`, a folder or Hub id; None: pixels of so many channels.

    Raises UsageError or ArtifactError for an autoencoder that does not exist or cannot be used.
    """
    if vae is None:
        return PixelCodec(channels, device), None
    folder = Path(vae).expanduser() if is_folder(vae) else fetch(vae, "vae")[0]
    return AutoencoderCodec(folder, device), folder


def latent_space(codec: Codec, folder: Path | None, name: str | None, size: int, device: torch.device) -> LatentSpace:
    """Images of side `size` as latents of what `open_codec` has opened for this name."""
    if folder is None or name is None:
        return LatentSpace(LatentSpaceSpec(None, codec.image_channels, size), codec, size, device)
    spec = LatentSpaceSpec(str(Path(name).expanduser().absolute()) if is_folder(name) else name, 0, size)
    digest = sha256_bytes(weights_digest(weight_files(folder)).encode())
    return LatentSpace(spec, codec, size, device, folder, vae_label(name), digest)


def vae_label(name: str) -> str:
    """The name of an autoencoder without its local path."""
    return Path(name).name if is_folder(name) else name


def is_folder(name: str) -> bool:
    return Path(name).expanduser().is_dir()
