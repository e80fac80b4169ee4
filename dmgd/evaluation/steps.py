"""The steps of a training: batches, augmented ahead, and their gradient, added up from parts of the batch."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from dmgd.evaluation.augmentation import Normalise, augment, step_seed
from dmgd.evaluation.imageset import ImageSet
from dmgd.evaluation.protocols import Protocol

Teacher = Callable[[Float[Tensor, "b c h w"]], Float[Tensor, "b k"]]
"""Normalised, augmented images → the target logits of the soft-label loss."""


@dataclass(frozen=True)
class Batch:
    """Augmented images, their labels and those of their CutMix partners, of which each image has the fraction
    1 − `own`; `share` is the fraction of the whole batch's images; `logits` are the images' stored soft labels,
    `weights` what each counts in the loss."""

    images: Float[Tensor, "b c h w"]
    labels: Int64[Tensor, " b"]
    partner_labels: Int64[Tensor, " b"]
    own: float
    share: float = 1.0
    logits: Float[Tensor, "b k"] | None = None
    weights: Float[Tensor, " b"] | None = None

    def split(self, size: int) -> list["Batch"]:
        """The batch in as few parts of at most `size` images as there can be, of nearly equal size."""
        count = math.ceil(len(self.labels) / size)
        parts = (t.tensor_split(count) for t in (self.images, self.labels, self.partner_labels))
        optional = ([None] * count if t is None else t.tensor_split(count) for t in (self.logits, self.weights))
        return [
            Batch(images, labels, partner_labels, self.own, len(labels) / len(self.labels), *others)
            for images, labels, partner_labels, *others in zip(*parts, *optional, strict=True)
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
    """The batch of one scheduled step, its augmentation drawn from a generator of its own; or the stored views of its
    images, if the set has soft labels of views: those of another view in each epoch, in turn."""
    step, chosen = scheduled
    chosen, soft = chosen.to(data.images.device), data.soft
    if soft and soft.views:
        view = soft.view_of(step // math.ceil(len(data) / (protocol.batch_size or len(data))))
        seen = soft.views.of(data.images, chosen, view or 0, normalise).contiguous(memory_format=layout)
        weights = mixed_weights(data, chosen, *soft.views.mixed(chosen, view or 0))
        return Batch(seen, data.labels[chosen], data.labels[chosen], 1.0, 1.0, soft.logits(chosen, view), weights)
    generator = Generator().manual_seed(step_seed(seed, step))
    images, own, partners = augment(data.images[chosen], protocol, normalise, generator)
    labels = data.labels[chosen]
    batch = Batch(images.contiguous(memory_format=layout), labels, labels[partners], own)
    batch = replace(batch, weights=mixed_weights(data, chosen, chosen[partners], own))
    if not soft:
        return batch
    logits = soft.logits(chosen, None)
    return replace(batch, logits=mixed_logits(logits, logits[partners], own, protocol.temperature))


def part_gradient(
    network: nn.Module, protocol: Protocol, teacher: Teacher | None, part: Batch
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The part's contribution to the batch's mean loss, and its gradient for every parameter. On a GPU in bfloat16."""
    is_cuda = part.images.is_cuda
    with torch.autocast("cuda" if is_cuda else "cpu", torch.bfloat16, enabled=is_cuda):
        output = network(part.images)
        if part.logits is not None:
            loss = soft_loss(output, part.logits, protocol.temperature, part.weights)
        elif teacher is not None:
            loss = soft_loss(output, teacher(part.images), protocol.temperature, part.weights)
        else:
            loss = hard_loss(output, part.labels, part.partner_labels, part.own, part.weights)
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


def hard_loss(
    output: Tensor, labels: Tensor, partner_labels: Tensor, own: float, weights: Float[Tensor, " b"] | None = None
) -> Tensor:
    """Cross entropy, weighted between an image's label and its CutMix partner's; the mean over the batch, of each image
    times its weight."""

    def entropy(of: Tensor) -> Tensor:
        if weights is None:
            return F.cross_entropy(output, of)
        return (weights * F.cross_entropy(output, of, reduction="none")).mean()

    loss = own * entropy(labels)
    return loss if own == 1 else loss + (1 - own) * entropy(partner_labels)


def mixed_weights(
    data: ImageSet, chosen: Int64[Tensor, " b"], partners: Int64[Tensor, " b"], own: float | Float[Tensor, " b"]
) -> Float[Tensor, " b"] | None:
    """The weights of the images at `chosen`, mixed with those of their CutMix partners as their pixels are; None if the
    set has none."""
    if data.weights is None:
        return None
    weights = data.weights.to(chosen.device)
    return own * weights[chosen] + (1 - own) * weights[partners]


def mixed_logits(
    logits: Float[Tensor, "b k"], partners: Float[Tensor, "b k"], own: float, temperature: float
) -> Float[Tensor, "b k"]:
    """Logits whose probabilities, at this temperature, are those of the images and of their CutMix partners, mixed as
    their pixels are."""
    if own == 1:
        return logits
    mixed = own * F.softmax(logits / temperature, 1) + (1 - own) * F.softmax(partners / temperature, 1)
    return mixed.log() * temperature


def soft_loss(
    output: Float[Tensor, "b k"],
    target: Float[Tensor, "b k"],
    temperature: float,
    weights: Float[Tensor, " b"] | None = None,
) -> Tensor:
    """KL divergence from the teacher's to the network's outputs at this temperature, batch mean, without T² (RDED); of
    each image times its weight."""
    log_p, p = F.log_softmax(output.float() / temperature, 1), F.softmax(target.float() / temperature, 1)
    if weights is None:
        return F.kl_div(log_p, p, reduction="batchmean")
    return (weights * F.kl_div(log_p, p, reduction="none").sum(1)).mean()
