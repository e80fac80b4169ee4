"""The noise schedule: what every step needs, respaced to fewer steps than the prior was trained with.

Sampling runs in variance-preserving coordinates z = α x_0 + σ ε with α² + σ² = 1.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from dmgd.errors import UsageError, unknown_choice

SOLVERS = ("ddpm", "dpm++")


@dataclass(frozen=True)
class Step:
    """One step of sampling, from z_k to z_{k−1}; `index` k counts down to 0.

    `timestep` is the prior's own time, an input of its network, `alpha_bar` ᾱ = α². The posterior
    q(z_{k−1} | z_k, x_0) has mean `mean_x0`·x_0 + `mean_z`·z_k and log variance `log_variance_small`;
    `log_variance_large` is log β_k, the other end of the range in which a network may learn its variance. `extrapolate`
    is the weight of the change of x_0 since the step before, by which a solver of second order goes on; 0 in DDPM.
    """

    index: int
    timestep: int | float
    alpha_bar: float
    mean_x0: float
    mean_z: float
    log_variance_small: float
    log_variance_large: float
    extrapolate: float = 0.0

    @property
    def alpha(self) -> float:
        return self.alpha_bar**0.5

    @property
    def sigma(self) -> float:
        return (1 - self.alpha_bar) ** 0.5


Schedule = tuple[Step, ...]
"""The step of index k at k: sampling goes through it in reverse."""


def training_alpha_bar(
    kind: str = "linear", num_train_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
) -> Float64[ndarray, " t"]:
    """ᾱ of every timestep of training. `kind` is diffusers' name of the β schedule: linear, scaled_linear (Stable
    Diffusion's) or squaredcos_cap_v2 (the cosine of Nichol & Dhariwal 2021, Eq. 17). Raises UsageError for another."""
    if kind == "linear":
        beta = np.linspace(beta_start, beta_end, num_train_steps)
    elif kind == "scaled_linear":
        beta = np.linspace(beta_start**0.5, beta_end**0.5, num_train_steps) ** 2
    elif kind == "squaredcos_cap_v2":
        share = np.arange(num_train_steps + 1) / num_train_steps
        cosine = np.cos((share + 0.008) / 1.008 * np.pi / 2) ** 2
        beta = np.minimum(1 - cosine[1:] / cosine[:-1], 0.999)
    else:
        raise UsageError(f"the β schedule {kind!r} is not known (linear, scaled_linear, squaredcos_cap_v2)")
    return np.cumprod(1 - beta)


def respaced(training: Float64[ndarray, " t"], num_steps: int = 50, solver: str = "ddpm") -> Schedule:
    """The schedule of `num_steps` of the timesteps of training, evenly from the first to the last.

    50 of 1000 steps use the timesteps 0, 20, 41, 61, …, 979, 999. All numbers are computed in float64. The variance of
    the last step (k = 0), which is zero, is replaced by that of k = 1 in the logarithm, as guided-diffusion does.

    The solver "dpm++" is SDE-DPM-Solver++(2M): DDPM's posterior mean is its step of first order, and the weights of
    second order are h_k / 2 h_{k+1} with h_k the rise of the log signal-to-noise ratio λ in step k. The first step
    knows no earlier one, and the last goes to x_0 itself (h_0 is infinite): both are of first order.

    Raises UsageError unless 2 ≤ num_steps ≤ the steps of training.
    Source: Ho et al. 2020, Eq. 6–7; Nichol & Dhariwal 2021, section 4 (respacing); Lu et al. 2022, "DPM-Solver++",
    Algorithm 2 and Appendix on SDE solvers.
    """
    if not 2 <= num_steps <= len(training):
        raise UsageError(f"steps must be between 2 and {len(training)}, not {num_steps}")
    timestep = np.linspace(0, len(training) - 1, num_steps).round().astype(int)
    alpha_bar = training[timestep]
    alpha_bar_previous = np.append(1.0, alpha_bar[:-1])
    beta = 1 - alpha_bar / alpha_bar_previous
    variance = beta * (1 - alpha_bar_previous) / (1 - alpha_bar)
    extrapolate = np.zeros(num_steps)
    if solver not in SOLVERS:
        raise unknown_choice("solver", solver, SOLVERS)
    if solver == "dpm++":
        rise = -np.diff(0.5 * np.log(alpha_bar / (1 - alpha_bar)))  # of the steps k = 1, …, num_steps − 1
        extrapolate[1:-1] = rise[:-1] / (2 * rise[1:])
    columns = (
        timestep,
        alpha_bar,
        beta * np.sqrt(alpha_bar_previous) / (1 - alpha_bar),
        (1 - alpha_bar_previous) * np.sqrt(1 - beta) / (1 - alpha_bar),
        np.log(np.append(variance[1], variance[1:])),
        np.log(beta),
        extrapolate,
    )
    return tuple(Step(k, *row) for k, row in enumerate(zip(*(column.tolist() for column in columns), strict=True)))
