"""A method is two small pure pieces put into the one sampler: a condition (labels) and a shift (distribution)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from dmgd.config import Method
from dmgd.diffusion.sampler import Condition, Shift
from dmgd.diffusion.schedule import Schedule
from dmgd.matching.semantic import paper_certainty, paper_label, released_pair
from dmgd.matching.transport import loss_and_gradient, sphere_cost

Label = Float[Tensor, "b g e"]

LabelNoise = Callable[[int], Float[Tensor, "b 2 g e"]]
"""Step index k → the noise of the conditional and the null label embedding, Gaussian or uniform by method."""


def make_condition(
    method: Method, schedule: Schedule, label: Label, null_label: Label, other: Label, noise: LabelNoise
) -> Condition:
    """What the network is told at every step: `label` f(y), or a soft label between it, `other` f(y*) and `noise`."""
    low, high = method.stages

    def plain(k: int) -> tuple[Label, Label]:
        return label, null_label

    def paper(k: int) -> tuple[Label, Label]:
        certainty = paper_certainty(k, explore_from=high, refine_until=low)
        if certainty == 1:
            return label, null_label
        soft = paper_label(label, other, noise(k)[:, 0], certainty, beta_s=method.beta_s, beta_n=method.beta_n)
        return soft, null_label

    def released(k: int) -> tuple[Label, Label]:
        t = schedule.timestep[k]
        if t < low:
            return label, null_label
        pair = torch.stack([label, null_label], dim=1)
        blend = released_pair(
            pair, other, noise(k), t, beta_s=method.beta_s, beta_n=method.beta_n, lower=low, upper=high
        )
        return blend[:, 0], blend[:, 1]

    return {"none": plain, "paper": paper, "released": released}[method.semantic]


def draws_uniform(method: Method) -> bool:
    """Whether the label noise is uniform on [0, 1), as in the released code, instead of Gaussian."""
    return method.semantic == "released"


@dataclass
class TransportShift:
    """−ρ times the gradient of L_OT with respect to z_t, through ẑ_0 only, inside the window.

    The batch is a grid of c classes × n images. `frozen` holds the m finished images of each class, which are matched
    together with the ones being made. With `times_sigma` the step is ρ σ_k, as in the released code. `losses` keeps
    L_OT of every class at every step.
    """

    schedule: Schedule
    support: Float[Tensor, "c k d"]
    mass: Float[Tensor, "c k"]
    frozen: Float[Tensor, "c m d"]
    method: Method
    times_sigma: bool
    losses: dict[int, Float[Tensor, " c"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._frozen_cost = sphere_cost(self.frozen, self.support)

    def __call__(self, k: int, x0: Tensor, sigma: Tensor) -> Tensor | None:
        first, last = self.method.window
        if not first <= k <= last:
            return None
        self.losses[k], gradient = loss_and_gradient(
            x0.reshape(len(self.support), -1, self.support.shape[-1]),
            self.support,
            self.mass,
            self._frozen_cost,
            epsilon=self.method.epsilon,
            iterations=self.method.sinkhorn_iterations,
        )
        # ∂ẑ_0/∂z_t = 1/√ᾱ_t while ε is held fixed.
        step = -self.method.rho / self.schedule.alpha_bar[k] ** 0.5 * gradient.reshape(x0.shape)
        return step * sigma if self.times_sigma else step


def mode_shift(method: Method, modes: Float[Tensor, "b d"]) -> Shift:
    """MGD³'s mode guidance: λ σ_k (m − ẑ_0) towards the image's own mode m (a k-means centre), inside the window.

    Source: Chan-Santiago et al. 2025, "MGD³: Mode-Guided Dataset Distillation".
    """
    first, last = method.window

    def shift(k: int, x0: Tensor, sigma: Tensor) -> Tensor | None:
        return method.rho * sigma * (modes.reshape(x0.shape) - x0) if first <= k <= last else None

    return shift


def make_shift(
    method: Method,
    schedule: Schedule,
    support: Float[Tensor, "c k d"],
    mass: Float[Tensor, "c k"],
    frozen: Float[Tensor, "c m d"],
    images: Sequence[int],
) -> Shift:
    """How distribution matching moves the posterior mean of a grid of classes × `images` (indices within the class)."""
    if method.distribution in ("paper", "released"):
        return TransportShift(schedule, support, mass, frozen, method, times_sigma=method.distribution == "released")
    if method.distribution == "mgd3":
        # A class of fewer different images than IPC has fewer centres: they are used again in turn.
        available = (mass > 0).sum(1)
        chosen = torch.stack([s[torch.tensor(images) % n] for s, n in zip(support, available.tolist(), strict=True)])
        return mode_shift(method, chosen.flatten(0, 1))
    return lambda k, x0, sigma: None
