"""The noise schedule of DDPM, respaced to fewer steps as in guided-diffusion (`respace.py`)."""

from dataclasses import dataclass, replace

import numpy as np

from dmgd.errors import UsageError


@dataclass(frozen=True)
class Schedule:
    """The numbers of every step. Entry k belongs to step index k; sampling runs from k = num_steps − 1 to 0.

    `timestep` is the original timestep t that the network is told, `alpha_bar` ᾱ_t. The posterior q(z_{k−1} | z_k, z_0)
    has mean `mean_x0`·z_0 + `mean_z`·z_k and log variance `log_variance_small`; `log_variance_large` is log β_k, the
    other end of the range in which a network may learn its variance. `extrapolate` is the weight of the change of ẑ_0
    since the step before, by which a solver of second order goes on; 0 in DDPM.
    """

    timestep: tuple[int, ...]
    alpha_bar: tuple[float, ...]
    mean_x0: tuple[float, ...]
    mean_z: tuple[float, ...]
    log_variance_small: tuple[float, ...]
    log_variance_large: tuple[float, ...]
    extrapolate: tuple[float, ...]

    @property
    def num_steps(self) -> int:
        return len(self.timestep)


def ddpm_schedule(
    num_steps: int = 50, num_train_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
) -> Schedule:
    """The schedule of `num_steps` respaced steps of a DDPM with linear β.

    50 of 1000 steps use the timesteps 0, 20, 41, 61, …, 979, 999. All numbers are computed in float64. The variance of
    the last step (k = 0), which is zero, is replaced by that of k = 1 in the logarithm, as guided-diffusion does.

    Raises UsageError unless 2 ≤ num_steps ≤ num_train_steps.
    Source: Ho et al. 2020, Eq. 6–7; Nichol & Dhariwal 2021, section 4 (respacing).
    """
    if not 2 <= num_steps <= num_train_steps:
        raise UsageError(f"steps must be between 2 and {num_train_steps}, not {num_steps}")
    timestep = np.linspace(0, num_train_steps - 1, num_steps).round().astype(int)
    alpha_bar = np.cumprod(1 - np.linspace(beta_start, beta_end, num_train_steps))[timestep]
    alpha_bar_previous = np.append(1.0, alpha_bar[:-1])
    beta = 1 - alpha_bar / alpha_bar_previous
    variance = beta * (1 - alpha_bar_previous) / (1 - alpha_bar)
    return Schedule(
        timestep=tuple(timestep.tolist()),
        alpha_bar=tuple(alpha_bar.tolist()),
        mean_x0=tuple((beta * np.sqrt(alpha_bar_previous) / (1 - alpha_bar)).tolist()),
        mean_z=tuple(((1 - alpha_bar_previous) * np.sqrt(1 - beta) / (1 - alpha_bar)).tolist()),
        log_variance_small=tuple(np.log(np.append(variance[1], variance[1:])).tolist()),
        log_variance_large=tuple(np.log(beta).tolist()),
        extrapolate=(0.0,) * num_steps,
    )


def dpm_schedule(num_steps: int = 20) -> Schedule:
    """The schedule of SDE-DPM-Solver++(2M): DDPM's steps, whose posterior mean is the solver's step of first order, and
    the weights of second order, h_k / 2 h_{k+1} with h_k the rise of the log signal-to-noise ratio λ in step k.

    The first step knows no earlier one, and the last goes to ẑ_0 itself (h_0 is infinite): both are of first order.

    Raises UsageError unless 2 ≤ num_steps ≤ 1000.
    Source: Lu et al. 2022, "DPM-Solver++", Algorithm 2 and Appendix on SDE solvers.
    """
    schedule = ddpm_schedule(num_steps)
    alpha_bar = np.array(schedule.alpha_bar)
    rise = -np.diff(0.5 * np.log(alpha_bar / (1 - alpha_bar)))  # of the steps k = 1, …, num_steps − 1
    return replace(schedule, extrapolate=(0.0, *(rise[:-1] / (2 * rise[1:])).tolist(), 0.0))
