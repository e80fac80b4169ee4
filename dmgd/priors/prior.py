"""A prior: a frozen class-conditional diffusion model with its codec, its classes and its own defaults."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dmgd.classes.info import ClassInfo
from dmgd.classes.matching import match_prior
from dmgd.priors.codec import Codec
from dmgd.priors.dit import DiT


@dataclass(frozen=True)
class PriorIdentity:
    """What goes into every artefact made with a prior: `digest` is the SHA-256 over its weight files."""

    id: str
    revision: str | None
    digest: str
    numerics: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class PriorDefaults:
    """Settings that depend on the prior: 1 + ω, and how many latent channels it guides (None: all)."""

    guidance_scale: float = 4.0
    guided_channels: int | None = None


@dataclass(frozen=True)
class Encoder:
    """An autoencoder that encodes in the place of the prior's own, approximately; `digest` is of its weights."""

    id: str
    digest: str
    codec: Codec


@dataclass
class Prior:
    """One interface for every prior. `classes[i]` is row i of the label table; the null row follows the last.

    `encoder` replaces the codec where images become latents, never where latents become images.
    """

    identity: PriorIdentity
    classes: tuple[ClassInfo, ...]
    defaults: PriorDefaults
    network: DiT
    codec: Codec
    device: torch.device
    encoder: Encoder | None = None

    @property
    def encoder_identity(self) -> dict[str, Any]:
        """What turns images into latents: the prior's own codec, or an approximate encoder, and its digest."""
        if self.encoder is None:
            return {"id": self.identity.id, "digest": self.identity.digest, "approximate": False}
        return {"id": self.encoder.id, "digest": self.encoder.digest, "approximate": True}

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one latent."""
        config = self.network.config
        return config.in_channels, config.sample_size, config.sample_size

    @property
    def image_size(self) -> int:
        """Side of the square images, in pixels."""
        return self.network.config.sample_size * (self.encoder.codec if self.encoder else self.codec).factor

    def predict(self, z: Float[Tensor, "b c h w"], t: int, label: Float[Tensor, "b g e"]) -> Float[Tensor, "b o h w"]:
        """ε̂, and the variance if it is learned, at original timestep t; in the network's precision."""
        return self.network(z, t, label)

    def encode(self, images: UInt8[Tensor, "b h w c"]) -> Float[Tensor, "b z y x"]:
        """The latents of uint8 images of side `image_size`, float32; the posterior mean where the codec has one."""
        return (self.encoder.codec if self.encoder else self.codec).encode(images)

    def decode(self, latents: Float[Tensor, "b z y x"]) -> UInt8[Tensor, "b h w c"]:
        """The uint8 images of latents."""
        return self.codec.decode(latents)

    def label_embedding(self, indices: Sequence[int]) -> Float[Tensor, "b g e"]:
        """f(y) for rows of the label table, float32."""
        with torch.no_grad():
            return self.network.label_embedding(torch.as_tensor(indices, device=self.device))

    def null_embedding(self, count: int) -> Float[Tensor, "b g e"]:
        """f(∅), `count` times, float32."""
        return self.label_embedding([self.network.config.num_classes] * count)

    def match_classes(self, classes: Sequence[ClassInfo]) -> tuple[ClassInfo, ...]:
        """The source's `classes` with their rows in this prior's table. Raises MismatchError, see `match_prior`."""
        return match_prior(self.identity.id, self.classes, classes)
