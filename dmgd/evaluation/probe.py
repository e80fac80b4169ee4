"""The linear probe: a linear classifier trained on a set's features and tested on those of real images."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

L2 = 1e-3
_ITERATIONS = 200


def linear_probe(
    train_rows: Float[ndarray, "n d"],
    train_labels: Int[ndarray, " n"],
    test_rows: Float[ndarray, "m d"],
    test_labels: Int[ndarray, " m"],
    num_classes: int,
) -> float:
    """Top-1 in % on the test rows of a linear classifier fitted to the train rows, both standardised. Deterministic."""
    fitted = fit_linear(train_rows, train_labels, num_classes)
    return 100 * float((fitted.logits(test_rows).argmax(1).numpy() == test_labels).mean())


def standardised(rows: Float[ndarray, "n d"], real: Float[ndarray, "m d"]) -> Float[ndarray, "n d"]:
    """The rows minus the mean of the real rows, divided by their standard deviation, per feature."""
    return (rows - real.mean(0)) / (real.std(0) + 1e-6)


@dataclass(frozen=True)
class LinearClassifier:
    """logits = rows · weights + bias, in float64."""

    weights: Float[Tensor, "d k"]
    bias: Float[Tensor, " k"]

    def logits(self, rows: Float[ndarray, "n d"]) -> Float[Tensor, "n k"]:
        return torch.from_numpy(rows).double() @ self.weights + self.bias


def fit_linear(rows: Float[ndarray, "n d"], labels: Int[ndarray, " n"], num_classes: int) -> LinearClassifier:
    """Multinomial logistic regression: minimises the mean cross entropy + 0.001 ‖weights‖².

    The problem is convex and solved by L-BFGS from zero: deterministic.
    """
    x, y = torch.from_numpy(rows).double(), torch.from_numpy(labels)
    weights = torch.zeros(x.shape[1], num_classes, dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(x @ weights + bias, y) + L2 * weights.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return LinearClassifier(weights.detach(), bias.detach())
