"""The prior: a frozen class-conditional diffusion model with its codec, classes and defaults."""

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
from dmgd.priors.defaults import PriorDefaults
from dmgd.progress import SILENT, Progress
from dmgd.specs import PriorSpec


@dataclass(frozen=True)
class PriorIdentity:
    """The prior's identity, recorded in every artefact: `digest` is the SHA-256 over its weight files."""

    id: str
    revision: str | None
    digest: str
    numerics: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Encoder:
    """An approximate encoder that replaces the prior's own; `digest` is of its weights."""

    id: str
    digest: str
    codec: Codec


@dataclass(kw_only=True, repr=False)
class Prior(ABC):
    """The interface of every prior; a subclass implements its schedule, denoising and conditioning.

    `spec` is what it was loaded from. `classes[i]` is row i of its class table, which is empty if it is told classes by
    prompts. `encoder` replaces the codec for
    encoding, never for decoding.
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
        classes = f"{len(self.classes)} classes" if self.classes else "classes by prompts"
        return (
            f"Prior('{self.identity.id}', {classes}, latents {channels}×{height}×{width}, "
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
        """x̂_0 and the posterior's log variance (None if it is not learned), whatever the network predicts; float32."""

    def prepare(self, classes: Sequence[ClassInfo], progress: Progress = SILENT) -> None:  # noqa: B027 (most need none)
        """Make ready what the conditions of these classes need, once for all of them; what a user should know of it is
        said to `progress`. Without it, `condition` does so for the classes that it meets."""

    @abstractmethod
    def condition(self, classes: Sequence[ClassInfo]) -> Condition:
        """The condition of each class, which this prior has matched; float32."""

    @abstractmethod
    def null_condition(self, count: int) -> Condition:
        """The null condition, `count` times; float32."""

    @property
    def tokens(self) -> int:
        """The number of patches per latent, which determines the cost of an image."""
        return self.latent_shape[1] * self.latent_shape[2]

    def compiled(self) -> "Prior":
        """This prior with a compiled network. Raises UsageError if it does not support that."""
        raise UsageError(f"the prior {self.identity.id!r} cannot be compiled; leave --compile out")

    def settings(self) -> dict[str, Any]:
        """What images depend on besides the weights: the network's shape and the diffusion, as read from its files."""
        return {}

    @property
    def encoder_identity(self) -> dict[str, Any]:
        """Id, digest and config of what encodes images: the prior's own codec, or an approximate encoder."""
        known, codec = self.encoder or self.identity, self._encoding
        return {
            "id": known.id,
            "digest": known.digest,
            "approximate": self.encoder is not None,
            "pixels": codec.is_pixels,
            "config": codec.config,
        }

    @property
    def _encoding(self) -> Codec:
        return (self.encoder or self).codec

    def to_json(self) -> dict[str, Any]:
        """What images depend on, as a run records it: identity, defaults, settings and codec."""
        return {**self.identity.to_json(), **asdict(self.defaults), **self.settings(), "codec": self.codec.config}

    @property
    def image_size(self) -> int:
        """The side of the images in pixels."""
        return self.latent_shape[1] * self._encoding.factor

    @property
    def image_channels(self) -> int:
        """1 of grey images, 3 of RGB."""
        return self.codec.image_channels

    def encode(self, images: UInt8[Tensor, "b h w c"]) -> Float[Tensor, "b z y x"]:
        """The latents of uint8 images of side `image_size`, float32; the posterior mean where the codec has one."""
        return self._encoding.encode(images)

    def decode(self, latents: Float[Tensor, "b z y x"]) -> UInt8[Tensor, "b h w c"]:
        return self.codec.decode(latents)

    def match_classes(self, classes: Sequence[ClassInfo]) -> tuple[ClassInfo, ...]:
        """The `classes` with their rows in this prior's table. Raises MismatchError, see `match_prior`."""
        return match_prior(self.identity.id, self.classes, classes)
