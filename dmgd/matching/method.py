"""What methods are made of: settings, and what these put into the sampler.

A method is a dataclass of its settings, of which the command line makes options, and answers what sampling asks: the
conditions (semantic matching) and the guide (distribution matching). What is left to the data is settled by when
something becomes decided on the way from noise to image.

Soft labels and guides have modules of their own, imported when images are made, so that `--help` needs no torch; what
is Any here has their types.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Literal, TypeVar

from dmgd.config import Pair, check_settings, setting
from dmgd.errors import UsageError

MIN_POINTS = 10
ALL_CHANNELS = 0
STEPS = 50
LATEST = 0.5  # the noise, in units of the clean latent, at which labels are plain however near the classes are
VISIBLE = 0.5
EVEN = 1.0
CLEAR = 2.0

AnyMethod = TypeVar("AnyMethod", bound="Method")
AnySampled = TypeVar("AnySampled", bound="Sampled")


@dataclass(frozen=True, kw_only=True)
class Method:
    """What all methods have: a name, settings, and what these ask of the statistics."""

    name: ClassVar[str]

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def matching_order(self) -> Literal["independent", "joint", "greedy"]:
        """How the images of a class depend on each other: not at all, made as a set, or one after another."""
        return "independent"

    def support_points(self, ipc: int) -> int:
        """K, the support points of a class that `ipc` images need."""
        return MIN_POINTS

    def with_points(self: AnyMethod, k: int) -> AnyMethod:
        """The method for statistics that have `k` support points per class; itself if it needs its own number."""
        return self

    @property
    def uses_points(self) -> bool:
        """Whether the support points have any effect."""
        return False

    def with_settings(self: AnyMethod, **given: Any) -> AnyMethod:
        """The method with those settings that are not None.

        Raises UsageError for a value out of range, or a setting that would have no effect.
        """
        given = {name: value for name, value in given.items() if value is not None}
        facts = {one.name: one.metadata for one in fields(self)}
        for name in given:
            if name not in facts:
                raise UsageError(f"{name.replace('_', '-')} has no effect: {self.name} has no such setting")
            if (needed := facts[name].get("needs")) and not given.get(needed, getattr(self, needed)):
                raise UsageError(f"{name.replace('_', '-')} has no effect: there is no {needed} matching in this run")
        return replace(self, **given)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class Sampled(Method):
    """A method whose images are sampled from the prior, with the settings of sampling; by itself `dit`, the prior's
    plain samples.

    `guidance_scale`, `guided_channels`, `solver` and `steps`: None takes the prior's own, ALL_CHANNELS guides all. Step
    indices are those of `steps`, or of STEPS where it is None. `guidance_interval`: None is all steps.
    """

    name: ClassVar[str] = "dit"
    uniform_label_noise: ClassVar[bool] = False

    guidance_scale: float | None = setting(
        None, "1 + ω, classifier-free guidance; 1 is none.", at_least=0, unset="the prior's own"
    )
    guidance_interval: Pair | None = setting(
        None,
        "Step indices with classifier-free guidance.",
        of_steps=True,
        metavar="FIRST LAST",
        unset="all",
    )
    solver: Literal["ddpm", "dpm++", "ddim"] | None = setting(
        None, "ddpm, dpm++ (second order, for fewer steps) or ddim (deterministic).", unset="the prior's own"
    )
    steps: int | None = setting(None, "Sampling steps.", at_least=2, at_most=1000, unset="the prior's own, 50 for most")
    guided_channels: int | None = setting(None, at_least=ALL_CHANNELS)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self._step_pairs():
            first, last = getattr(self, name)
            if first >= (steps := self.steps or STEPS):
                raise UsageError(
                    f"{name.replace('_', '-')} {first},{last} has no effect: the steps are 0 to {steps - 1}"
                )

    def settled(self: AnySampled, schedule: Any, statistics: Any, ipc: int) -> AnySampled:
        """The method with everything that it leaves to the data, from Schedule, Statistics and `ipc`."""
        method, alpha_bar = self, [step.alpha_bar for step in schedule]
        for one in reversed(fields(self)):  # a rule may ask for settings declared after its own
            rule, needed = one.metadata.get("by_data"), one.metadata.get("needs")
            if rule and getattr(method, one.name) is None and (not needed or getattr(method, needed)):
                method = replace(method, **{one.name: rule(method, alpha_bar, statistics, ipc)})
        return method

    def conditions(self, label: Any, null: Any, other: Any, noise: Any) -> Callable[..., Any]:
        """The Conditions of a batch: of its classes `label`, of no class, of an `other` class, and label noise."""
        from dmgd.matching.soft_labels import plain_labels

        return plain_labels(label, null)

    def guide(self, statistics: Any, finished: Any, images: Sequence[int]) -> Callable[..., Any]:
        """The Guide of a grid of classes × `images` (indices within the class), from the Statistics of these classes
        and the latents (c, m, d) of their finished images."""
        from dmgd.diffusion.sampler import unguided

        return unguided

    def with_settings(self: AnySampled, **given: Any) -> AnySampled:
        """See `Method.with_settings`; in another number of steps, its step indices move along."""
        steps = given.get("steps")
        return super(Sampled, self.respaced(steps) if steps else self).with_settings(**given)

    def respaced(self: AnySampled, steps: int) -> AnySampled:
        """The method in another number of steps: what acts from one step index to another does so at the same noise."""
        share = (steps - 1) / ((self.steps or STEPS) - 1)
        pairs = {name: [round(index * share) for index in getattr(self, name)] for name in self._step_pairs()}
        moved: dict[str, Any] = {name: (first, max(last, first + 1)) for name, (first, last) in pairs.items()}
        return replace(self, steps=steps, **moved)

    def _step_pairs(self) -> list[str]:
        return [one.name for one in fields(self) if one.metadata.get("of_steps") and getattr(self, one.name)]


def hidden_from(alpha_bar: Sequence[float], deviation: float) -> int:
    """The last step index, counted from the noise, at which noise still hides a deviation in every coordinate: σ/α, the
    noise in units of the clean latent, is at least as large. `alpha_bar` falls with the step index; its own last if it
    never does.

    What a step does to an image before then, the prior can still make a picture of.
    """
    hidden = [k for k, a in enumerate(alpha_bar) if (1 - a) ** 0.5 >= deviation * a**0.5]
    return min(hidden, default=len(alpha_bar) - 1)


def speciation_step(alpha_bar: Sequence[float], distance: float, deviations: float) -> int:
    """The first step index, counted from the noise, at which two latents `distance` apart can be distinguished.

    In z_t they lie √ᾱ_t·distance apart under noise of deviation √(1−ᾱ_t): each is √ᾱ_t·distance/2 from the middle,
    which must be at least `deviations` times the noise. At VISIBLE (½) their order begins to show, at EVEN (1) signal
    and noise are equal, at CLEAR (2) an image has chosen between them. 0 if they never can. `alpha_bar` falls with the
    step index.
    Source: the speciation time of Biroli et al. 2024, "Dynamical regimes of diffusion models", for two points.
    """
    clear = [k for k, a in enumerate(alpha_bar) if a**0.5 * distance / 2 >= deviations * (1 - a) ** 0.5]
    return max(clear, default=0)


def stages_by_data(method: "SoftLabels", alpha_bar: Sequence[float], statistics: Any, ipc: int) -> Pair:
    """Soft labels while the classes are beginning to show, plain ones from when they are clear."""
    if not statistics.between:  # of one class, or of classes that are the same: always plain
        return len(alpha_bar) - 1, len(alpha_bar)
    show, clear = (speciation_step(alpha_bar, statistics.between, deviations) for deviations in (VISIBLE, CLEAR))
    clear = max(clear, hidden_from(alpha_bar, LATEST))
    return clear, max(show, clear + 1)


def window_by_data(method: "DistributionMatching", alpha_bar: Sequence[float], statistics: Any, ipc: int) -> Pair:
    """From when the modes of a class begin to show to the end."""
    begins = speciation_step(alpha_bar, statistics.within, VISIBLE)
    return 0, max(1, begins if statistics.within else len(alpha_bar) - 1)  # one support point shows no modes


@dataclass(frozen=True, kw_only=True)
class SoftLabels(Sampled):
    """Semantic matching by soft labels in the paper's form. `stages` (refine until, explore from): labels are soft from
    the last step down and plain from the first on; None puts them where the classes begin to show and are clear."""

    semantic: bool = setting(True, "Without semantic matching: plain labels.")
    beta_n: float = setting(0.06, "β_n, noise in the soft label.", at_least=0, needs="semantic")
    beta_s: float = setting(0.01, "β_s, another class in the soft label.", at_least=0, needs="semantic")
    stages: Pair | None = setting(
        None,
        "Step indices of the soft label's stages.",
        of_steps=True,
        metavar="REFINE EXPLORE",
        needs="semantic",
        by_data=stages_by_data,
    )

    def conditions(self, label: Any, null: Any, other: Any, noise: Any) -> Callable[..., Any]:
        if not self.semantic:
            return super().conditions(label, null, other, noise)
        assert self.stages  # they are settled
        return self._soft_labels()(
            label, null, other, noise, stages=self.stages, beta_s=self.beta_s, beta_n=self.beta_n
        )

    def _soft_labels(self) -> Callable[..., Any]:
        from dmgd.matching.soft_labels import paper_soft_labels

        return paper_soft_labels


@dataclass(frozen=True, kw_only=True)
class DistributionMatching(Sampled, ABC):
    """A method whose images are to cover the data's distribution, which `k` support points per class stand for.

    `window` (first, last) are the step indices in which it acts; None begins where the modes of a class begin to show:
    before, x̂_0 does not depend on the mode that an image will have. `k` None takes as many points as IPC needs.
    """

    distribution: bool = setting(True, "Without distribution matching.")
    window: Pair | None = setting(
        None,
        "Step indices of distribution matching.",
        of_steps=True,
        metavar="FIRST LAST",
        needs="distribution",
        by_data=window_by_data,
    )
    k: int | None = setting(
        None, "K, support points per class.", at_least=1, needs="distribution", unset="by the number of images"
    )

    @property
    def uses_points(self) -> bool:
        return self.distribution

    def guide(self, statistics: Any, finished: Any, images: Sequence[int]) -> Callable[..., Any]:
        if not self.distribution:
            return super().guide(statistics, finished, images)
        matching, window = self._matching(statistics, finished, images), self.window

        def within_window(step: Any, x0: Any, sigma: Any) -> tuple[Any, Any]:
            if window and not window[0] <= step.index <= window[1]:
                return x0, None
            return matching(step, x0, sigma)

        return within_window

    @abstractmethod
    def _matching(self, statistics: Any, finished: Any, images: Sequence[int]) -> Callable[..., Any]:
        """The Guide within the window."""


@dataclass(frozen=True, kw_only=True)
class OptimalTransport(SoftLabels, DistributionMatching):
    """The images of a class matched with its support points by optimal transport, together or one after another."""

    order: Literal["joint", "greedy"] = setting(
        "joint", "How images of a class are matched: joint, or greedy, one after another.", needs="distribution"
    )

    @property
    def matching_order(self) -> Literal["independent", "joint", "greedy"]:
        return self.order if self.distribution else "independent"


def settled_by_data(asked: Sampled, settled: Sampled, schedule: Any) -> str:
    """What `asked` leaves open and the data have settled, as options that one could have given."""
    options = []
    for one in fields(settled):
        value = getattr(settled, one.name)
        if one.metadata.get("help") and getattr(asked, one.name) is None and value is not None:
            shown = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
            if one.metadata.get("of_steps"):
                first, last = (schedule[min(index, len(schedule) - 1)].timestep for index in value)
                shown = f"{value[0]} {value[1]} (t {first:g} to {last:g})"
            options.append(f"--{one.name.replace('_', '-')} {shown}")
    return ", ".join(options)
