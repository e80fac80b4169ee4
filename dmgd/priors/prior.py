"""A prior: a frozen class-conditional diffusion model with its codec, its classes and its own defaults."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dmgd.errors import MismatchError
from dmgd.priors.codec import Codec
from dmgd.priors.dit import DiT
from dmgd.records import ClassInfo


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


@dataclass
class Prior:
    """One interface for every prior. `classes[i]` is row i of the label table; the null row follows the last."""

    identity: PriorIdentity
    classes: tuple[ClassInfo, ...]
    defaults: PriorDefaults
    network: DiT
    codec: Codec
    device: torch.device

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one latent."""
        config = self.network.config
        return config.in_channels, config.sample_size, config.sample_size

    @property
    def image_size(self) -> int:
        """Side of the square images, in pixels."""
        return self.network.config.sample_size * self.codec.factor

    def predict(self, z: Float[Tensor, "b c h w"], t: int, label: Float[Tensor, "b g e"]) -> Float[Tensor, "b o h w"]:
        """ε̂, and the variance if it is learned, at original timestep t; in the network's precision."""
        return self.network(z, t, label)

    def encode(self, images: UInt8[Tensor, "b h w c"]) -> Float[Tensor, "b z y x"]:
        """The latents of uint8 images of side `image_size`, float32; the posterior mean where the codec has one."""
        return self.codec.encode(images)

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
        """The source's `classes`, in their order, each with its row in this prior's table.

        Classes are matched by WordNet id where both have one, else by exact name; never by position.
        Raises MismatchError with the classes that the prior lacks.
        """
        rows = {key: i for i, known in enumerate(self.classes) for key in (known.wnid, known.name) if key}
        missing = [c.identity for c in classes if c.identity not in rows and c.name not in rows]
        if missing:
            listed = ", ".join(missing[:10]) + (", …" if len(missing) > 10 else "")
            raise MismatchError(
                f"the prior {self.identity.id!r} lacks {len(missing)} of the {len(classes)} classes: {listed}; "
                "choose a prior that was trained on them, or say its classes in its dmgd.json"
            )
        return tuple(ClassInfo(c.name, c.wnid, rows.get(c.identity, rows.get(c.name))) for c in classes)
