"""The directions in which the support points of a class differ: all that they can tell of an image.

k points span at most k − 1 of the d directions. In every other direction all targets are the mean of the class,
whatever the image: a step there only takes detail away. In latents of photographs most of the variance of a class lies
outside the span, and half of the way to the mean decodes as fog. So a step moves an image within the span and leaves
the rest to the prior. The transport plan is the same either way: what lies outside costs as much for every point.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from dmgd.statistics.spread import powers


def span_of(support: Float[Tensor, "c k d"], mass: Float[Tensor, "c k"]) -> Float[Tensor, "c k d"]:
    """Rows B for which BᵀB is the orthogonal projection onto the span of the deviations of each class's support points
    from their mean. Points without mass count for nothing; computed in float64 on the CPU."""
    points, shares = support.double().cpu(), mass.double().cpu()
    centre = (shares / shares.sum(1, keepdim=True))[:, None] @ points
    deviations = torch.where(shares[:, :, None] > 0, points - centre, 0)
    (inverse_root,) = powers(deviations @ deviations.mT, -0.5)
    return (inverse_root @ deviations).to(support)


def within(step: Float[Tensor, "c n d"], span: Float[Tensor, "c k d"]) -> Float[Tensor, "c n d"]:
    """The part of a step that lies in the span of its class."""
    return step @ span.mT @ span
