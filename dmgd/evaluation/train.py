"""Training one network on an image set by a protocol, with validation."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from dmgd.errors import DmgdError, UsageError
from dmgd.evaluation.augmentation import augment, normaliser, to_unit
from dmgd.evaluation.imageset import ImageSet
from dmgd.evaluation.library_networks import STUDENTS
from dmgd.evaluation.networks import make_network, parameter_count, smallest_size
from dmgd.evaluation.protocols import QUICK_SIZE, Protocol, learning_rate_factor, validates

TEST_BATCH, TEST_PIXELS = 512, 512 * 64 * 64  # at most so many images, and so many pixels, at once

Teacher = Callable[[Float[Tensor, "b c h w"]], Float[Tensor, "b k"]]
"""Normalised, augmented images → the target logits of the soft-label loss."""


@dataclass(frozen=True)
class Training:
    """The result of one training. `curve` has (epoch, top-1 in %, mean training loss) of every validation; `confusion`
    (true class, predicted class) is the confusion matrix on the test images after the last epoch."""

    seed: int
    curve: tuple[tuple[int, float, float], ...]
    confusion: Int64[Tensor, "k k"]
    seconds: float

    @property
    def best(self) -> float:
        """The best top-1 of all validations, in %."""
        return max(top1 for _, top1, _ in self.curve)

    @property
    def last(self) -> float:
        return self.curve[-1][1]


def train(
    data: ImageSet,
    test: ImageSet,
    protocol: Protocol,
    seed: int,
    *,
    teacher: Teacher | None = None,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[], None] = lambda: None,
) -> Training:
    """Train a new network on `data` and test it on `test`. All randomness derives from `seed`.

    `protocol` is resolved. Raises DmgdError if the loss becomes NaN or infinite.
    """
    started = time.perf_counter()
    network = seeded_network(protocol, data, seed).to(device)
    network.to(memory_format=_layout(device))  # type: ignore[call-overload]
    bfloat16 = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=_is_cuda(device))
    optimizer = make_optimizer(protocol, network)
    images, labels = data.images.to(device), data.labels.to(device)
    normalise = normaliser(data.images, protocol)
    epochs, batch = protocol.epochs or 1, protocol.batch_size or len(data)
    steps, step = epochs * math.ceil(len(data) / batch), 0
    curve: list[tuple[int, float, float]] = []
    with fitting_threads(images.shape[-1], device):
        for epoch in range(epochs):
            losses = []
            for chosen in epoch_batches(len(data), batch, seed, epoch, full=protocol.full_batches):
                factor = learning_rate_factor(protocol.schedule, step / steps, epoch, epochs)
                set_learning_rate(optimizer, protocol.learning_rate * factor)
                chosen = chosen.to(device)
                generator = Generator().manual_seed(step_seed(seed, step))
                inputs, own, partners = augment(images[chosen], protocol, normalise, generator)
                inputs = inputs.contiguous(memory_format=_layout(device))
                with bfloat16:
                    output = network(inputs)
                    if teacher is not None:
                        loss = soft_loss(output, teacher(inputs), protocol.temperature)
                    else:
                        loss = hard_loss(output, labels[chosen], labels[chosen][partners], own)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
                step += 1
            mean_loss = require_finite(float(torch.stack(losses).mean()), data.name, epoch + 1, seed)
            if validates(protocol, epoch + 1, epochs):
                confusion = confusion_on(network, test, normalise, device)
                curve.append((epoch + 1, top1(confusion), mean_loss))
            on_epoch()
    return Training(seed, tuple(curve), confusion, time.perf_counter() - started)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def described(protocol: Protocol, data: ImageSet, seed: int) -> dict[str, Any]:
    """The protocol and the number of parameters of its network, as recorded in the report.

    Raises UsageError if the images are too small for the network: its last feature maps would be single pixels, which
    instance norm sets to zero.
    """
    least = smallest_size(protocol.network)
    if (protocol.norm == "instance" or protocol.network in STUDENTS) and (protocol.size or 0) < least:
        raise UsageError(
            f"{protocol.network} needs images of at least {least} pixels, not {protocol.size}; give --size {least} or "
            "a smaller --network"
        )
    return {"protocol": asdict(protocol), "parameters": parameter_count(seeded_network(protocol, data, seed))}


def require_finite(loss: float, name: str, epoch: int, seed: int) -> float:
    """The loss itself. Raises DmgdError unless it is finite."""
    if not math.isfinite(loss):
        raise DmgdError(
            f"training on {name} stopped: the loss became {loss} in epoch {epoch} (seed {seed}); "
            "check the images and the teacher, or choose another protocol"
        )
    return loss


def seeded_network(protocol: Protocol, data: ImageSet, seed: int) -> nn.Module:
    """A new network with initial weights from `seed`; torch's global generator is left unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_network(
            protocol.network,
            num_classes=len(data.classes),
            channels=data.images.shape[1],
            size=protocol.size or data.images.shape[-1],
            norm=protocol.norm,
        )


def make_optimizer(protocol: Protocol, network: nn.Module) -> torch.optim.Optimizer:
    """The protocol's optimiser. With soft labels, 1-D parameters have no weight decay (RDED)."""
    parameters = list(network.parameters())
    plain = [p for p in parameters if protocol.loss == "soft" and p.ndim <= 1]
    decayed = [p for p in parameters if protocol.loss == "hard" or p.ndim > 1]
    groups = [{"params": decayed, "weight_decay": protocol.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if protocol.optimizer == "sgd":
        return torch.optim.SGD(groups, protocol.learning_rate, momentum=protocol.momentum)
    return torch.optim.AdamW(groups, protocol.learning_rate)


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


@torch.no_grad()
def confusion_on(
    network: nn.Module, test: ImageSet, normalise: Callable[[Tensor], Tensor], device: torch.device | str
) -> Int64[Tensor, "k k"]:
    """The confusion matrix (true class, predicted class) of the network on the test images."""
    was_training, pixels = network.training, test.images.shape[-2] * test.images.shape[-1]
    network.eval()
    predicted = [
        network(normalise(to_unit(part.to(device))).contiguous(memory_format=_layout(device))).argmax(1).cpu()
        for part in test.images.split(max(1, min(TEST_BATCH, TEST_PIXELS // pixels)))
    ]
    network.train(was_training)
    return confusion_matrix(test.labels, torch.cat(predicted), len(test.classes))


def confusion_matrix(labels: Int64[Tensor, " n"], predicted: Int64[Tensor, " n"], count: int) -> Int64[Tensor, "k k"]:
    """How many images of each true class (row) were predicted to be of each class (column)."""
    return torch.bincount(labels * count + predicted, minlength=count**2).view(count, count)


def top1(confusion: Int64[Tensor, "k k"]) -> float:
    """The accuracy in %."""
    return 100 * float(confusion.diagonal().sum()) / float(confusion.sum())


@contextmanager
def fitting_threads(size: int, device: torch.device | str) -> Iterator[None]:
    """Use one CPU thread for small images, for which more would only add overhead."""
    before = torch.get_num_threads()
    if not _is_cuda(device) and size <= QUICK_SIZE:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _layout(device: torch.device | str) -> torch.memory_format:
    return torch.channels_last if _is_cuda(device) else torch.contiguous_format


def _is_cuda(device: torch.device | str) -> bool:
    return torch.device(device).type == "cuda"
