"""The judge of real crops: a teacher that says how probable each class is."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from numpy import ndarray
from torch import Tensor

from dmgd.classes.imagenet import imagenet_classes
from dmgd.classes.info import ClassIndex, ClassInfo
from dmgd.errors import MismatchError, listed, unknown_choice
from dmgd.evaluation.augmentation import normaliser, to_unit
from dmgd.evaluation.features import EFFICIENTNETS, efficientnet_input, load_efficientnet
from dmgd.evaluation.protocols import protocol_named
from dmgd.evaluation.teacher import load_teacher
from dmgd.files import sha256_file
from dmgd.generation.cropping import Judge
from dmgd.priors.prior import Prior


def open_judge(name: str, classes: Sequence[ClassInfo], prior: Prior) -> Judge:
    """The teacher for crops of these `classes` as the `prior` sees them: the EfficientNet-Lite `name`, restricted to
    them, or a checkpoint of the teacher of rded-soft, trained on them in this order.

    Raises MismatchError for other classes, UsageError if it is neither or a package is missing, ArtifactError if it
    cannot be read.
    """
    if name.startswith("efficientnet-lite"):
        return _imagenet_judge(name, classes, prior)
    size, channels, protocol = prior.image_size, prior.image_channels, protocol_named("rded-soft")
    teacher = load_teacher(
        name, network=protocol.network, norm=protocol.norm, num_classes=len(classes), channels=channels, size=size
    )
    network, normalise = teacher.network.to(prior.device), normaliser(torch.zeros(1, channels, 1, 1), protocol)
    identity = {"network": teacher.network_name, "sha256": teacher.sha256}
    return Judge(name, identity, _judging(lambda crops: network(normalise(to_unit(crops.to(prior.device))))))


def _imagenet_judge(name: str, classes: Sequence[ClassInfo], prior: Prior) -> Judge:
    if name not in EFFICIENTNETS:
        raise unknown_choice("teacher", name, tuple(EFFICIENTNETS))
    index = ClassIndex(imagenet_classes())
    found = [index.find(info.identity) for info in classes]
    rows = [own[0] for own in found if len(own) == 1]
    if unknown := [info.name for info, own in zip(classes, found, strict=True) if len(own) != 1]:
        raise MismatchError(
            f"the teacher {name} does not know the class{'es' * (len(unknown) > 1)} {listed(unknown, 5)}: its own are "
            "ImageNet's; give --teacher a checkpoint that was trained on these classes"
        )
    network, weights = load_efficientnet(name, "--teacher")
    fast = torch.channels_last  # two to three times as fast on CPUs
    network.to(prior.device, memory_format=fast)

    def logits(crops: Tensor) -> Tensor:
        return network(efficientnet_input(crops, name).to(prior.device, memory_format=fast))[:, rows]

    return Judge(name, {"network": name, "sha256": sha256_file(weights)}, _judging(logits))


def _judging(logits: Callable[[Tensor], Tensor]) -> Callable[[ndarray], ndarray]:
    @torch.no_grad()
    def log_probabilities(crops: ndarray) -> ndarray:
        images = torch.from_numpy(crops).permute(0, 3, 1, 2)
        return F.log_softmax(logits(images).float(), dim=1).cpu().numpy()

    return log_probabilities
