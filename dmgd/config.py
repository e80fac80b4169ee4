"""What a user can choose, with every default once. Standard library only."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from dmgd.errors import UsageError, unknown_choice

Semantic = Literal["none", "paper", "released"]
Distribution = Literal["none", "barycentric", "paper", "released", "mgd3"]
Order = Literal["greedy", "joint", "independent"]
Solver = Literal["ddpm", "dpm++"]


PAIRS = ("stages", "window", "guidance_interval")
MAX_STEPS = 1000


def _at_least(name: str, value: float | None, least: float) -> None:
    if value is not None and not value >= least:
        raise UsageError(f"{name} must be at least {least}, not {value}")


def _option(name: str) -> str:
    """The name of a setting as a user types it."""
    return name.replace("_", "-")


@dataclass(frozen=True)
class Method:
    """How images are guided while they are sampled. Symbols as in the paper; see the table in docs/methods.md.

    `guidance_scale` 1 + ω and `guided_channels`: None takes the prior's own. `stages` (refine until, explore from) are
    step indices for the paper's soft labels, original timesteps for the released code's. `window` (first, last) are the
    step indices in which distribution matching acts. None places either where the statistics say. `rho` is ρ: the share
    of the way in [0, 1] that a barycentric step goes, the gradient's factor, or λ of mgd3. With `keep_spread`
    barycentric steps lead to means that vary as the images of the class do, else to bare means; with `keep_detail` they
    leave an image's detail to the prior, else they go wholly and to the end (None: it is kept where latents are not
    pixels). `k` support points a class (None: from IPC, see `DistillConfig.k`). `order`: one image of a class after
    another, all at once as a set, or each for itself. `solver` takes the steps: DDPM, or SDE-DPM-Solver++(2M) for fewer
    of them. `guidance_interval` (first, last) are the step indices with classifier-free guidance (None: all).
    """

    semantic: Semantic = "none"
    distribution: Distribution = "none"
    order: Order = "independent"
    guidance_scale: float | None = None
    guided_channels: int | None = None
    beta_n: float = 0.06
    beta_s: float = 0.01
    stages: tuple[int, int] | None = None
    window: tuple[int, int] | None = None
    rho: float = 0.5
    keep_spread: bool = True
    keep_detail: bool | None = None
    k: int | None = None
    epsilon: float = 0.1
    sinkhorn_iterations: int = 5
    steps: int = 50
    solver: Solver = "ddpm"
    guidance_interval: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _at_least("guidance scale", self.guidance_scale, 0)
        _at_least("beta-n", self.beta_n, 0)
        _at_least("beta-s", self.beta_s, 0)
        _at_least("rho", self.rho, 0)
        _at_least("k", self.k, 1)
        _at_least("sinkhorn iterations", self.sinkhorn_iterations, 1)
        _at_least("steps", self.steps, 2)
        if self.steps > MAX_STEPS:
            raise UsageError(
                f"steps must be at most {MAX_STEPS}, the timesteps of the noise schedule, not {self.steps}"
            )
        if self.epsilon <= 0:
            raise UsageError(f"epsilon must be above 0, not {self.epsilon}")
        if self.distribution == "barycentric" and self.rho > 1:
            raise UsageError(f"rho is the share of the way, between 0 and 1, not {self.rho}")
        if self.solver not in get_args(Solver):
            raise unknown_choice("solver", self.solver, get_args(Solver))
        for name in PAIRS:
            pair = getattr(self, name)
            if pair and not 0 <= pair[0] < pair[1]:
                raise UsageError(f"{_option(name)} must be two rising numbers from 0 up, not {pair[0]},{pair[1]}")
            if pair and pair[0] >= self.steps and name in self._step_indices:
                raise UsageError(
                    f"{_option(name)} {pair[0]},{pair[1]} has no effect: the steps are 0 to {self.steps - 1}"
                )

    @property
    def _step_indices(self) -> tuple[str, ...]:
        """The pairs that are step indices; the released code's stages are timesteps."""
        return tuple(name for name in PAIRS if name != "stages" or self.semantic != "released")

    def respaced(self, steps: int) -> "Method":
        """The method in another number of steps: what acts from one step index to another does so at the same noise."""
        share = (steps - 1) / (self.steps - 1)
        moved: dict[str, Any] = {}
        for name in self._step_indices:
            if pair := getattr(self, name):
                first, last = (round(index * share) for index in pair)
                moved[name] = (first, max(last, first + 1))
        return replace(self, steps=steps, **moved)

    def acts_at(self, k: int) -> bool:
        """Whether distribution matching acts at step index `k`."""
        return self.window is None or self.window[0] <= k <= self.window[1]


_PAPER = Method(semantic="paper", distribution="paper", order="greedy", stages=(25, 45), window=(30, 45), k=10)
METHODS: dict[str, Method] = {
    "dmgd": Method(semantic="paper", distribution="barycentric", order="joint"),
    "dmgd-paper": replace(_PAPER, guidance_scale=4.0),
    "dmgd-released": replace(
        _PAPER, semantic="released", distribution="released", guidance_scale=4.0, guided_channels=3, stages=(500, 900)
    ),
    "mgd3": Method(distribution="mgd3", window=(26, 49), rho=0.1),
    "dit": Method(),
}
DEFAULT_METHOD = "dmgd"
MIN_POINTS = 10


# The settings that have an effect, for each kind of matching.
_TRANSPORT = ("window", "rho", "k", "order")
_SOFT_LABEL = ("beta_n", "beta_s", "stages")
SETTINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "semantic": {"none": (), "paper": _SOFT_LABEL, "released": _SOFT_LABEL},
    "distribution": {
        "none": (),
        "barycentric": (*_TRANSPORT, "keep_detail"),
        "paper": (*_TRANSPORT, "epsilon", "sinkhorn_iterations"),
        "released": (*_TRANSPORT, "epsilon", "sinkhorn_iterations"),
        "mgd3": ("window", "rho", "k"),
    },
}


def method_named(name: str, *, semantic: bool = True, distribution: bool = True, **overrides: Any) -> Method:
    """The settings of the method `name`, without semantic or distribution matching if so asked, and with those
    `overrides` that are not None.

    Raises UsageError for an unknown name, a value out of range, or an override that would have no effect.
    """
    if name not in METHODS:
        raise unknown_choice("method", name, tuple(METHODS))
    method = METHODS[name]
    if not semantic:
        method = replace(method, semantic="none")
    if not distribution:
        method = replace(method, distribution="none", order="independent")
    given = {key: value for key, value in overrides.items() if value is not None}
    method = method.respaced(given.get("steps", method.steps))
    for what, kinds in SETTINGS.items():
        kind = getattr(method, what)
        if idle := [key for key in given if key not in kinds[kind] and any(key in names for names in kinds.values())]:
            why = f"there is no {what} matching" if kind == "none" else f"{what} matching is {kind}"
            raise UsageError(f"{_option(idle[0])} has no effect: {why} in this run")
    if given.get("order", "joint") not in ("joint", "greedy"):
        raise unknown_choice("order", given["order"], ("joint", "greedy"))
    return replace(method, **given)


@dataclass(frozen=True)
class StatisticsConfig:
    """What `fit-stats` computes: `k` support points a class by seeded k-means.

    `mirror` counts every image's mirror image, too. `max_bad` is the share of images that may be unreadable.
    """

    k: int = 10
    seed: int = 0
    mirror: bool = False
    max_bad: float = 0.01

    def __post_init__(self) -> None:
        _at_least("k", self.k, 1)
        if not 0 <= self.max_bad <= 1:
            raise UsageError(f"max-bad is a share between 0 and 1, not {self.max_bad}")


@dataclass(frozen=True)
class DistillConfig:
    """What `distill` computes: everything that the images depend on, apart from the data and the weights.

    `batch_size` is of a network call; None: as many images as suit the device. With `compile` the network is compiled.
    """

    ipc: int = 10
    seed: int = 0
    method_name: str = DEFAULT_METHOD
    method: Method = METHODS[DEFAULT_METHOD]
    batch_size: int | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        _at_least("ipc", self.ipc, 1)
        _at_least("batch size", self.batch_size, 1)

    @property
    def k(self) -> int:
        """Support points a class: the method's own number, or from IPC. A barycentric step needs about two for each
        image, so that the image stands for a part of the class and not for one point; mgd3 has one for each image."""
        by_ipc = {"barycentric": max(MIN_POINTS, 2 * self.ipc), "mgd3": self.ipc}
        return self.method.k or by_ipc.get(self.method.distribution, MIN_POINTS)

    def with_statistics_of(self, k: int) -> "DistillConfig":
        """The configuration that uses `k` support points, because there are statistics with as many, where its method
        does not ask for another number."""
        if k == self.k or self.method.k or self.method.distribution != "barycentric":
            return self
        return replace(self, method=replace(self.method, k=k))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "DistillConfig":
        method = dict(fields["method"])
        for pair in PAIRS:
            method[pair] = method[pair] and tuple(method[pair])
        return cls(**{**fields, "method": Method(**method)})


@dataclass(frozen=True)
class VerifyConfig:
    """What `verify` checks beside the records: `regenerate` images made again, from the statistics file `stats` or from
    statistics fitted again, whose pixels may be `tolerance` of 255 grey levels off, as another processor rounds; and
    the pixels against the file `lock`, or with `write_lock` to be such a file."""

    regenerate: int = 0
    tolerance: int = 2
    stats: Path | None = None
    lock: Path | None = None
    write_lock: Path | None = None
