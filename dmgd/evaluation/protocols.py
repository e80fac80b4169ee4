"""The training protocols of the literature, and the settings of an evaluation. Standard library only."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from dmgd.config import check_settings, setting
from dmgd.errors import UsageError, unknown_choice

PROBE = "probe"  # the network that is a linear classifier on features
BASELINES = ("random", "kmeans-real", "herding", "dit", "full")
NEED_PRIOR = ("kmeans-real", "herding", "dit")
QUICK_STEPS = 500
QUICK_SIZE = 32
MANY_CLASSES = 100
OWN_NORM = ("mobilenet-v2", "efficientnet-b0", "vit-tiny", "swin-tiny")  # networks that bring their normalisation
CURVE_IMAGES = 500  # test images of a learning curve
VALIDATION_SHARE = 0.2
TRAINING_PASSES = 3  # training on an image costs as much as testing three


@dataclass(frozen=True)
class Protocol:
    """How a network is trained and tested.

    `augmentation` lists the operations in order; `normalisation` is by mean and deviation of the set's `own`
    images, or of a dataset. `network` "convnet", without a depth, gets one that fits the image
    size. Test images are resized to `resize` and cropped to `size`; None: the source's own size, at most 32.
    `batch_size` None: by IPC (10, 50, 100, doubled from 100 classes on). `full_batches` fills up the last batch of an
    epoch with repeated images. `epochs` None: by IPC, or with `full_batches` for about 500 steps.

    "lbfgs" is the optimiser of the linear probe, and of no network.

    `reports_best`: the papers report the best epoch. `validate_every` 0: about 100 validations, or fewer if the best
    epoch is not reported (`validated_epochs`); none in the first fraction `validate_from` of the epochs.
    """

    name: str
    network: str
    norm: Literal["instance", "batch", "own"]
    optimizer: Literal["sgd", "adamw", "lbfgs"]
    learning_rate: float
    weight_decay: float
    schedule: Literal["steps", "halves", "cosine", "half-cosine"]
    augmentation: tuple[str, ...]
    normalisation: Literal["own", "imagenet", "cifar10"] = "imagenet"
    loss: Literal["hard", "soft"] = "hard"
    momentum: float = 0.9
    temperature: float = 20.0
    batch_size: int | None = 64
    epochs: int | None = None
    full_batches: bool = False
    size: int | None = 224
    resize: int | None = 224
    reports_best: bool = False
    validate_from: float = 0.0
    validate_every: int = 0


_MINIMAX = Protocol(
    name="minimax-sgd",
    network="resnetap-10",
    norm="instance",
    optimizer="sgd",
    learning_rate=0.01,
    weight_decay=5e-4,
    schedule="steps",
    augmentation=("resized-crop", "flip", "jitter", "lighting", "normalise", "cutmix"),
    reports_best=True,
)
PROTOCOLS = {
    "quick": Protocol(
        name="quick",
        network="convnet",
        norm="instance",
        optimizer="adamw",
        learning_rate=3e-3,
        weight_decay=0.05,
        schedule="cosine",
        augmentation=("affine", "normalise"),
        normalisation="own",
        full_batches=True,
        size=None,
        resize=None,
    ),
    "dsa": Protocol(
        name="dsa",
        network="convnet-3",
        norm="instance",
        optimizer="sgd",
        learning_rate=0.01,
        weight_decay=5e-4,
        schedule="halves",
        augmentation=("normalise", "dsa"),
        normalisation="cifar10",
        batch_size=256,
        epochs=1000,
        size=None,
        resize=None,
    ),
    "minimax-sgd": _MINIMAX,
    "igd-adamw": replace(_MINIMAX, name="igd-adamw", optimizer="adamw", learning_rate=1e-3, weight_decay=0.01),
    "rded-soft": Protocol(
        name="rded-soft",
        network="resnet-18",
        norm="batch",
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=0.01,
        schedule="half-cosine",
        augmentation=("patches", "resized-crop", "flip", "normalise", "cutmix"),
        loss="soft",
        batch_size=None,
        epochs=300,
        resize=256,
        reports_best=True,
        validate_from=0.8,
        validate_every=10,
    ),
}

_EPOCHS_BY_IPC = ((1, 3000), (10, 2000), (50, 1500), (200, 1000), (500, 500))


def protocol_named(name: str) -> Protocol:
    """The protocol `name`. Raises UsageError for an unknown one."""
    if name not in PROTOCOLS:
        raise unknown_choice("protocol", name, tuple(PROTOCOLS))
    return PROTOCOLS[name]


def chosen_protocol(name: str, size: int | None, epochs: int | None, network: str | None) -> Protocol:
    """The protocol `name` with what overrides it. Raises UsageError for an unknown protocol."""
    protocol = protocol_named(name)
    if size:
        margin = (protocol.resize or 1) / (protocol.size or 1)
        protocol = replace(protocol, size=size, resize=round(size * margin))
    return replace(protocol, epochs=epochs or protocol.epochs, network=network or protocol.network)


def resolved(protocol: Protocol, *, num_images: int, num_classes: int, source_size: int) -> Protocol:
    """The protocol with all settings that depend on the set filled in; `source_size` is the source's image size."""
    ipc = math.ceil(num_images / num_classes)
    size = protocol.size or min(source_size, QUICK_SIZE)
    batch = protocol.batch_size or (10 if ipc < 10 else 50 if ipc < 50 else 100) * (1 + (num_classes >= MANY_CLASSES))
    epochs = protocol.epochs
    if epochs is None and protocol.full_batches:
        epochs = max(10, math.ceil(QUICK_STEPS / math.ceil(num_images / batch)))
    network = protocol.network
    if network == "convnet":
        network = f"convnet-{max(1, min(3, size.bit_length() - 2))}-w64"
    return replace(
        protocol,
        network=network,
        norm="own" if network in OWN_NORM else protocol.norm,
        size=size,
        resize=max(protocol.resize or size, size),
        batch_size=batch,
        epochs=epochs or epochs_by_ipc(ipc, num_classes),
    )


def epochs_by_ipc(ipc: int, num_classes: int) -> int:
    """The epochs of the hard-label protocols (IDC): fewer for larger sets, two thirds from 100 classes on."""
    epochs = next((epochs for limit, epochs in _EPOCHS_BY_IPC if ipc <= limit), 300)
    return epochs * 2 // 3 if num_classes >= MANY_CLASSES else epochs


def learning_rate_factor(schedule: str, done: float, epoch: int, epochs: int) -> float:
    """The factor of the learning rate. `done` in [0, 1) is the fraction of steps done, `epoch` counts from 0.

    "steps": ×0.2 at 2/3 and at 5/6 of the epochs. "halves": ×0.1 in the second half (DSA). "cosine": per step to
    zero, after a warm-up over the first 4 %. "half-cosine": ½ (1 + cos(π·epoch / 2·epochs)), which ends at ½
    (RDED).
    """
    if schedule == "steps":
        return 0.2 ** sum(epoch >= milestone for milestone in (2 * epochs // 3, 5 * epochs // 6))
    if schedule == "halves":
        return 1.0 if epoch < epochs / 2 else 0.1
    if schedule == "half-cosine":
        return 0.5 * (1 + math.cos(math.pi * epoch / (2 * epochs)))
    return min(1.0, done / 0.04 + 0.05) * 0.5 * (1 + math.cos(math.pi * done))


def validated_epochs(protocol: Protocol, images: int, test_images: int) -> list[int]:
    """The epochs, from 1, after which the network is tested; `images` are trained on in each. Always the last one.

    Where the best epoch is reported, every test is on all `test_images`. Elsewhere only the last is, the earlier ones
    are on CURVE_IMAGES of them, and unless `validate_every` is given they are so rare that all tests together take a
    fifth of the work of training.
    """
    epochs = protocol.epochs or 1
    every = protocol.validate_every or max(1, epochs // 100)
    if not (protocol.reports_best or protocol.validate_every):
        affordable = VALIDATION_SHARE * TRAINING_PASSES * images * epochs - test_images
        every = max(every, math.ceil(epochs / max(1, affordable // min(CURVE_IMAGES, test_images))))
    earlier = [e for e in range(every, epochs, every) if e > protocol.validate_from * epochs]
    return [*earlier, epochs]


@dataclass(frozen=True)
class EvaluateConfig:
    """What `evaluate` computes. `size`, `network` and `epochs` override the protocol's; the probe has none.

    `teacher`, a checkpoint or Hub id, provides the soft labels of rded-soft. `matching` of classes is by "name", by
    "index" or "auto". `metrics` adds the set metrics; they and the probe use the `features` of a network, or else the
    prior's latents. `report` keeps what `write_report` needs. `tiles` above 1 sets the images of the sets and of the
    baselines in mosaics of tiles × tiles, see dmgd.mosaics; None: as the sets are stored. `labels` are folders of
    `relabel`: the sets that they are of are trained on them, by the loss of soft labels. With `weighted`, the images of
    the sets, which are not baselines, count in the loss by the weights that the sets have.
    """

    protocol: str = "quick"
    repeats: int = setting(5, at_least=1)
    seed: int = 0
    epochs: int | None = setting(None, at_least=1)
    network: str | None = None
    size: int | None = None
    against: tuple[str, ...] = ("random",)
    teacher: str | None = None
    matching: str = "auto"
    metrics: bool = False
    features: str | None = None
    report: bool = False
    tiles: int | None = setting(None, at_least=1)
    labels: tuple[str, ...] = ()
    weighted: bool = False

    def __post_init__(self) -> None:
        check_settings(self)
        object.__setattr__(self, "labels", (self.labels,) if isinstance(self.labels, str) else self.labels)
        if isinstance(self.against, str):
            raise unknown_choice("baseline", self.against, BASELINES)
        if unknown := [name for name in self.against if name not in BASELINES]:
            raise unknown_choice("baseline", unknown[0], BASELINES)
        if twice := [name for name in self.against if self.against.count(name) > 1]:
            raise UsageError(f"the baseline {twice[0]} is given twice")
        if self.size is not None and self.size < 4:
            raise UsageError(f"the image size must be at least 4 pixels, not {self.size}")
        if self.probes:
            for name in ("epochs", "protocol", "teacher", "labels"):
                if getattr(self, name) != getattr(EvaluateConfig, name):
                    raise UsageError(f"{name} has no effect on the network probe, which is fitted until it converges")
        elif self.features and not self.metrics:
            raise UsageError(f"features ({self.features}) have no effect without metrics or the network probe")
        elif self.teacher and self.protocol in PROTOCOLS and PROTOCOLS[self.protocol].loss != "soft":
            raise UsageError(f"a teacher has no effect on the protocol {self.protocol}, which has hard labels")

        if self.labels and self.protocol in PROTOCOLS and PROTOCOLS[self.protocol].optimizer == "sgd":
            raise UsageError(
                f"the step sizes of {self.protocol} are those of hard labels; with soft labels take an AdamW protocol: "
                "rded-soft, quick or igd-adamw"
            )

    @property
    def probes(self) -> bool:
        """Whether linear probes are fitted instead of training networks."""
        return self.network == PROBE

    @property
    def needs_prior(self) -> bool:
        """Whether a prior is used: by baselines, or by metrics, a probe or a report's map in its latent space."""
        measured = (self.metrics or self.probes or self.report) and not self.features
        return bool(set(self.against) & set(NEED_PRIOR)) or measured

    def chosen(self) -> Protocol:
        """The protocol with the overrides. Raises UsageError for an unknown protocol."""
        return chosen_protocol(self.protocol, self.size, self.epochs, self.network)
