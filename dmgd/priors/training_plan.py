"""The plan of a training: what follows from the data and the device, resolved once, before the first step."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dmgd.priors.dit import DiTConfig
from dmgd.priors.recipe import Recipe, TrainingConfig
from dmgd.priors.saving import DIFFUSERS


@dataclass(frozen=True)
class TrainingPlan:
    """`content` is the digest of the images, `images` how many are trained on, with their mirror images if `flip`, and
    `held_out` how many are not. `latent` is the shape of what is learned: of pixels, or of the latents of the
    autoencoder `vae`."""

    content: str
    images: int
    held_out: int
    classes: int
    size: int
    latent: tuple[int, int, int]
    vae: str | None
    flip: bool
    recipe: Recipe
    device: str

    @property
    def shape(self) -> DiTConfig:
        """The shape of the network."""
        channels, side, _ = self.latent
        return DiTConfig(
            sample_size=side,
            patch_size=self.recipe.patch,
            in_channels=channels,
            out_channels=channels,
            width=self.recipe.width,
            depth=self.recipe.depth,
            num_heads=self.recipe.heads,
            num_classes=self.classes,
            frequency_divisor=DIFFUSERS[0],
            norm_eps=DIFFUSERS[1],
        )

    def announced(self, config: TrainingConfig, parameters: int) -> str:
        """What is trained, on what and for how long, in a line."""
        duration = f"{config.steps:,} steps" if config.steps else f"{config.minutes:g} min"
        latents = f", latents {'×'.join(map(str, self.latent))}" if self.vae else ""
        flip = ", with mirror images" if self.flip else ""
        return (
            f"train {self.recipe.depth} blocks of width {self.recipe.width}, {parameters / 1e6:.1f} M parameters, on "
            f"{self.images:,} images of {self.classes} classes at {self.size} pixels{latents}{flip}, for {duration} on "
            f"{self.device}"
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "latent": list(self.latent)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "TrainingPlan":
        return cls(**{**content, "latent": tuple(content["latent"]), "recipe": Recipe(**content["recipe"])})
