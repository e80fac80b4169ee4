"""A prior: a frozen class-conditional diffusion model with its codec, its classes and its own defaults."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dmgd.classes.info import ClassInfo
from dmgd.classes.matching import match_prior
from dmgd.diffusion.condition import Condition
from dmgd.diffusion.guidance import Denoised
from dmgd.diffusion.schedule import Schedule, Step
from dmgd.errors import UsageError
from dmgd.priors.codec import Codec
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


@dataclass(kw_only=True, repr=False)
class Prior(ABC):
    """What every prior answers; a family of them says how it is conditioned, scheduled and asked.

    `spec` is what it was loaded from. `classes[i]` is row i of its class table. `encoder` replaces the codec where
    images become latents, never where latents become images.
    """

    spec: PriorSpec
    identity: PriorIdentity
    classes: tuple[ClassInfo, ...]
    defaults: PriorDefaults
    codec: Codec
    device: torch.device
    encoder: Encoder | None = None

    def __repr__(self) -> str:
        channels, height, width = self.latent_shape
        return (
            f"Prior('{self.identity.id}', {len(self.classes)} classes, latents {channels}×{height}×{width}, "
            f"{self.spec.precision}, {self.device})"
        )

    @property
    @abstractmethod
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one latent."""

    @abstractmethod
    def schedule(self, steps: int, solver: str) -> Schedule:
        """The schedule of the diffusion that this prior was trained on. Raises UsageError for too many steps."""

    @abstractmethod
    def denoise(self, z: Float[Tensor, "b c h w"], step: Step, condition: Condition) -> Denoised:
        """x̂_0 and, if it is learned, the posterior's log variance, whatever the network itself predicts; float32."""

    @abstractmethod
    def condition(self, classes: Sequence[ClassInfo]) -> Condition:
        """What the network is conditioned on for `classes`, which this prior has matched, float32."""

    @abstractmethod
    def null_condition(self, count: int) -> Condition:
        """The condition of no class, `count` times, float32."""

    @property
    def tokens(self) -> int:
        """How many patches of a latent the network computes with: what an image costs."""
        return self.latent_shape[1] * self.latent_shape[2]

    def compiled(self) -> "Prior":
        """This prior with its network compiled. Raises UsageError if it cannot be."""
        raise UsageError(f"the prior {self.identity.id!r} cannot be compiled; leave --compile out")

    def settings(self) -> dict[str, Any]:
        """What images depend on beside the weights: the network's shape and the diffusion, as they were read."""
        return {}

    @property
    def encoder_identity(self) -> dict[str, Any]:
        """What turns images into latents: the prior's own codec, or an approximate encoder, its digest and config."""
        own, known = self.encoder is None, self.encoder or self.identity
        codec = (self.encoder or self).codec
        return {
            "id": known.id,
            "digest": known.digest,
            "approximate": not own,
            "pixels": codec.is_pixels,
            "config": codec.config,
        }

    def to_json(self) -> dict[str, Any]:
        """What images depend on, for a run to keep: identity, settings of its own, and the shapes as they were read."""
        return {**self.identity.to_json(), **asdict(self.defaults), **self.settings(), "codec": self.codec.config}

    @property
    def image_size(self) -> int:
        """Side of the square images, in pixels."""
        return self.latent_shape[1] * (self.encoder.codec if self.encoder else self.codec).factor

    @property
    def image_channels(self) -> int:
        """1 of grey images, 3 of RGB."""
        return self.codec.image_channels

    def encode(self, images: UInt8[Tensor, "b h w c"]) -> Float[Tensor, "b z y x"]:
        """The latents of uint8 images of side `image_size`, float32; the posterior mean where the codec has one."""
        return (self.encoder.codec if self.encoder else self.codec).encode(images)

    def decode(self, latents: Float[Tensor, "b z y x"]) -> UInt8[Tensor, "b h w c"]:
        """The uint8 images of latents."""
        return self.codec.decode(latents)

    def match_classes(self, classes: Sequence[ClassInfo]) -> tuple[ClassInfo, ...]:
        """The source's `classes` with their rows in this prior's table. Raises MismatchError, see `match_prior`."""
        return match_prior(self.identity.id, self.classes, classes)
