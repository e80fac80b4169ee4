"""The settings of a method as options, each with its symbol. Without one, the method's own value holds."""

from typing import Annotated, Any

import typer

PANEL = "Settings of the method (default: its own)"


def _option(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=PANEL, show_default=False)


GuidanceScale = Annotated[float | None, _option("1 + ω, classifier-free guidance; 1 is none.")]
GuidanceInterval = Annotated[
    tuple[int, int] | None, _option("Step indices FIRST LAST with classifier-free guidance. Default: all.")
]
Semantic = Annotated[bool, _option("Without semantic matching: plain labels.", "--no-semantic")]
Distribution = Annotated[bool, _option("Without distribution matching.", "--no-distribution")]
BetaN = Annotated[float | None, _option("β_n, noise in the soft label.", "--beta-n")]
BetaS = Annotated[float | None, _option("β_s, another class in the soft label.", "--beta-s")]
Stages = Annotated[
    tuple[int, int] | None,
    _option("Soft-label stages, REFINE EXPLORE: step indices for the paper's form, timesteps for the released."),
]
Rho = Annotated[
    float | None, _option("ρ, strength of optimal transport: in [0, 1] for dmgd, a factor for the others; λ of mgd3.")
]
Detail = Annotated[
    bool | None,
    _option(
        "Leave the images' detail to the prior, or draw them wholly to means. Default: kept with an autoencoder.",
        "--keep-detail/--no-keep-detail",
    ),
]
K = Annotated[int | None, _option("K, support points a class.", "--k")]
Epsilon = Annotated[float | None, _option("ε, entropy of the transport plan.")]
Iterations = Annotated[int | None, _option("Sinkhorn iterations.", "--sinkhorn-iterations")]
Window = Annotated[tuple[int, int] | None, _option("Step indices FIRST LAST of distribution matching.")]
Order = Annotated[str | None, _option("How images of a class are matched: joint, or greedy, one after another.")]
Solver = Annotated[str | None, _option("ddpm, or dpm++ (second order) for fewer steps.")]
Steps = Annotated[int | None, _option("Sampling steps, of 1,000.")]
