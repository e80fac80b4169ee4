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
        x = self.process.network_input(z, step)
        return self.process.denoised(z, self.network(x, step.timestep, condition.embeddings[LABEL]).float(), step)

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
