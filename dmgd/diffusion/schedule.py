"""The noise schedule: what every step needs, respaced to fewer steps than the prior was trained with.

Sampling runs in variance-preserving coordinates z = α x_0 + σ ε with α² + σ² = 1.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from dmgd.errors import UsageError, unknown_choice

SOLVERS = ("ddpm", "dpm++", "ddim")


@dataclass(frozen=True)
class Step:
    """One step of sampling, from z_k to z_{k−1}; `index` k counts down to 0.

    `timestep` is the prior's own time, an input of its network, `alpha_bar` ᾱ = α². The step's mean is `mean_x0`·x_0 +
    `mean_z`·z_k; in DDPM that of the posterior q(z_{k−1} | z_k, x_0), whose log variance is `log_variance_small`.
    `log_variance_large` is log β_k, the other end of the range in which a network may learn its variance. `extrapolate`
    is the weight of the change of x_0 since the step before, by which a solver of second order goes on; 0 in others.
    Noise of that variance is added unless `deterministic`.
    """

    index: int
    timestep: int | float
    alpha_bar: float
    mean_x0: float
    mean_z: float
    log_variance_small: float
    log_variance_large: float
    extrapolate: float = 0.0
    deterministic: bool = False

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


def zero_terminal_snr(alpha_bar: Float64[ndarray, " t"]) -> Float64[ndarray, " t"]:
    """ᾱ shifted and scaled so that the last timestep is pure noise. Source: Lin et al. 2023, "Common Diffusion Noise
    Schedules and Sample Steps are Flawed", Algorithm 1."""
    alpha = np.sqrt(alpha_bar)
    return ((alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])) ** 2


def respaced(training: Float64[ndarray, " t"], num_steps: int = 50, solver: str = "ddpm") -> Schedule:
    """The schedule of `num_steps` of the timesteps of training, evenly from the first to the last: 50 of 1000 steps use
    the timesteps 0, 20, 41, 61, …, 979, 999. Source: Nichol & Dhariwal 2021, section 4 (respacing).

    Raises UsageError unless 2 ≤ num_steps ≤ the steps of training, and for an unknown solver.
    """
    check_steps(num_steps, len(training))
    timestep = np.linspace(0, len(training) - 1, num_steps).round().astype(int)
    return through(timestep, training[timestep], solver)


def check_steps(num_steps: int, most: int) -> None:
    """Raise UsageError unless there are at least two steps, and `most` at most."""
    if not 2 <= num_steps <= most:
        raise UsageError(f"steps must be between 2 and {most}, not {num_steps}")


def through(timestep: ndarray, alpha_bar: Float64[ndarray, " k"], solver: str) -> Schedule:
    """The schedule through these times of the prior and noise levels: ᾱ < 1 falls with k, to 0 if it starts from pure
    noise. All numbers are computed in float64.

    "ddpm": the posterior q(z_{k−1} | z_k, x_0). The variance of the last step (k = 0), which is zero, is replaced by
    that of k = 1 in the logarithm, as guided-diffusion does.

    "dpm++" is SDE-DPM-Solver++(2M): DDPM's posterior mean is its step of first order, and the weights of second order
    are h_k / 2 h_{k+1} with h_k the rise of the log signal-to-noise ratio λ in step k. The first step knows no earlier
    one, and the last goes to x_0 itself (h_0 is infinite): both are of first order.

    "ddim" is deterministic: z_{k−1} = α_{k−1} x_0 + σ_{k−1} ε with the ε that x_0 leaves of z_k. Of a flow it is the
    step of Euler's method. Its variances are those of "ddpm", as a scale for guides.

    Raises UsageError for an unknown solver.
    Source: Ho et al. 2020, Eq. 6–7; Lu et al. 2022, "DPM-Solver++", Algorithm 2 and Appendix on SDE solvers; Song et
    al. 2021, "Denoising Diffusion Implicit Models", Eq. 12 with η = 0.
    """
    if solver not in SOLVERS:
        raise unknown_choice("solver", solver, SOLVERS)
    alpha_bar_previous = np.append(1.0, alpha_bar[:-1])
    beta = 1 - alpha_bar / alpha_bar_previous
    variance = beta * (1 - alpha_bar_previous) / (1 - alpha_bar)
    mean_x0 = beta * np.sqrt(alpha_bar_previous) / (1 - alpha_bar)
    mean_z = (1 - alpha_bar_previous) * np.sqrt(1 - beta) / (1 - alpha_bar)
    extrapolate = np.zeros(len(alpha_bar))
    if solver == "dpm++":
        with np.errstate(divide="ignore"):  # λ of pure noise is −∞: the step after it is of first order, too
            rise = -np.diff(0.5 * np.log(alpha_bar / (1 - alpha_bar)))  # of the steps k = 1, …
        extrapolate[1:-1] = rise[:-1] / (2 * rise[1:])
    elif solver == "ddim":
        mean_z = np.sqrt((1 - alpha_bar_previous) / (1 - alpha_bar))
        mean_x0 = np.sqrt(alpha_bar_previous) - mean_z * np.sqrt(alpha_bar)
    columns = (
        timestep,
        alpha_bar,
        mean_x0,
        mean_z,
        np.log(np.append(variance[1], variance[1:])),
        np.log(beta),
        extrapolate,
        np.full(len(alpha_bar), solver == "ddim"),
    )
    return tuple(Step(k, *row) for k, row in enumerate(zip(*(column.tolist() for column in columns), strict=True)))
