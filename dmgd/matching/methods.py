"""A method is two small pure pieces put into the one sampler: a condition (labels) and a shift (distribution)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from dmgd.config import Method
from dmgd.diffusion.sampler import Condition, Shift
from dmgd.diffusion.schedule import Schedule, ddpm_schedule, dpm_schedule
from dmgd.matching.barycentric import barycentric_projection
from dmgd.matching.semantic import paper_certainty, paper_label, released_pair
from dmgd.matching.span import span_of, within
from dmgd.matching.transport import loss_and_gradient, sphere_cost
from dmgd.matching.window import CLEAR, VISIBLE, decided_at, hidden_from
from dmgd.statistics.file import Statistics
from dmgd.statistics.spread import Spread

Label = Float[Tensor, "b g e"]

LabelNoise = Callable[[int], Float[Tensor, "b 2 g e"]]
"""Step index k → the noise of the conditional and the null label embedding, Gaussian or uniform by method."""


def schedule_of(method: Method) -> Schedule:
    """The steps of the method's solver."""
    return {"ddpm": ddpm_schedule, "dpm++": dpm_schedule}[method.solver](method.steps)


def placed(method: Method, schedule: Schedule, statistics: Statistics) -> Method:
    """The method with the window, the stages and the detail that it leaves to the data, as far as they act in it.

    Distribution matching acts from where the modes of a class begin to show: before, ẑ_0 tells nothing of the mode that
    an image will have. A mean of pixels is a picture, and steps lead there to the end. A mean of an autoencoder's
    latents decodes as fog: there images keep their detail, and steps end while noise still hides what sets an image
    apart from its support point. Labels are soft until the classes begin to show and plain once they are clear.
    """
    if method.distribution == "barycentric" and method.keep_detail is None:
        method = replace(method, keep_detail=not statistics.of_pixels)
    if method.window is None and method.distribution != "none":
        last = max(1, decided_at(schedule.alpha_bar, statistics.within, VISIBLE))
        first = hidden_from(schedule.alpha_bar, statistics.residual) if method.keep_detail else 0
        method = replace(method, window=(min(first, last - 1), last))
    if method.stages is None and method.semantic != "none":
        classes_show, classes_clear = (
            decided_at(schedule.alpha_bar, statistics.between, deviations) for deviations in (VISIBLE, CLEAR)
        )
        method = replace(method, stages=(classes_clear, max(classes_show, classes_clear + 1)))
    return method


def placement_notes(asked: Method, settled: Method) -> list[str]:
    """Where the data put the window and the stages that `asked` leaves to it, one line each."""
    timestep, notes = schedule_of(settled).timestep, []
    if settled.window != asked.window and settled.window:
        first, last = settled.window
        notes.append(f"transport acts from step {last} (t {timestep[last]}) on: there the modes of a class show")
        if settled.keep_detail:
            notes.append(
                f"transport ends with step {first} (t {timestep[first]}): from there on noise no longer hides what "
                "sets an image apart from a mean, and the prior makes its detail"
            )
    if settled.stages != asked.stages and settled.stages:
        clear = settled.stages[0]
        notes.append(f"labels are soft until step {clear} (t {timestep[clear]}): there the classes are clear")
    return notes


def make_condition(
    method: Method, schedule: Schedule, label: Label, null_label: Label, other: Label, noise: LabelNoise
) -> Condition:
    """What the network is told at every step: `label` f(y), or a soft label between it, `other` f(y*) and `noise`."""
    low, high = method.stages or (0, schedule.num_steps)

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
        if not self.method.acts_at(k):
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


@dataclass
class BarycentricShift:
    """ẑ_0 replaced by ẑ_0 + ρ P (T(ẑ_0) − ẑ_0) in the posterior mean, inside the window.

    The batch is a grid of c classes × n images, which are matched together with the m finished ones of each class,
    `frozen`. P projects on the directions in which the support points differ, if the method keeps the detail of its
    images, else it is the identity. With `spread`, T(ẑ_0) varies as the images of the class do, without it as means of
    them. `losses` keeps W₂² of every class at every step.
    """

    schedule: Schedule
    support: Float[Tensor, "c k d"]
    mass: Float[Tensor, "c k"]
    spread: Spread | None
    frozen: Float[Tensor, "c m d"]
    method: Method
    losses: dict[int, Float[Tensor, " c"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._span = span_of(self.support, self.mass) if self.method.keep_detail else None

    def __call__(self, k: int, x0: Tensor, sigma: Tensor) -> Tensor | None:
        if not self.method.acts_at(k):
            return None
        images = x0.reshape(len(self.support), -1, self.support.shape[-1])
        together = torch.cat([self.frozen, images], dim=1)
        target, self.losses[k] = barycentric_projection(together, self.support, self.mass, self.spread)
        step = target[:, self.frozen.shape[1] :] - images
        if self._span is not None:
            step = within(step, self._span)
        return self.schedule.mean_x0[k] * self.method.rho * step.reshape(x0.shape)


def mode_shift(method: Method, modes: Float[Tensor, "b d"]) -> Shift:
    """MGD³'s mode guidance: λ σ_k (m − ẑ_0) towards the image's own mode m (a k-means centre), inside the window.

    Source: Chan-Santiago et al. 2025, "MGD³: Mode-Guided Dataset Distillation".
    """

    def shift(k: int, x0: Tensor, sigma: Tensor) -> Tensor | None:
        return method.rho * sigma * (modes.reshape(x0.shape) - x0) if method.acts_at(k) else None

    return shift


def make_shift(
    method: Method,
    schedule: Schedule,
    statistics: Statistics,
    frozen: Float[Tensor, "c m d"],
    images: Sequence[int],
) -> Shift:
    """How distribution matching moves the posterior mean of a grid of classes × `images` (indices within the class).
    `statistics` are those of these classes."""
    support, mass = statistics.support, statistics.mass
    if method.distribution == "barycentric":
        spread = Spread.of(support, mass, statistics.spread, statistics.count)
        return BarycentricShift(schedule, support, mass, spread if method.keep_spread else None, frozen, method)
    if method.distribution in ("paper", "released"):
        return TransportShift(schedule, support, mass, frozen, method, times_sigma=method.distribution == "released")
    if method.distribution == "mgd3":
        # A class of fewer different images than IPC has fewer centres: they are used again in turn.
        available = (mass > 0).sum(1)
        chosen = torch.stack([s[torch.tensor(images) % n] for s, n in zip(support, available.tolist(), strict=True)])
        return mode_shift(method, chosen.flatten(0, 1))
    return lambda k, x0, sigma: None
