"""What is taken where the user says nothing, prior by prior."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PriorDefaults:
    """Guidance scale 1 + ω, the number of guided channels (None: all), steps and solver of sampling."""

    guidance_scale: float = 4.0
    guided_channels: int | None = None
    steps: int = 50
    solver: Literal["ddpm", "dpm++", "ddim"] = "ddpm"
