"""The steps of a training: batches, augmented ahead, and their gradient, added up from parts of the batch."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from dmgd.evaluation.augmentation import Normalise, augment
from dmgd.evaluation.imageset import ImageSet
from dmgd.evaluation.protocols import Protocol

Teacher = Callable[[Float[Tensor, "b c h w"]], Float[Tensor, "b k"]]
"""Normalised, augmented images → the target logits of the soft-label loss."""


@dataclass(frozen=True)
class Batch:
    """Augmented images, their labels and those of their CutMix partners, of which each image has the fraction
    1 − `own`; `share` is the fraction of the whole batch's images."""

    images: Float[Tensor, "b c h w"]
    labels: Int64[Tensor, " b"]
    partner_labels: Int64[Tensor, " b"]
    own: float
    share: float = 1.0

    def split(self, size: int) -> list["Batch"]:
        """The batch in as few parts of at most `size` images as there can be, of nearly equal size."""
        count = math.ceil(len(self.labels) / size)
        parts = (t.tensor_split(count) for t in (self.images, self.labels, self.partner_labels))
        return [
            Batch(images, labels, partner_labels, self.own, len(labels) / len(self.labels))
            for images, labels, partner_labels in zip(*parts, strict=True)
        ]


def scheduled(
    count: int, batch: int, seed: int, epochs: int, *, full: bool
) -> Iterator[tuple[int, Int64[Tensor, " b"]]]:
    """The number of every step of a training, from 0, and the indices of its batch."""
    batches = (one for epoch in range(epochs) for one in epoch_batches(count, batch, seed, epoch, full=full))
    return enumerate(batches)


def augmented(
    data: ImageSet,
    protocol: Protocol,
    normalise: Normalise,
    seed: int,
    layout: torch.memory_format,
    scheduled: tuple[int, Int64[Tensor, " b"]],
) -> Batch:
    """The batch of one scheduled step, its augmentation drawn from a generator of its own."""
    step, chosen = scheduled
    chosen = chosen.to(data.images.device)
    generator = Generator().manual_seed(step_seed(seed, step))
    images, own, partners = augment(data.images[chosen], protocol, normalise, generator)
    labels = data.labels[chosen]
    return Batch(images.contiguous(memory_format=layout), labels, labels[partners], own)


def part_gradient(
    network: nn.Module, protocol: Protocol, teacher: Teacher | None, part: Batch
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The part's contribution to the batch's mean loss, and its gradient for every parameter. On a GPU in bfloat16."""
    is_cuda = part.images.is_cuda
    with torch.autocast("cuda" if is_cuda else "cpu", torch.bfloat16, enabled=is_cuda):
        output = network(part.images)
        if teacher is not None:
            loss = soft_loss(output, teacher(part.images), protocol.temperature)
        else:
            loss = hard_loss(output, part.labels, part.partner_labels, part.own)
    loss = loss * part.share
    return loss.detach(), torch.autograd.grad(loss, list(network.parameters()))


def add_up(network: nn.Module, parts: Iterator[tuple[Tensor, tuple[Tensor, ...]]]) -> Tensor:
    """The sum of the parts' losses; the sum of their gradients, in their order, becomes that of the network."""
    loss, gradients = next(parts)
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        parameter.grad = gradient
    for more, gradients in parts:
        loss = loss + more
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter.grad.add_(gradient)  # type: ignore[union-attr]
    return loss


def epoch_batches(count: int, batch: int, seed: int, epoch: int, *, full: bool) -> tuple[Int64[Tensor, " b"], ...]:
    """The indices of an epoch's batches, a random permutation; `full` fills up the last one with repeated images."""
    generator = Generator().manual_seed(step_seed(seed, -1 - epoch))
    order = torch.randperm(count, generator=generator)
    while full and len(order) % batch:
        missing = batch - len(order) % batch
        order = torch.cat([order, torch.randperm(count, generator=generator)[:missing]])
    return order.split(batch)


def step_seed(seed: int, step: int) -> int:
    """A seed for one step of one training; negative steps are for the order of each epoch."""
    return (seed * 1_000_003 + step) % 2**63


def hard_loss(output: Tensor, labels: Tensor, partner_labels: Tensor, own: float) -> Tensor:
    """Cross entropy, weighted between an image's label and its CutMix partner's."""
    loss = own * F.cross_entropy(output, labels)
    return loss if own == 1 else loss + (1 - own) * F.cross_entropy(output, partner_labels)


def soft_loss(output: Float[Tensor, "b k"], target: Float[Tensor, "b k"], temperature: float) -> Tensor:
    """KL divergence from the teacher's to the network's outputs at this temperature, batch mean, without T² (RDED)."""
    log_p = F.log_softmax(output.float() / temperature, 1)
    return F.kl_div(log_p, F.softmax(target.float() / temperature, 1), reduction="batchmean")
