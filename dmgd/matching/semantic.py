"""Semantic matching: label embeddings that start vague and become the class (METHOD: dynamic soft labels).

Two forms: `paper_label` as the paper's equations have it, `released_pair` as the authors' released code does it.
Embeddings have shape (b, g, e): b images, e features, g label tables (1 unless every block of a DiT has its own).
"""

from jaxtyping import Float
from torch import Tensor

Label = Float[Tensor, "b g e"]


def paper_certainty(k: int, explore_from: int, refine_until: int) -> float:
    """σ of step index k in [0, 1]: 0 from `explore_from` up (random exploration), 1 from `refine_until` down
    (semantic refinement, the plain label), linear between."""
    return min(1.0, max(0.0, (explore_from - k) / (explore_from - refine_until)))


def paper_label(label: Label, other: Label, noise: Label, certainty: float, *, beta_s: float, beta_n: float) -> Label:
    """The soft label f̃(y) = √σ f(y) + (1 − √σ)(β_s f(y*) + β_n n), with Gaussian noise n.

    `other` is f(y*), the embedding of another class. Source: the paper's label diffusion.
    """
    root = certainty**0.5
    return root * label + (1 - root) * (beta_s * other + beta_n * noise)


def released_certainty(t: int, upper: int = 900, lower: int = 500) -> float:
    """λ of the original timestep t: 0 above `upper`, 1 below `lower`, linear between."""
    return min(1.0, max(0.0, (upper - t) / (upper - lower)))


def released_pair(
    pair: Float[Tensor, "b 2 g e"],
    other: Label,
    noise: Float[Tensor, "b 2 g e"],
    t: int,
    *,
    beta_s: float,
    beta_n: float,
    upper: int = 900,
    lower: int = 500,
) -> Float[Tensor, "b 2 g e"]:
    """The conditional and null embeddings (`pair`, in this order) as the released code blends them at timestep t.

    √λ f + β_n √(1−λ) n + [t ≤ upper] β_s √(1−λ) f(y*) for both rows, with n uniform on [0, 1); then both rows together
    are shifted and scaled to the mean and (unbiased) standard deviation that they had together before.
    """
    certainty = released_certainty(t, upper, lower)
    vague = (1 - certainty) ** 0.5
    blend = certainty**0.5 * pair + beta_n * vague * noise
    if t <= upper:
        blend = blend + beta_s * vague * other[:, None]
    return _with_moments_of(blend, pair)


def _with_moments_of(values: Float[Tensor, "b 2 g e"], like: Float[Tensor, "b 2 g e"]) -> Float[Tensor, "b 2 g e"]:
    """`values` shifted and scaled, image by image, to the mean and standard deviation of `like`."""
    axes = (1, 2, 3)
    centred = values - values.mean(axes, keepdim=True)
    scale = like.std(axes, keepdim=True) / values.std(axes, keepdim=True)
    return centred * scale + like.mean(axes, keepdim=True)
