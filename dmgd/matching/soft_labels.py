"""Semantic matching: dynamic soft labels, annealed to the embedding of the class.

Three forms: as the paper's equations have it, as the authors' released code does it, and the paper's from the null
embedding. Far from the class, the paper's is a vector near zero, which priors with a label table of deviation 1, as
those of `train-prior`, have never seen: their x̂_0 has errors that remain as glaring spots. What no class is, every
prior with classifier-free guidance has learned.

Embeddings have shape (b, …): a row for each image; of a DiT (b, g, e), with g label tables (1 unless every block has
its own) of e features.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from dmgd.diffusion.condition import Condition
from dmgd.diffusion.sampler import Conditions
from dmgd.diffusion.schedule import Step

Embedding = Float[Tensor, "b ..."]
Pair = Float[Tensor, "b 2 ..."]
"""The conditional and the null embedding of each image, in this order."""

LabelNoise = Callable[[Step], Condition]
"""Step → the noise of both embeddings of each image, a `Pair` for every embedding; Gaussian or uniform by method."""


def plain_labels(label: Condition, null: Condition) -> Conditions:
    """The class itself at every step."""
    return lambda step: (label, null)


def paper_soft_labels(
    label: Condition,
    null: Condition,
    other: Condition,
    noise: LabelNoise,
    *,
    stages: tuple[int, int],
    beta_s: float,
    beta_n: float,
) -> Conditions:
    """The paper's soft labels between `label`, another class and noise; `stages` (refine until, explore from) are step
    indices. The null condition stays as it is."""

    def conditions(step: Step) -> tuple[Condition, Condition]:
        certainty = paper_certainty(step.index, refine_until=stages[0], explore_from=stages[1])
        if certainty == 1:
            return label, null

        def soft(own: Tensor, another: Tensor, drawn: Tensor) -> Tensor:
            return paper_label(own, another, drawn[:, 0], certainty, beta_s=beta_s, beta_n=beta_n)

        return label.blend(soft, other, noise(step)), null

    return conditions


def null_soft_labels(
    label: Condition,
    null: Condition,
    other: Condition,
    noise: LabelNoise,
    *,
    stages: tuple[int, int],
    beta_s: float,
    beta_n: float,
) -> Conditions:
    """The paper's soft labels, of the classes' differences from the null embedding: from no class, with noise, to the
    class."""
    own, another = (one.blend(torch.sub, null) for one in (label, other))
    soft = paper_soft_labels(own, null, another, noise, stages=stages, beta_s=beta_s, beta_n=beta_n)

    def conditions(step: Step) -> tuple[Condition, Condition]:
        if paper_certainty(step.index, refine_until=stages[0], explore_from=stages[1]) == 1:
            return label, null
        return soft(step)[0].blend(torch.add, null), null

    return conditions


def released_soft_labels(
    label: Condition,
    null: Condition,
    other: Condition,
    noise: LabelNoise,
    *,
    stages: tuple[int, int],
    beta_s: float,
    beta_n: float,
) -> Conditions:
    """The released code's soft labels, which change the null condition, too; `stages` (lower, upper) are timesteps."""
    lower, upper = stages
    pair = label.blend(lambda own, none: torch.stack([own, none], dim=1), null)

    def conditions(step: Step) -> tuple[Condition, Condition]:
        if step.timestep < lower:
            return label, null

        def soft(both: Tensor, another: Tensor, drawn: Tensor) -> Tensor:
            return released_pair(
                both, another, drawn, step.timestep, beta_s=beta_s, beta_n=beta_n, lower=lower, upper=upper
            )

        blend = pair.blend(soft, other, noise(step))
        return blend.blend(lambda both: both[:, 0]), null.blend(lambda own, both: both[:, 1], blend)

    return conditions


def paper_certainty(k: int, explore_from: int, refine_until: int) -> float:
    """σ of step index k in [0, 1]: 0 from `explore_from` up (random exploration), 1 from `refine_until` down
    (semantic refinement, the plain label), linear between."""
    return min(1.0, max(0.0, (explore_from - k) / (explore_from - refine_until)))


def paper_label(
    label: Embedding, other: Embedding, noise: Embedding, certainty: float, *, beta_s: float, beta_n: float
) -> Embedding:
    """The soft label f̃(y) = √σ f(y) + (1 − √σ)(β_s f(y*) + β_n n), with Gaussian noise n.

    `other` is f(y*), the embedding of another class. Source: the paper's label diffusion.
    """
    root = certainty**0.5
    return root * label + (1 - root) * (beta_s * other + beta_n * noise)


def released_certainty(t: int | float, upper: int = 900, lower: int = 500) -> float:
    """λ of the original timestep t: 0 above `upper`, 1 below `lower`, linear between."""
    return min(1.0, max(0.0, (upper - t) / (upper - lower)))


def released_pair(
    pair: Pair,
    other: Embedding,
    noise: Pair,
    t: int | float,
    *,
    beta_s: float,
    beta_n: float,
    upper: int = 900,
    lower: int = 500,
) -> Pair:
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


def _with_moments_of(values: Pair, like: Pair) -> Pair:
    """`values` shifted and scaled, image by image, to the mean and standard deviation of `like`."""
    axes = tuple(range(1, values.ndim))
    centred = values - values.mean(axes, keepdim=True)
    scale = like.std(axes, keepdim=True) / values.std(axes, keepdim=True)
    return centred * scale + like.mean(axes, keepdim=True)
