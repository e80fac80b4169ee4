"""The judge of real crops: a teacher that says how probable each class is."""

import torch
import torch.nn.functional as F
from numpy import ndarray

from dmgd.classes.info import ClassInfo
from dmgd.evaluation.augmentation import to_unit
from dmgd.evaluation.protocols import protocol_named
from dmgd.evaluation.teacher import teacher_of
from dmgd.generation.cropping import Judge
from dmgd.priors.prior import Prior


def open_judge(name: str, classes: tuple[ClassInfo, ...], prior: Prior) -> Judge:
    """The teacher for crops of these `classes` as the `prior` sees them, see `teacher_of`; a checkpoint is that of a
    teacher of rded-soft. Raises UsageError, MismatchError and ArtifactError as that."""
    protocol = protocol_named("rded-soft")
    teacher = teacher_of(name, classes, prior.image_channels, protocol, prior.image_size)
    network = teacher.network.to(prior.device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # two to three times as fast on CPUs

    @torch.no_grad()
    def log_probabilities(crops: ndarray) -> ndarray:
        images = torch.from_numpy(crops).permute(0, 3, 1, 2).to(prior.device)
        return F.log_softmax(network(to_unit(images)).float(), dim=1).cpu().numpy()

    return Judge(name, {"network": teacher.network_name, "sha256": teacher.sha256}, log_probabilities)
