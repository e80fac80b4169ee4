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
from dmgd.specs import PriorSpec


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
    """One interface for every prior. `spec` is what it was loaded from. `classes[i]` is row i of the label table; the
    null row follows the last.

    `encoder` replaces the codec where images become latents, never where latents become images.
    """

    spec: PriorSpec
    identity: PriorIdentity
    classes: tuple[ClassInfo, ...]
    defaults: PriorDefaults
    network: DiT
    codec: Codec
    device: torch.device
    encoder: Encoder | None = None

    @property
    def encoder_identity(self) -> dict[str, Any]:
        """What turns images into latents: the prior's own codec, or an approximate encoder, its digest and config."""
        own, known = self.encoder is None, self.encoder or self.identity
        config = (self.encoder or self).codec.config
        return {"id": known.id, "digest": known.digest, "approximate": not own, "config": config}

    def to_json(self) -> dict[str, Any]:
        """What images depend on, for a run to keep: identity, settings of its own, and the shapes as they were read."""
        shapes = {"network": asdict(self.network.config), "codec": self.codec.config}
        return {**self.identity.to_json(), **asdict(self.defaults), **shapes}

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
