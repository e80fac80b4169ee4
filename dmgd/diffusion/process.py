"""The processes that priors are trained on: which noise they add, and what their networks predict of it.

The sampler works in variance-preserving coordinates z = α x_0 + σ ε, α² + σ² = 1, whatever the process. A flow's
x = (1 − s) x_0 + s ε is the same point, z / (α + σ), with s = σ / (α + σ).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import pi
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from dmgd.config import check_settings, setting
from dmgd.diffusion.guidance import Denoised, Latents
from dmgd.diffusion.schedule import (
    Schedule,
    Step,
    check_steps,
    respaced,
    through,
    training_alpha_bar,
    zero_terminal_snr,
)
from dmgd.errors import UsageError, unknown_choice

PREDICTIONS = ("epsilon", "v_prediction", "sample")


class Process(ABC):
    """What a network was trained on. `learns_variance`: further channels of its output are the posterior's variance."""

    learns_variance: ClassVar[bool]

    @abstractmethod
    def schedule(self, steps: int, solver: str) -> Schedule:
        """The schedule of `steps` steps. Raises UsageError for too many."""

    @abstractmethod
    def network_input(self, z: Latents, step: Step) -> Latents:
        """z in the coordinates of the network."""

    @abstractmethod
    def clean(self, z: Latents, predicted: Latents, step: Step) -> Latents:
        """x̂_0 from what the network predicts at z."""

    def denoised(self, z: Latents, output: Float[Tensor, "b o h w"], step: Step) -> Denoised:
        """x̂_0 and the posterior's log variance from all channels of the network's output: further ones are a learned
        variance v in [−1, 1], which interpolates the step's log variances (Nichol & Dhariwal 2021, Eq. 15). A flow has
        none: the second half of SiT's channels was never trained."""
        predicted, variance = output[:, : z.shape[1]], output[:, z.shape[1] :]
        x0 = self.clean(z, predicted, step)
        if not (variance.numel() and self.learns_variance):
            return x0, None
        weight = (variance + 1) / 2
        return x0, weight * step.log_variance_large + (1 - weight) * step.log_variance_small

    def to_json(self) -> dict[str, Any]:
        """All settings, as a run records them."""
        return asdict(self)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Diffusion(Process):
    """A diffusion in the terms of diffusers' `scheduler_config.json`; by default that of DDPM and facebookresearch/DiT.

    `prediction_type`: the network predicts ε, v = α ε − σ x_0, or x_0. `trained_betas` take the place of the schedule
    by name. Raises UsageError for a β schedule that is unknown or whose signal does not fall from 1, and for a network
    of ε that starts from pure noise (zero terminal SNR), of which ε tells nothing.
    """

    learns_variance: ClassVar[bool] = True

    beta_schedule: str = "linear"
    num_train_timesteps: int = setting(1000, at_least=2, at_most=10**6)
    beta_start: float = setting(1e-4, above=0)
    beta_end: float = setting(0.02, above=0)
    prediction_type: str = "epsilon"
    trained_betas: tuple[float, ...] | None = None
    rescale_betas_zero_snr: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.trained_betas, Sequence):
            betas = tuple(map(float, self.trained_betas))
            object.__setattr__(self, "trained_betas", betas)
            object.__setattr__(self, "num_train_timesteps", len(betas))
        check_settings(self)
        if self.prediction_type not in PREDICTIONS:
            raise unknown_choice("prediction_type", self.prediction_type, PREDICTIONS)
        training = self._training()
        if not (len(training) > 1 and (np.diff(training) < 0).all() and training[-1] >= 0 and training[0] < 1):
            raise UsageError("the signal of its β schedule does not fall from 1 towards 0")
        if training[-1] == 0 and self.prediction_type == "epsilon":
            raise UsageError("a network that predicts epsilon cannot start from pure noise (rescale_betas_zero_snr)")

    def _training(self) -> np.ndarray:
        if self.trained_betas is None:
            found = training_alpha_bar(self.beta_schedule, self.num_train_timesteps, self.beta_start, self.beta_end)
        else:
            found = np.cumprod(1 - np.array(self.trained_betas))
        return zero_terminal_snr(found) if self.rescale_betas_zero_snr else found

    def schedule(self, steps: int, solver: str) -> Schedule:
        return respaced(self._training(), steps, solver)

    def network_input(self, z: Latents, step: Step) -> Latents:
        return z

    def clean(self, z: Latents, predicted: Latents, step: Step) -> Latents:
        if self.prediction_type == "epsilon":
            return (z - step.sigma * predicted) / step.alpha
        return predicted if self.prediction_type == "sample" else step.alpha * z - step.sigma * predicted


@dataclass(frozen=True)
class Flow(Process):
    """A flow from data (s = 0) to noise (s = 1), whose network predicts the velocity dx/ds.

    `path`: "linear", x = (1 − s) x_0 + s ε (rectified flow), or "cosine", x = cos(πs/2) x_0 + sin(πs/2) ε. Steps are
    even in s, with `shift` moved towards noise by s → shift·s / (1 + (shift − 1) s) (Esser et al. 2024, Eq. 23). The
    network is told the time `time_scale`·s. `from_noise`: its own time runs the other way, as in SiT: it is told
    time_scale·(1 − s) and predicts −dx/ds.
    """

    learns_variance: ClassVar[bool] = False

    path: Literal["linear", "cosine"] = "linear"
    shift: float = setting(1.0, above=0)
    time_scale: float = setting(1000.0, above=0)
    from_noise: bool = False

    def __post_init__(self) -> None:
        check_settings(self)

    def schedule(self, steps: int, solver: str) -> Schedule:
        check_steps(steps, 1000)
        even = np.arange(1, steps + 1) / steps
        s = self.shift * even / (1 + (self.shift - 1) * even)
        if self.path == "linear":
            alpha_bar = (1 - s) ** 2 / ((1 - s) ** 2 + s**2)
        else:
            alpha_bar = np.append(np.cos(pi / 2 * s[:-1]) ** 2, 0.0)
        return through(self.time_scale * (1 - s if self.from_noise else s), alpha_bar, solver)

    def network_input(self, z: Latents, step: Step) -> Latents:
        return z / (step.alpha + step.sigma) if self.path == "linear" else z

    def clean(self, z: Latents, predicted: Latents, step: Step) -> Latents:
        velocity = -predicted if self.from_noise else predicted
        if self.path == "linear":
            return (z - step.sigma * velocity) / (step.alpha + step.sigma)
        return step.alpha * z - step.sigma * velocity * (2 / pi)
