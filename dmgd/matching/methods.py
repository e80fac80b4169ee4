"""The methods, each with its settings, by name. A new one is a class and an entry in METHODS."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

from dmgd.config import Pair, preset, setting
from dmgd.errors import UsageError, unknown_choice
from dmgd.matching.method import (
    ALL_CHANNELS,
    EVEN,
    MIN_POINTS,
    DistributionMatching,
    Method,
    OptimalTransport,
    Sampled,
    hidden_from,
    speciation_step,
    window_by_data,
)
from dmgd.matching.selections import RDED, Herding, KMeansReal, Random


def dmgd_window(method: "DMGD", alpha_bar: Sequence[float], statistics: Any, ipc: int) -> Pair:
    """From when the modes of a class begin to show, to the end, or until images would lose the detail that they keep.
    Where the norm is matched: from the noise, until the modes are as strong as it."""
    if method.match_norm:
        first, last = speciation_step(alpha_bar, statistics.within, EVEN), len(alpha_bar) - 1
    else:
        first, last = window_by_data(method, alpha_bar, statistics, ipc)
        first = hidden_from(alpha_bar, statistics.residual) if method.keep_detail else first
    return min(first, last - 1), last


def keep_detail_by_data(method: "DMGD", alpha_bar: Sequence[float], statistics: Any, ipc: int) -> bool:
    """Where means are blurs; but of pixels, networks learn most from a single image of a class if it is the mean. A
    greedy run may grow beyond its single image."""
    is_the_mean = statistics.of_pixels and ipc == 1 and method.order == "joint"
    return bool(statistics.blurs and not is_the_mean)


def match_norm_by_data(method: "DMGD", alpha_bar: Sequence[float], statistics: Any, ipc: int) -> bool:
    return bool(method.keep_detail) and ipc == 1 and method.order == "joint"


@dataclass(frozen=True, kw_only=True)
class DMGD(OptimalTransport):
    """Soft labels, and barycentric steps of the exact transport plan to targets that are matched to the class's
    covariance (`match_covariance`).

    Where a mean of images is a picture, as of digits, steps lead all the way to it, until the end. A mean of
    photographs, or of an autoencoder's latents, is a blur: with `keep_detail`, steps stay in the span of the support
    points and end while noise still hides the deviation of an image from its support point (None: if means are blurs,
    but the only image of a class in pixels is its mean).

    At last the images of a class get its mean features under untrained networks (`match_features`).

    With one image per class, the target is the mean of the class, and there is no covariance to match. With
    `match_norm` (None: for one image per class that keeps its detail) the target is the mean scaled to the norm of an
    image, and steps are not restricted to the span, but they end where the modes of the class are as strong as the
    noise: they select what is typical of the class, and the prior makes a picture of it.
    """

    name: ClassVar[str] = "dmgd"

    rho: float = setting(
        0.5, "ρ, step size of optimal transport, in [0, 1].", at_least=0, at_most=1, needs="distribution"
    )
    window: Pair | None = preset(OptimalTransport, "window", None, by_data=dmgd_window)
    match_covariance: bool = setting(True)
    match_features: bool = setting(
        True, "Give the images of a class its mean features under untrained networks.", needs="distribution"
    )
    match_norm: bool | None = setting(None, needs="distribution", by_data=match_norm_by_data)
    keep_detail: bool | None = setting(
        None,
        "Leave detail to the prior (yes), or move images all the way to means (no).",
        needs="distribution",
        by_data=keep_detail_by_data,
    )

    def support_points(self, ipc: int) -> int:
        """About two for each image, so that the image stands for a part of the class and not for one point."""
        return self.k or max(MIN_POINTS, 2 * ipc)

    def with_points(self, k: int) -> "DMGD":
        return self if self.k or not self.distribution else replace(self, k=k)

    def guide(self, statistics: Any, finished: Any, images: Sequence[int]) -> Callable[..., Any]:
        transport = super().guide(statistics, finished, images)
        if not (self.distribution and self.match_features):
            return transport
        from dmgd.matching.feature_means import feature_guide

        features = feature_guide(statistics.features, finished, are_pixels=statistics.of_pixels)

        def both(step: Any, x0: Any, sigma: Any) -> tuple[Any, Any]:
            moved, cost = transport(step, x0, sigma)
            return features(step, moved, sigma)[0], cost

        return both

    def _soft_labels(self) -> Callable[..., Any]:
        from dmgd.matching.soft_labels import null_soft_labels

        return null_soft_labels

    def _matching(self, statistics: Any, finished: Any, images: Sequence[int]) -> Callable[..., Any]:
        from dmgd.matching.barycentric import barycentric_guide, span_of
        from dmgd.matching.covariance import ClassCovariance

        support, mass, along, count = statistics.support, statistics.mass, statistics.covariance, statistics.count
        return barycentric_guide(
            support,
            mass,
            finished,
            rho=self.rho,
            covariance=ClassCovariance.of(support, mass, along, count) if self.match_covariance else None,
            norm=statistics.norm if self.match_norm else None,
            span=span_of(support, mass) if self.keep_detail and not self.match_norm else None,
        )


@dataclass(frozen=True, kw_only=True)
class DMGDPaper(OptimalTransport):
    """The paper's equations: soft labels, and gradient steps of entropic transport, one image after another."""

    name: ClassVar[str] = "dmgd-paper"
    times_sigma: ClassVar[bool] = False

    guidance_scale: float | None = preset(OptimalTransport, "guidance_scale", 4.0)
    guided_channels: int | None = preset(OptimalTransport, "guided_channels", ALL_CHANNELS)
    stages: Pair | None = preset(OptimalTransport, "stages", (25, 45))
    window: Pair | None = preset(OptimalTransport, "window", (30, 45))
    k: int | None = preset(OptimalTransport, "k", 10)
    order: Literal["joint", "greedy"] = preset(OptimalTransport, "order", "greedy")
    rho: float = setting(0.5, "ρ, factor of the transport loss's gradient.", at_least=0, needs="distribution")
    epsilon: float = setting(0.1, "ε, entropy of the transport plan.", above=0, needs="distribution")
    sinkhorn_iterations: int = setting(5, "Sinkhorn iterations.", at_least=1, needs="distribution")

    def support_points(self, ipc: int) -> int:
        return self.k or MIN_POINTS

    def _matching(self, statistics: Any, finished: Any, images: Sequence[int]) -> Callable[..., Any]:
        from dmgd.matching.sinkhorn import sinkhorn_guide

        return sinkhorn_guide(
            statistics.support,
            statistics.mass,
            finished,
            rho=self.rho,
            epsilon=self.epsilon,
            iterations=self.sinkhorn_iterations,
            times_sigma=self.times_sigma,
        )


@dataclass(frozen=True, kw_only=True)
class DMGDReleased(DMGDPaper):
    """The authors' released code, which guides three channels, blends both label embeddings, and steps by ρ σ."""

    name: ClassVar[str] = "dmgd-released"
    times_sigma: ClassVar[bool] = True
    uniform_label_noise: ClassVar[bool] = True

    guided_channels: int | None = preset(DMGDPaper, "guided_channels", 3)
    stages: Pair | None = setting(
        (500, 900), "Timesteps of the soft label.", needs="semantic", metavar="REFINE EXPLORE"
    )

    def settled(self, schedule: Any, statistics: Any, ipc: int) -> "DMGDReleased":
        if self.semantic and schedule[-1].timestep != 999:
            raise UsageError(
                f"dmgd-released blends labels by DiT's timesteps, 0 to 999; this prior's last is "
                f"{schedule[-1].timestep:g}; choose another --method, or --no-semantic"
            )
        return super().settled(schedule, statistics, ipc)

    def _soft_labels(self) -> Callable[..., Any]:
        from dmgd.matching.soft_labels import released_soft_labels

        return released_soft_labels


@dataclass(frozen=True, kw_only=True)
class MGD3(DistributionMatching):
    """MGD³: every image is guided to its own k-means centre."""

    name: ClassVar[str] = "mgd3"

    window: Pair | None = preset(DistributionMatching, "window", (26, 49))
    rho: float = setting(0.1, "λ, strength of mode guidance.", at_least=0, needs="distribution")

    def support_points(self, ipc: int) -> int:
        return self.k or ipc

    def _matching(self, statistics: Any, finished: Any, images: Sequence[int]) -> Callable[..., Any]:
        from dmgd.matching.modes import mode_guide

        return mode_guide(statistics.support, statistics.mass, images, strength=self.rho)


KINDS = (DMGD, DMGDPaper, DMGDReleased, MGD3, Sampled, Random, KMeansReal, Herding, RDED)
METHODS: dict[str, type[Method]] = {method.name: method for method in KINDS}
"""The registry of methods; `--help`, the command line's options and the list of known methods read it."""
DEFAULT_METHOD = DMGD.name


def method_named(name: str, **given: Any) -> Method:
    """The method `name` with those settings that are not None, see `Method.with_settings`. Raises UsageError, also for
    an unknown name."""
    method = _kind(name)()
    for key, value in given.items():
        if value is not None and not hasattr(method, key):
            owners = [other for other, kind in METHODS.items() if key in {one.name for one in fields(kind)}]
            where = f"; it is a setting of {', '.join(owners)}" if owners else ""
            raise UsageError(f"{key.replace('_', '-')} has no effect: {name} has no such setting{where}")
    return method.with_settings(**given)


def method_from_json(content: dict[str, Any]) -> Method:
    """The method of `Method.to_json`. Raises UsageError for one that is not known here, or has other settings."""
    settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
    kind = _kind(settings.pop("name"))
    if unknown := sorted(settings.keys() ^ {one.name for one in fields(kind)}):
        raise UsageError(f"the recorded settings are not those of {kind.name} here: {', '.join(unknown)} differ")
    return kind(**settings)


def _kind(name: str) -> type[Method]:
    if name not in METHODS:
        raise unknown_choice("method", name, tuple(METHODS))
    kind = METHODS[name]
    if kind.name != name:
        raise TypeError(f"{kind.__qualname__} is registered as {name!r}, but its `name` is {kind.name!r}")
    return kind
