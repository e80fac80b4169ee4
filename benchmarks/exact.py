"""A prior stronger than any that a CPU can train, without weights: the exact denoiser of images.

Its x̂0 is the posterior mean over the images x_i of a class, Σ softmax(−|z − √ᾱ x_i|² / 2(1−ᾱ)) x_i; the null
condition is all classes. Plain samples are images of the class; it cannot generalise beyond them. So it has one half of
a source's training images, and whatever is matched or selected comes from the other half, which shares no image with
it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from divided import halves
from torch import Tensor

from dmgd.classes.info import ClassInfo
from dmgd.diffusion.condition import Condition
from dmgd.diffusion.guidance import Denoised
from dmgd.diffusion.schedule import Schedule, Step, respaced, training_alpha_bar
from dmgd.files import sha256_bytes
from dmgd.priors.defaults import PriorDefaults
from dmgd.priors.latent_space import LatentSpace, latent_space, open_codec
from dmgd.priors.prior import Prior, PriorIdentity
from dmgd.progress import Progress
from dmgd.sources.source import Source
from dmgd.specs import PriorSpec
from dmgd.statistics.encoding import encode_source


@dataclass(kw_only=True, repr=False)
class ExactPrior(Prior):
    """The exact denoiser of `images` (n, d), latents of `space`, those of class c from `starts[c]` to `starts[c + 1]`.
    A class is conditioned on by its number, the null condition is −1: there is nothing between classes, so that soft
    labels mean nothing here."""

    images: Tensor
    starts: Sequence[int]
    space: LatentSpace

    def __post_init__(self) -> None:
        self._squared_norms = self.images.square().sum(1)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.space.latent_shape

    @property
    def encoder_identity(self) -> dict[str, Any]:
        return self.space.encoder_identity  # of the codec alone, so that latents in the cache serve every half

    def schedule(self, steps: int, solver: str) -> Schedule:
        return respaced(training_alpha_bar(), steps, solver)

    def condition(self, classes: Sequence[ClassInfo]) -> Condition:
        return self._numbered([-1 if info.prior_index is None else info.prior_index for info in classes])

    def null_condition(self, count: int) -> Condition:
        return self._numbered([-1] * count)

    def _numbered(self, numbers: Sequence[int]) -> Condition:
        return Condition({"class": torch.tensor(numbers, dtype=torch.float32, device=self.device)[:, None]})

    def denoise(self, z: Tensor, step: Step, condition: Condition) -> Denoised:
        rows, numbers = z.flatten(1), condition.embeddings["class"][:, 0].long()
        x0 = torch.empty_like(rows)
        for c in numbers.unique().tolist():
            own, of_class = slice(None) if c < 0 else slice(self.starts[c], self.starts[c + 1]), numbers == c
            # −|z − α x|² / 2σ², without |z|², which is the same for every image
            nearness = 2 * step.alpha * rows[of_class] @ self.images[own].T - step.alpha_bar * self._squared_norms[own]
            x0[of_class] = torch.softmax(nearness / (2 * step.sigma**2), 1) @ self.images[own]
        return x0.reshape(z.shape), None


def with_exact_prior(
    source: Source, size: int, vae: str | None, device: torch.device, progress: Progress
) -> tuple[Source, ExactPrior]:
    """One half of the source, and the exact denoiser of the other at this size, in the latents of `vae` (None: of RGB
    pixels). An image that is in both halves is not the denoiser's."""
    half, other = halves(source)
    codec, folder = open_codec(vae, 3, device)
    space = latent_space(codec, folder, vae, size, device)
    seen, held = (encode_source(part, space, progress=progress) for part in (half, other))
    known_rows = {row.tobytes() for of_class in seen for row in of_class.rows}
    own = [np.stack([row for row in of_class.rows if row.tobytes() not in known_rows]) for of_class in held]
    rows = np.concatenate(own)
    prior = ExactPrior(
        spec=PriorSpec("exact"),
        identity=PriorIdentity(f"exact denoiser of {len(rows)} images", None, sha256_bytes(rows.tobytes()), "exact"),
        classes=source.classes,
        defaults=PriorDefaults(guidance_scale=1.0),
        codec=codec,
        device=device,
        images=torch.from_numpy(rows).to(device),
        starts=np.cumsum([0, *map(len, own)]).tolist(),
        space=space,
    )
    return half, prior
