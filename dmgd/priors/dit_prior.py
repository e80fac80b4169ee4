"""A prior whose network is a class-conditional DiT."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dmgd.classes.info import ClassInfo
from dmgd.diffusion.condition import Condition
from dmgd.diffusion.guidance import Denoised
from dmgd.diffusion.process import Diffusion, Process
from dmgd.diffusion.schedule import Schedule, Step
from dmgd.priors.dit import DiT
from dmgd.priors.prior import Prior

LABEL = "label"


@dataclass(kw_only=True, repr=False)
class DiTPrior(Prior):
    """`classes[i]` is row i of the network's label table; the null row follows the last."""

    network: DiT
    process: Process = field(default_factory=Diffusion)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        config = self.network.config
        return config.in_channels, config.sample_size, config.sample_size

    @property
    def tokens(self) -> int:
        return (self.network.config.sample_size // self.network.config.patch_size) ** 2

    def schedule(self, steps: int, solver: str) -> Schedule:
        return self.process.schedule(steps, solver)

    def denoise(self, z: Float[Tensor, "b c h w"], step: Step, condition: Condition) -> Denoised:
        """A learned variance v in [−1, 1] interpolates the step's log variances (Nichol & Dhariwal 2021, Eq. 15). A
        flow has none: the second half of SiT's channels was never trained."""
        x = self.process.network_input(z, step)
        output = self.network(x, step.timestep, condition.embeddings[LABEL]).float()
        predicted, variance = output[:, : z.shape[1]], output[:, z.shape[1] :]
        x0 = self.process.clean(z, predicted, step)
        if not (variance.numel() and self.process.learns_variance):
            return x0, None
        weight = (variance + 1) / 2
        return x0, weight * step.log_variance_large + (1 - weight) * step.log_variance_small

    def condition(self, classes: Sequence[ClassInfo]) -> Condition:
        """f(y), the rows of the label table."""
        return self._rows([info.prior_index for info in classes])

    def null_condition(self, count: int) -> Condition:
        """f(∅), `count` times."""
        return self._rows([self.network.config.num_classes] * count)

    def _rows(self, rows: Sequence[int | None]) -> Condition:
        with torch.no_grad():
            return Condition({LABEL: self.network.label_embedding(torch.tensor(rows, device=self.device))})

    def compiled(self) -> "DiTPrior":
        return replace(self, network=self.network.compiled())

    def settings(self) -> dict[str, Any]:
        return {"network": asdict(self.network.config), "diffusion": self.process.to_json()}
