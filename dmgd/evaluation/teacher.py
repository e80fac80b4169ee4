"""The teacher of the soft-label protocol: a trained ResNet, from a local file or the Hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from dmgd.errors import ArtifactError, DmgdError, MismatchError, UsageError
from dmgd.evaluation.augmentation import normaliser
from dmgd.evaluation.imageset import ImageSet
from dmgd.evaluation.networks import make_network
from dmgd.evaluation.protocols import Protocol
from dmgd.evaluation.validation import confusion_on, top1
from dmgd.files import sha256_file
from dmgd.priors.weights import State, fetch, read_weights

_PREFIXES = ("module.", "model.", "_orig_mod.")  # which training wrappers add to parameter names
_FILES = ("model.safetensors", "pytorch_model.bin")
NEAR_CHANCE = 1.5


@dataclass(frozen=True)
class TeacherModel:
    """The checkpoint `name` with its digest, and its `network`, frozen and in evaluation mode: normalised images (b, c,
    h, w) → logits (b, k)."""

    name: str
    sha256: str
    network_name: str
    network: nn.Module


def load_teacher(name: str, *, network: str, norm: str, num_classes: int, channels: int, size: int) -> TeacherModel:
    """The teacher from a checkpoint (safetensors, or a pickle of plain tensors) or a Hub id.

    Parameter names are torchvision's, after removing the prefixes of wrappers. Raises MismatchError for another number
    of classes, ArtifactError if it cannot be read or is another network.
    """
    path = _locate(name)
    state = read_state(path)
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    head = next((state[key] for key in reversed(state) if key.endswith("weight") and state[key].ndim == 2), None)
    if head is not None and len(head) != num_classes:
        raise MismatchError(
            f"the teacher {name} has {len(head)} classes, the test source has {num_classes}; "
            "give a teacher that was trained on these classes"
        )
    model = make_network(network, num_classes=num_classes, channels=channels, size=size, norm=norm)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ArtifactError(
            f"the teacher {name} is not a {network} with {norm} norm for {channels}×{size}×{size} images "
            f"({str(error).splitlines()[-1].strip()[:150]}); give --network as it was trained"
        ) from error
    return TeacherModel(name, sha256_file(path), network, model.eval().requires_grad_(False))


def read_state(path: Path) -> State:
    """The tensors of a checkpoint by name. Raises ArtifactError for a damaged file or a pickle of other objects."""
    try:
        return read_weights(path)
    except ArtifactError as error:
        raise ArtifactError(f"the teacher cannot be read as weights: {error}") from error


def _locate(name: str) -> Path:
    """The checkpoint file of a path or Hub id. Raises UsageError for neither, ArtifactError for a failed download."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UsageError(f"the teacher {name} is neither a checkpoint file nor a Hub id")
    folder, _ = fetch(name, "teacher")
    found = next((folder / file for file in _FILES if (folder / file).is_file()), None)
    if found is None:
        raise ArtifactError(f"the teacher {name!r} has no {' or '.join(_FILES)}; give --teacher a local file")
    return found


def open_teacher(name: str | None, protocol: Protocol, own: ImageSet) -> TeacherModel:
    """The teacher for the set's classes and image size. Raises UsageError if none is given."""
    if name is None:
        raise UsageError(f"the protocol {protocol.name!r} needs --teacher: a checkpoint or a Hub id")
    return load_teacher(
        name,
        network=protocol.network,
        norm=protocol.norm,
        num_classes=len(own.classes),
        channels=own.images.shape[1],
        size=protocol.size or own.images.shape[-1],
    )


def check_teacher(teacher: TeacherModel, protocol: Protocol, test: ImageSet, device: str) -> dict[str, Any]:
    """The teacher's identity and top-1 on the test images. Raises DmgdError if that is below 1.5 times chance."""
    reached = top1(confusion_on(teacher.network.to(device), test, normaliser(test.images, protocol), device))
    chance = 100 / len(test.classes)
    if reached < NEAR_CHANCE * chance:
        raise DmgdError(
            f"the teacher {teacher.name} has {reached:.1f} % top-1 on the test images, chance is {chance:.1f} %; "
            "it may have another order of classes, or expect another image size or normalisation"
        )
    return {"name": teacher.name, "sha256": teacher.sha256, "network": teacher.network_name, "top1": round(reached, 3)}
