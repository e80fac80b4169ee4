"""Training one network on an image set by a protocol, with validation."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from threading import Lock
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from dmgd.errors import DmgdError, UsageError
from dmgd.evaluation.augmentation import normaliser
from dmgd.evaluation.checkpoint import Checkpoint, Reached
from dmgd.evaluation.cores import Cores, Whole, ahead, open_cores
from dmgd.evaluation.imageset import ImageSet
from dmgd.evaluation.networks import images_in_cache, make_network, memory_format, parameter_count, smallest_size
from dmgd.evaluation.protocols import Protocol, learning_rate_factor, validated_epochs
from dmgd.evaluation.steps import Teacher, add_up, augmented, part_gradient, scheduled
from dmgd.evaluation.validation import TEST_BATCH, confusion_on, curve_images, top1

_global_generator = Lock()  # torch's, which several trainings draw their initial weights from


@dataclass(frozen=True)
class Training:
    """The result of one training. `curve` has (epoch, top-1 in %, mean training loss) of every validation; `confusion`
    (true class, predicted class) is the confusion matrix on the test images after the last epoch. `best`, the best
    top-1 of all validations, is None unless all were on all test images."""

    seed: int
    curve: tuple[tuple[int, float, float], ...]
    confusion: Int64[Tensor, "k k"]
    seconds: float
    best: float | None = None

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
    cores: Cores | Whole | None = None,
) -> Training:
    """Train a new network on `data` and test it on `test`. All randomness derives from `seed`.

    `protocol` is resolved. `cores`, of `open_cores`, may be shared by several trainings in threads of their own: the
    result is the same. Raises DmgdError if the loss becomes NaN or infinite.
    """
    network = seeded_network(protocol, data, seed).to(device)
    return _train(network, data, test, protocol, seed, teacher, on_epoch, cores)


def train_network(
    network: nn.Module,
    data: ImageSet,
    test: ImageSet,
    protocol: Protocol,
    seed: int,
    *,
    on_epoch: Callable[[], None],
    checkpoint: Checkpoint,
) -> Training:
    """Train this `network` on hard labels, on its device, as `train` does. The state is kept in the `checkpoint`; a
    training that was interrupted is continued from there, and ends as if it had not been."""
    return _train(network, data, test, protocol, seed, None, on_epoch, None, checkpoint)


def _train(
    network: nn.Module,
    data: ImageSet,
    test: ImageSet,
    protocol: Protocol,
    seed: int,
    teacher: Teacher | None,
    on_epoch: Callable[[], None],
    cores: Cores | Whole | None,
    checkpoint: Checkpoint | None = None,
) -> Training:
    """See `train` and `train_network`."""
    started = time.perf_counter()
    size, device = data.images.shape[-1], next(network.parameters()).device
    layout = memory_format(protocol.network, size, device)
    network.to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = make_optimizer(protocol, network)
    epochs, batch = protocol.epochs or 1, protocol.batch_size or len(data)
    per_epoch = math.ceil(len(data) / batch)
    validated = validated_epochs(protocol, per_epoch * batch if protocol.full_batches else len(data), len(test))
    few = test if protocol.reports_best else curve_images(test)
    reached = checkpoint.restored(network, optimizer) if checkpoint else Reached()
    curve = reached.curve
    with nullcontext(cores) if cores else open_cores(protocol, device) as cores:
        in_parts = isinstance(cores, Cores) and protocol.norm == "instance"
        at_once = images_in_cache(protocol.network, size) if in_parts else max(batch, TEST_BATCH)
        normalise = cores.submit(normaliser, data.images, protocol).result()
        there = replace(data, images=data.images.to(device), labels=data.labels.to(device))
        augmenting = partial(augmented, there, protocol, normalise, seed, layout)
        steps = scheduled(len(data), batch, seed, epochs, full=protocol.full_batches)
        batches = ahead(cores, augmenting, islice(steps, reached.step, None))
        gradient = partial(part_gradient, network, protocol, teacher)
        for _ in range(reached.step // per_epoch):
            on_epoch()
        for epoch in range(reached.step // per_epoch + 1, epochs + 1):
            losses, reached.losses = reached.losses, []
            for step in range(max((epoch - 1) * per_epoch, reached.step), epoch * per_epoch):
                if checkpoint and checkpoint.is_due():
                    seconds = reached.seconds + time.perf_counter() - started
                    checkpoint.keep(Reached(step, losses, curve, seconds), network, optimizer)
                factor = learning_rate_factor(protocol.schedule, step / (epochs * per_epoch), epoch - 1, epochs)
                set_learning_rate(optimizer, protocol.learning_rate * factor)
                losses.append(add_up(network, cores.map(gradient, next(batches).split(at_once))))
                cores.submit(optimizer.step).result()
            mean_loss = require_finite(float(torch.stack(losses).mean()), data.name, epoch, seed)
            if epoch in validated:
                images = few if epoch < epochs else test
                confusion = confusion_on(network, images, normalise, device, cores, at_once)
                curve.append((epoch, top1(confusion), mean_loss))
            on_epoch()
    best = max(accuracy for _, accuracy, _ in curve) if protocol.reports_best else None
    return Training(seed, tuple(curve), confusion, reached.seconds + time.perf_counter() - started, best)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def described(protocol: Protocol, data: ImageSet, seed: int) -> dict[str, Any]:
    """The protocol and the number of parameters of its network, as recorded in the report.

    Raises UsageError if the images are too small for the network: its last feature maps would be single pixels, which
    instance norm sets to zero.
    """
    least = smallest_size(protocol.network)
    if protocol.norm != "batch" and (protocol.size or 0) < least:
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
    with _global_generator, torch.random.fork_rng(devices=[]):
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
