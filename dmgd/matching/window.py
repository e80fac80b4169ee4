"""When, on the way from noise to image, something becomes decided: computed from the data, not from step indices."""

from collections.abc import Sequence

VISIBLE = 0.5
CLEAR = 2.0


def hidden_from(alpha_bar: Sequence[float], deviation: float) -> int:
    """The last step index, counted from the noise, at which noise still hides a deviation in every coordinate: σ/α, the
    noise in units of the clean latent, is at least as large. `alpha_bar` falls with the step index; its own last if it
    never does.

    What a step does to an image before then, the prior can still make a picture of.
    """
    hidden = [k for k, a in enumerate(alpha_bar) if (1 - a) ** 0.5 >= deviation * a**0.5]
    return min(hidden, default=len(alpha_bar) - 1)


def decided_at(alpha_bar: Sequence[float], distance: float, deviations: float) -> int:
    """The first step index, counted from the noise, at which two latents `distance` apart can be told apart.

    In z_t they lie √ᾱ_t·distance apart under noise of deviation √(1−ᾱ_t): each is √ᾱ_t·distance/2 from the middle,
    which must be at least `deviations` times the noise. At VISIBLE (½) their order begins to show, at CLEAR (2) an
    image has chosen between them. 0 if they never can. `alpha_bar` falls with the step index.
    Source: the speciation time of Biroli et al. 2024, "Dynamical regimes of diffusion models", for two points.
    """
    clear = [k for k, a in enumerate(alpha_bar) if a**0.5 * distance / 2 >= deviations * (1 - a) ** 0.5]
    return max(clear, default=0)
